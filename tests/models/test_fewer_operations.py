"""Fewer operations and less memory than as written in the paper, for the same logits and gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.textbook import BLOCKS, TextbookTimeSformer
from tests.models.small_models import one_after_the_other, small
from timesformer.models.linear import FoldedLinears
from timesformer.models.vit import ATTENTION_TYPES, VisionTransformer

DROPS = {"drop_rate": 0.2, "attn_drop_rate": 0.2, "drop_path_rate": 0.5}


def run(model: nn.Module, clips: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits and gradients, with the same random draws every time."""
    torch.manual_seed(3)
    model.zero_grad()
    logits = model(clips)
    logits.square().sum().backward()
    return logits.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def assert_same(one: tuple[Tensor, dict[str, Tensor]], other: tuple[Tensor, dict[str, Tensor]]) -> None:
    torch.testing.assert_close(one[0], other[0], atol=1e-5, rtol=1e-5)
    largest = max(g.norm() for g in other[1].values())  # what is zero by symmetry is rounding on both sides
    wrong = {n: float((g - other[1][n]).norm() / other[1][n].norm()) for n, g in one[1].items()
             if (g - other[1][n]).norm() > 1e-4 * other[1][n].norm() + 1e-7 * largest}  # fmt: skip
    assert wrong == {}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad])
def test_multiply_accumulates_of_the_base_model(mode: Callable[[], Any]) -> None:
    """B/16, 8x224, 8 clips, by torch's counter: published 195.8 G a clip. The product counts."""
    with torch.device("meta"):
        model, clips = VisionTransformer(num_classes=400, num_frames=8, qkv_bias=True), torch.empty(8, 3, 8, 224, 224)
    with mode(), FlopCounterMode(display=False) as counter:
        model(clips)
    assert counter.get_total_flops() / 2 / 8 == 175_689_609_216


@pytest.mark.parametrize("drop_path_rate", [0.0, 0.6])
@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
def test_folding_and_the_last_block_change_no_logit_and_no_gradient(
    attention_type: str, drop_path_rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small(attention_type, depth=3, drop_path_rate=drop_path_rate).train()
    clips = torch.randn(4, 3, 4, 32, 32)
    fewer = run(model, clips)
    everything = model.model.forward_features
    monkeypatch.setattr(model.model, "forward_features", lambda x: everything(x, all_tokens=True)[0])
    monkeypatch.setattr(FoldedLinears, "forward", one_after_the_other)
    assert_same(fewer, run(model, clips))


@pytest.mark.parametrize("attention_type", BLOCKS)
def test_same_as_the_textbook(attention_type: str) -> None:
    model = small(attention_type).model.eval()
    textbook = TextbookTimeSformer(model)
    textbook.load_state_dict(model.state_dict())
    clips = torch.randn(2, 3, 4, 32, 32)
    assert_same(run(model, clips), run(textbook, clips))


@pytest.mark.parametrize("recompute", ["cheap", "blocks"])
@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
def test_recomputation_changes_no_bit(attention_type: str, recompute: str) -> None:
    """With dropout, stochastic depth, a frozen block, and autocast."""
    clips = torch.randn(4, 3, 4, 32, 32)
    found = []
    model = small(attention_type, **DROPS).train()
    again = small(attention_type, **DROPS, recompute=recompute).train()
    again.load_state_dict(model.state_dict())
    for candidate in (model, again):
        candidate.model.blocks[0].requires_grad_(False)
        with torch.autocast("cpu", torch.bfloat16):
            found.append(run(candidate, clips))
        found.append((torch.rand(1), {}))  # what is drawn afterwards is the same, too
    (logits, gradients), after, (logits_again, gradients_again), after_again = found
    assert torch.equal(logits, logits_again) and torch.equal(after[0], after_again[0])
    assert all(torch.equal(gradient, gradients_again[name]) for name, gradient in gradients.items())


def test_recomputing_blocks_runs_them_twice_in_training_only() -> None:
    model = small(recompute="blocks").train()
    passes: list[int] = []
    for block in model.model.blocks:
        block.register_forward_pre_hook(lambda *_: passes.append(1))
    model(torch.randn(2, 3, 4, 32, 32)).sum().backward()
    assert len(passes) == 4
    model.eval()(torch.randn(2, 3, 4, 32, 32)).sum().backward()
    assert len(passes) == 6


def saved_bytes(model: nn.Module, clips: Tensor) -> int:
    """Of what a forward pass keeps for the backward pass, parameters left out, each storage once."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(clips).sum()
    assert loss.requires_grad
    return sum(tensor.untyped_storage().nbytes() for storage, tensor in kept.items() if storage not in own)


def cases() -> Iterator[Any]:
    for recompute, most in (("none", 0.88), ("cheap", 0.65), ("blocks", 0.15)):
        yield pytest.param("divided_space_time", 8, recompute, most, id=f"divided-{recompute}")
    yield pytest.param("joint_space_time", 32, "none", 0.15, id="joint")


@pytest.mark.parametrize("attention_type, frames, recompute, most", list(cases()))
def test_bytes_saved_for_backward(attention_type: str, frames: int, recompute: str, most: float) -> None:
    """Against the textbook, at the token counts and head size of the paper, one head and few blocks."""
    depth = 8 if frames == 8 else 2
    sizes = {"embed_dim": 64, "num_heads": 1, "depth": depth, "num_classes": 5, "qkv_bias": True}
    model = VisionTransformer(
        num_frames=frames, attention_type=attention_type, recompute=recompute, drop_path_rate=0.0, **sizes
    ).train()
    clips = torch.zeros(1, 3, frames, 224, 224)
    outside = saved_bytes(
        VisionTransformer(num_frames=frames, attention_type=attention_type, **sizes | {"depth": 0}), clips
    )
    ours, textbook = saved_bytes(model, clips), saved_bytes(TextbookTimeSformer(model), clips)
    assert (ours - outside) / (textbook - outside) <= most
