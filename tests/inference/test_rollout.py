"""Relevance flows through every scheme as the scheme's own blocks pass values on; tiny cases are computed by hand."""

from __future__ import annotations

from math import sqrt

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from tests.models.small_models import small
from timesformer.inference.rollout import _Flow, _Patches, attention_weights, gradient_weighted, rollout
from timesformer.models.attention import Attention, Weighing, recorded_attention
from timesformer.models.blocks import DividedBlock
from timesformer.models.frame_cls import FrameClsBlock
from timesformer.models.vit import ATTENTION_TYPES, TimeSformer

SYMMETRIC = [name for name in ATTENTION_TYPES if name != "frame_cls_causal"]


def clip(frames: int = 4, height: int = 32, width: int = 32) -> Tensor:
    return torch.randn(1, 3, frames, height, width, generator=torch.Generator().manual_seed(0))


def attentions(model: nn.Module) -> list[Attention]:
    return [module for module in model.modules() if isinstance(module, Attention)]


def without_preference(model: TimeSformer) -> TimeSformer:
    """The model with queries of zero: its attention is uniform."""
    with torch.no_grad():
        for attn in attentions(model):
            attn.qkv.weight[: attn.qkv.weight.shape[1]] = 0.0
            attn.qkv.bias[: attn.qkv.weight.shape[1]] = 0.0
    return model.eval()


def flow(model: TimeSformer, x: Tensor) -> Tensor:
    """Rollout before uniform attention is divided out, (T, rows, columns)."""
    with torch.no_grad(), recorded_attention(model) as records:
        model.forward_features(x, all_tokens=True)
        return _Flow(records).through(model.model, x.shape[2])


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
def test_uniform_attention_gives_a_uniform_map(attention_type: str) -> None:
    model = without_preference(small(attention_type))
    torch.testing.assert_close(rollout(model, clip()), torch.ones(4, 4, 4))
    if attention_type in SYMMETRIC:  # here nothing need be divided out
        found = flow(model, clip())
        torch.testing.assert_close(found, found.mean().expand_as(found))


def test_of_a_causal_model_with_uniform_attention_the_last_frame_counts_most() -> None:
    found = flow(without_preference(small("frame_cls_causal")), clip())
    assert found.sum((1, 2)).argmax() == 3
    torch.testing.assert_close(found, found.mean((1, 2), keepdim=True).expand_as(found))


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])  # 4 x 4 patches, and 3 x 5, which the windows do not divide
@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
def test_relevance_is_the_gradient_where_blocks_only_pass_values_on(
    attention_type: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Channel 0 of each token is passed on by attention, the others make queries and keys and stay as they are."""
    torch.manual_seed(1)
    frames = 5
    sizes = {"img_size": size, "num_frames": frames, "embed_dim": 8, "num_heads": 1}
    model = small(attention_type, **sizes).eval()
    vit = model.model
    vit.norm = nn.Identity()
    with torch.no_grad():
        nn.init.normal_(vit.patch_embed.proj.weight, std=0.3)
        for block in vit.blocks:
            block.mlp.fc2.weight.zero_(), block.mlp.fc2.bias.zero_()
            for name, module in list(block.named_children()):
                if isinstance(module, nn.LayerNorm):
                    setattr(block, name, nn.Identity())
                elif name.endswith("_fc"):
                    pass_channel_0_on(module)
                elif isinstance(module, Attention):
                    module.qkv.weight[:, 0] = 0.0
                    module.qkv.weight.mul_(8)
                    module.qkv.weight[16:], module.qkv.bias[16:] = 0.0, 0.0
                    module.qkv.weight[16, 0] = 1.0
                    pass_channel_0_on(module.proj)
    x = clip(frames, *size)
    tokens: list[Tensor] = []
    vit.patch_embed.register_forward_hook(lambda *args: tokens.append(args[-1]))
    features, _ = model.forward_features(x.requires_grad_(), all_tokens=True)
    (gradient,) = torch.autograd.grad(features[0, 0], tokens[0])
    order = "1 t (h w) d -> t h w d" if vit.by_frame else "1 (h w) t d -> t h w d"
    expected = rearrange(gradient, order, h=vit.grid[0])[..., 0]
    if attention_type in ("space_only", "frame_cls"):
        expected = expected * frames  # what is read is the mean of the frames' cls tokens
    monkeypatch.setattr(_Flow, "_join", lambda self, residual, moved: residual + moved)  # the blocks halve nothing
    torch.testing.assert_close(flow(model, x.detach()), expected, rtol=1e-4, atol=1e-6)
    assert expected.std() > 0.1 * expected.mean(), "nothing to tell apart"


def pass_channel_0_on(linear: nn.Module) -> None:
    linear.weight.zero_(), linear.bias.zero_()
    linear.weight[0, 0] = 1.0


def weighing(*rows: list[list[float]]) -> Weighing:
    """An attention with these weights, one matrix for each row."""
    weights = torch.tensor(rows)
    queries, keys = weights.shape[1:]
    q = torch.log(weights)[:, None] * sqrt(keys)
    k = torch.eye(keys).expand(len(rows), 1, keys, keys)
    return Weighing(q, k, k, None, False, torch.zeros(len(rows), queries, keys))


def test_divided_attention_by_hand() -> None:
    """Two frames of one row of two patches, a and b; one block."""
    block = DividedBlock(4, 1, mlp_ratio=1.0, qkv_bias=True, drop=0.0, attn_drop=0.0, drop_path=0.0)
    in_time = weighing([[0.5, 0.5], [0.25, 0.75]], [[1.0, 1e-9], [0.5, 0.5]])  # at a, at b
    even = [1 / 3, 1 / 3, 1 / 3]
    in_space = weighing([[0.2, 0.8, 1e-9], even, even], [[0.4, 0.2, 0.4], even, even])  # frame 1, frame 2
    records = {block.temporal_attn: [in_time], block.attn: [in_space]}
    start = _Patches(torch.ones(()), torch.zeros(1, 1, 2, 2, 1))
    cls, tokens = _Flow(records).back(block, start)
    # cls: half stays, half is the mean over the frames of what it gives itself: (1 + (0.2 + 0.4) / 2) / 2
    assert cls == pytest.approx(0.65)
    # after space: a 0.8 / 4, 0.2 / 4 in the two frames, b 0, 0.4 / 4; then time:
    # a1: (0.2 + 0.2 * 0.5 + 0.05 * 0.25) / 2    a2: (0.05 + 0.2 * 0.5 + 0.05 * 0.75) / 2
    # b1: (0 + 0 * 1 + 0.1 * 0.5) / 2            b2: (0.1 + 0 + 0.1 * 0.5) / 2
    torch.testing.assert_close(tokens.view(2, 2), torch.tensor([[0.15625, 0.09375], [0.025, 0.075]]))
    assert cls + tokens.sum() == pytest.approx(1.0)


def test_a_cls_token_per_frame_by_hand() -> None:
    """Two frames of one patch, p; causal: the last frame's cls token is read."""
    block = FrameClsBlock(4, 1, mlp_ratio=1.0, qkv_bias=True, drop=0.0, attn_drop=0.0, drop_path=0.0)
    in_time = weighing([[1.0, 1e-9], [0.25, 0.75]], [[1.0, 1e-9], [0.5, 0.5]])  # of cls, of p
    in_space = weighing([[0.5, 0.5], [0.5, 0.5]], [[0.2, 0.8], [0.5, 0.5]])  # frame 1, frame 2
    records = {block.temporal_attn: [in_time], block.attn: [in_space]}
    found = _Flow(records).back(block, torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    # after space: cls 0.6 and p 0.4 of the second frame; then time: a quarter of cls comes from the first, half of p
    torch.testing.assert_close(found, torch.tensor([[0.075, 0.1], [0.525, 0.3]]))


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
def test_recorded_weights_give_the_recorded_values_and_change_nothing(attention_type: str) -> None:
    model, x = small(attention_type).eval(), clip()
    before = model(x)
    with recorded_attention(model) as records:
        assert torch.allclose(model(x), before, atol=1e-6)
    assert all(attn.recorded is None for attn in attentions(model))
    assert torch.equal(model(x), before)
    for attn, calls in records.items():
        assert calls, "an attention that nothing recorded"
        for call in calls:
            values = [attention_weights(call, head) @ call.v[:, head] for head in range(attn.num_heads)]
            torch.testing.assert_close(torch.cat(values, dim=2), call.mixed)


def test_relevance_is_computed_in_fp32_whatever_the_model_computes_in() -> None:
    model = small("divided_space_time").eval()
    with recorded_attention(model) as records, torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model.forward_features(clip(), all_tokens=True)
        inside = _Flow(records).through(model.model, 4)
    assert torch.equal(inside, _Flow(records).through(model.model, 4)) and inside.dtype == torch.float32


@pytest.mark.parametrize("attention_type", ["joint_space_time", "space_only"])
def test_gradient_weighting_is_weight_times_gradient(attention_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one block: the positive part of A * dy/dA, mean over the heads, in the row of the cls token."""
    model, x = small(attention_type, depth=1).eval(), clip()
    found = gradient_weighted(model, x, label=2)
    weights: list[Tensor] = []

    def explicit(q: Tensor, k: Tensor, v: Tensor, *_: object, **__: object) -> Tensor:
        weights.append((q @ k.transpose(2, 3) * q.shape[3] ** -0.5).softmax(3))
        return weights[-1] @ v

    monkeypatch.setattr(F, "scaled_dot_product_attention", explicit)
    with recorded_attention(model):  # no other form of attention
        features, _ = model.forward_features(x.requires_grad_(), all_tokens=True)
    (slope,) = torch.autograd.grad(model.head(features)[0, 2], weights)
    rows = (weights[0] * slope).clamp(min=0).mean(1)[:, 0, 1:]
    order = "1 (h w t) -> t h w" if attention_type == "joint_space_time" else "t (h w) -> t h w"
    torch.testing.assert_close(found, rearrange(rows, order, h=4, w=4), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
def test_gradient_weighting_depends_on_the_class(attention_type: str) -> None:
    model = small(attention_type).eval()
    first, second = (gradient_weighted(model, clip(), label) for label in (0, 1))
    assert first.shape == (4, 4, 4) and (first >= 0).all() and first.sum() > 0
    assert not torch.allclose(first / first.sum(), second / second.sum(), atol=1e-3)


def test_copies_of_cls_count_as_one_in_gradient_weighting() -> None:
    """A divided model of one block whose time is one frame is a joint one: the same map."""
    torch.manual_seed(0)
    divided = small("divided_space_time", depth=1, num_frames=1).eval()
    joint = small("joint_space_time", depth=1, num_frames=1).eval()
    with torch.no_grad():
        divided.model.blocks[0].temporal_fc.weight.zero_(), divided.model.blocks[0].temporal_fc.bias.zero_()
    joint.load_state_dict(divided.state_dict(), strict=False)
    found, expected = (gradient_weighted(model, clip(1), 0) for model in (divided, joint))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-8)
