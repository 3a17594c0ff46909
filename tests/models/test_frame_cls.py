"""A cls token per frame: against attention written out, blind to the future where it is causal, time relative."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from timesformer.inference.predictor import load
from timesformer.models.attention import Attention
from timesformer.models.build import create_model
from timesformer.models.frame_cls import FrameClsBlock, rotate_by_time
from timesformer.models.stream import StreamTimeSformer
from timesformer.utils.errors import CheckpointError
from timesformer.weights import load_weights

TYPES = StreamTimeSformer.attention_types
SIZES: dict[str, Any] = {"img_size": (16, 24), "num_frames": 5, "embed_dim": 24, "depth": 2, "num_heads": 2}


def model_of(attention_type: str, **changes: Any) -> StreamTimeSformer:
    torch.manual_seed(0)
    return StreamTimeSformer(**SIZES | {"attention_type": attention_type, "num_classes": 4} | changes).eval()


def written_out(attn: Attention, rows: Tensor, *, causal: bool, rotated: bool) -> Tensor:
    """Attention of rows (R, L, D) query by query and key by key, with complex numbers for rotations."""
    q, k, v = attn.qkv(rows).double().unflatten(2, (3, attn.num_heads, -1)).unbind(2)  # (R, L, heads, d)
    half, length = q.shape[3] // 2, rows.shape[1]
    out = torch.zeros_like(v)
    for i in range(length):
        seen = range(i + 1) if causal else range(length)
        scores = []
        for j in seen:
            a, b = (torch.complex(x[..., :half], x[..., half:]) for x in (q[:, i], k[:, j]))
            waves = 100.0 ** (-torch.arange(half, dtype=torch.float64) / half)
            turn = torch.exp(1j * waves * (i - j)) if rotated else 1.0
            scores.append((a * b.conj() * turn).real.sum(2) / math.sqrt(2 * half))
        weights = torch.stack(scores, 2).softmax(2)  # (R, heads, seen)
        out[:, i] = sum(weights[:, :, n, None] * v[:, j] for n, j in enumerate(seen))
    return attn.proj(out.flatten(2).float())


@pytest.mark.parametrize("attention_type", TYPES)
def test_the_block_is_what_it_says(attention_type: str) -> None:
    model = model_of(attention_type)
    block: FrameClsBlock = model.blocks[0]
    x = torch.randn(2, 5, 7, 24)
    with torch.no_grad():
        found = block(x)
        expected = x.clone()
        for token in range(7):
            rows = block.temporal_norm1(x[:, :, token])
            expected[:, :, token] += written_out(block.temporal_attn, rows, causal=block.causal, rotated=True)
        for frame in range(5):
            rows = block.norm1(expected[:, frame])
            expected[:, frame] += written_out(block.attn, rows, causal=False, rotated=False)
        expected += block.mlp(block.norm2(expected))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("length", "causal"), [*itertools.product((4, 8, 20), (False, True))])
def test_both_forms_of_attention_agree_under_a_causal_mask(length: int, causal: bool) -> None:
    """Short rows take plain products, longer ones torch's fused attention."""
    torch.manual_seed(0)
    attention = Attention(24, 3, qkv_bias=True, attn_drop=0.0, proj_drop=0.0)
    qkv = torch.randn(6, length, 72, requires_grad=True)
    mixed = attention.mix(qkv, causal=causal)
    expected = attention.attend(*qkv.unflatten(2, (3, 3, 8)).permute(2, 0, 3, 1, 4), causal=causal)
    torch.testing.assert_close(mixed, expected)
    for each in (mixed, expected):
        each.square().sum().backward(retain_graph=True)
    first, qkv.grad = torch.autograd.grad(mixed.square().sum(), qkv)[0], None
    torch.testing.assert_close(first, torch.autograd.grad(expected.square().sum(), qkv)[0])


def test_a_causal_model_does_not_see_the_future() -> None:
    clip = torch.randn(1, 3, 5, 16, 24)
    later = torch.cat([clip[:, :, :3], torch.randn(1, 3, 2, 16, 24)], dim=2)
    for attention_type in TYPES:
        model = model_of(attention_type)
        with torch.no_grad():
            (_, one), (_, other) = (model.forward_features(x, all_tokens=True) for x in (clip, later))
        assert torch.equal(one[:, :3], other[:, :3]) == (attention_type == "frame_cls_causal")
        assert not torch.equal(one[:, 3:], other[:, 3:])


def test_a_causal_model_gives_for_the_first_frames_what_it_gives_for_a_clip_of_them() -> None:
    model, clip = model_of("frame_cls_causal"), torch.randn(2, 3, 5, 16, 24)
    with torch.no_grad():
        whole = model.forward_features(clip, all_tokens=True)[1]
        for frames in (1, 3, 5):
            cls, part = model.forward_features(clip[:, :, :frames], all_tokens=True)
            torch.testing.assert_close(part, whole[:, :frames], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(model(clip[:, :, :frames]), model.head(cls), atol=1e-5, rtol=1e-4)
        assert model(torch.randn(2, 3, 11, 16, 24)).shape == (2, 4)  # longer than it was built for


def test_only_differences_of_time_count() -> None:
    qkv = torch.randn(3, 6, 72)
    q, k, v = rotate_by_time(qkv, 3).unflatten(2, (3, 3, 8)).unbind(2)
    again = rotate_by_time(torch.cat([torch.randn(3, 4, 72), qkv], dim=1), 3)[:, 4:]
    q_late, k_late, v_late = again.unflatten(2, (3, 3, 8)).unbind(2)
    torch.testing.assert_close(
        torch.einsum("rihd,rjhd->rhij", q, k), torch.einsum("rihd,rjhd->rhij", q_late, k_late), atol=1e-4, rtol=1e-4
    )
    assert torch.equal(v, v_late) and torch.equal(v.flatten(2), qkv[:, :, 48:]) and not torch.equal(k, k_late)


def stored(model: torch.nn.Module, folder: Path) -> Path:
    """The weights alone in a file, with what no tensor shows."""
    beside = {"attention_type": model.model.attention_type, "num_heads": 2, "grid": [2, 3], "clip": {"num_frames": 5}}
    torch.save({"model_state": model.state_dict(), **beside}, folder / "weights.pyth")
    return folder / "weights.pyth"


@pytest.mark.parametrize("attention_type", TYPES)
def test_a_file_alone_makes_the_same_model(attention_type: str, tmp_path: Path) -> None:
    model = model_of(attention_type)
    again = load(stored(model, tmp_path), device="cpu", precision="fp32").model
    clip = torch.randn(1, 3, 5, 16, 24)
    with torch.no_grad():
        torch.testing.assert_close(model(clip), again(clip))


def test_weights_with_another_attention_are_refused(tmp_path: Path) -> None:
    published = create_model("TimeSformer", **SIZES, patch_size=8, mlp_ratio=2.0, num_classes=4)
    for theirs, ours in itertools.permutations((published, *map(model_of, TYPES)), 2):
        found = f"{theirs.model.attention_type} in the weights, {ours.model.attention_type} in the model"
        with pytest.raises(CheckpointError, match=f"ATTENTION_TYPE: {found}"):
            load_weights(ours, stored(theirs, tmp_path))
