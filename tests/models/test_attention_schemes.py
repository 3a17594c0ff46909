"""The five attention schemes: who sees whom, against attention under a mask, and the paper's parameter counts."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.models.small_models import copy_of
from timesformer.models.attention import Attention
from timesformer.models.blocks import AxialBlock, DividedBlock, LocalGlobalBlock, SteppedBlock
from timesformer.models.groups import EACH, Groups
from timesformer.models.vit import TimeSformer

SIZES = {"mlp_ratio": 2.0, "qkv_bias": True, "drop": 0.0, "attn_drop": 0.0, "drop_path": 0.0}
Place = tuple[int, int, int]  # row, column, frame


def in_window(height: int, width: int) -> Callable[[Place, Place], bool]:
    def near(a: Place, b: Place) -> bool:
        return all((i < -(-n // 2)) == (j < -(-n // 2)) for i, j, n in zip(a[:2], b[:2], (height, width), strict=True))

    return near


def every_other(a: Place, b: Place) -> bool:
    return all((i - j) % 2 == 0 for i, j in zip(a, b, strict=True))


def masked(attention: Attention, x: Tensor, sees: Tensor) -> Tensor:
    """Attention with all scores written out, minus infinity where `sees` (L, L) is False; projected."""
    q, k, v = attention.qkv(x).unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    scores = (q @ k.transpose(2, 3)) / q.shape[3] ** 0.5
    mixed = scores.masked_fill(~sees, -torch.inf).softmax(3) @ v
    return attention.proj(mixed.transpose(1, 2).flatten(2))


def averaged(attention: Attention, cls: Tensor, x: Tensor, sees: Tensor) -> Tensor:
    """The cls token (B, 1, D) in each group of patches (B, L, D) on its own, and the mean over groups; projected."""
    outputs = []
    for group in sees.unique(dim=0):
        rows = torch.cat([cls, x[:, group]], dim=1)
        outputs.append(masked(attention, rows, torch.ones(rows.shape[1], rows.shape[1], dtype=torch.bool))[:, :1])
    return torch.stack(outputs).mean(0)


def reference(block: SteppedBlock, cls: Tensor, tokens: Tensor, rules: dict[str, Callable]) -> tuple[Tensor, Tensor]:
    """The block with one boolean mask a step; `rules` say whether one patch sees another."""
    shape = tokens.shape
    places = list(product(*map(range, shape[1:4])))
    masks = {step: torch.tensor([[rule(a, b) for b in places] for a in places]) for step, rule in rules.items()}
    x = tokens.flatten(1, 3)
    for step in block.steps:
        norm, attention = block.get_submodule(f"{step}_norm1"), block.get_submodule(f"{step}_attn")
        x = x + block.get_submodule(f"{step}_fc")(masked(attention, norm(x), masks[step]))
    sees = torch.ones(1 + len(places), 1 + len(places), dtype=torch.bool)
    sees[1:, 1:] = masks["last"]
    both = torch.cat([cls, x], dim=1)
    normed = block.norm1(both)
    out = masked(block.attn, normed, sees)
    if not isinstance(block, LocalGlobalBlock):
        out = torch.cat([averaged(block.attn, normed[:, :1], normed[:, 1:], masks["last"]), out[:, 1:]], dim=1)
    both = both + out
    both = both + block.mlp(block.norm2(both))
    return both[:, :1], both[:, 1:].view(shape)


@pytest.mark.parametrize("size", [(4, 6, 4), (3, 5, 3), (1, 4, 2), (5, 1, 1)], ids=str)
@pytest.mark.parametrize("kind", [DividedBlock, AxialBlock, LocalGlobalBlock])
def test_blocks_are_attention_under_masks(kind: type[SteppedBlock], size: Place) -> None:
    rules = {
        "temporal": lambda a, b: a[:2] == b[:2],
        "height": lambda a, b: a[1:] == b[1:],
        "local": in_window(*size[:2]),
        "last": {
            DividedBlock: lambda a, b: a[2] == b[2],
            AxialBlock: lambda a, b: (a[0], a[2]) == (b[0], b[2]),
            LocalGlobalBlock: every_other,
        }[kind],
    }
    torch.manual_seed(0)
    block = kind(24, 2, **SIZES)
    cls, tokens = torch.randn(2, 1, 24), torch.randn(2, *size, 24)
    wanted = reference(block, cls, tokens, rules)
    got = block(cls, tokens)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(block(cls, tokens, cls_only=True)[0], wanted[0], atol=1e-5, rtol=1e-4)
    parameters = list(block.parameters())
    one, other = (torch.autograd.grad(sum(x.square().sum() for x in out), parameters) for out in (got, wanted))
    assert all((a - b).norm() <= 1e-4 * b.norm() + 1e-5 for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("groups", [Groups(EACH, EACH, 1), Groups(2, 2, 1), Groups(2, 2, 2, strided=True)], ids=str)
@pytest.mark.parametrize("size", [(4, 6, 8), (3, 5, 1), (1, 1, 3)], ids=str)
def test_groups_go_there_and_back(groups: Groups, size: Place) -> None:
    x = torch.randn(2, *size, 5)
    assert torch.equal(groups.ungroup(groups.group(x), x.shape), x)
    real = groups.real(x)
    assert (
        groups.group(x).shape[1:3].numel() == x[0, ..., 0].numel()
        if real is None
        else real.sum() == x[0, ..., 0].numel()
    )


@pytest.mark.parametrize(
    "attention_type, num_parameters",
    [
        ("space_only", 85_932_462),
        ("joint_space_time", 85_938_606),
        ("divided_space_time", 121_392_558),
        ("sparse_local_global", 121_392_558),
        ("axial", 156_846_510),
    ],
)
def test_parameter_counts_of_the_paper(attention_type: str, num_parameters: int) -> None:
    """Table 1: 85.9 M, 85.9 M, 121.4 M, 121.4 M and 156.8 M with the 174 classes of SSv2."""
    with torch.device("meta"):
        model = TimeSformer(num_classes=174, attention_type=attention_type)
    assert sum(parameter.numel() for parameter in model.parameters()) == num_parameters


@pytest.mark.parametrize("attention_type", ["sparse_local_global", "axial"])
def test_new_schemes_start_without_their_first_steps_and_learn(attention_type: str) -> None:
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "num_classes": 3, "num_frames": 4, "embed_dim": 24, "num_heads": 2}
    model = TimeSformer(**sizes, depth=2, attention_type=attention_type)
    assert not any(p.any() for name, p in model.named_parameters() if "_fc." in name)
    before, clips, labels = copy_of(model), torch.randn(6, 3, 4, 32, 32), torch.tensor([0, 1, 2, 0, 1, 2])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(clips), labels)
        loss.backward()
        optimizer.step()
    assert loss < 0.3
    assert not [name for name, tensor in model.state_dict().items() if torch.equal(tensor, before[name])]
