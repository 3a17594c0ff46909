"""Resized embeddings still point to the same location and time, and adapted channels answer as before."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from timesformer.models.embeddings import sincos_2d
from timesformer.models.vit import VisionTransformer
from timesformer.weights.resizing import adapt_channels, resize_position, resize_time

SIDES = st.integers(2, 24)


def smooth_position(rows: int, columns: int) -> Tensor:
    """A position embedding (1, 1 + rows * columns, 6) whose patches are slow waves over the picture."""
    y, x = (torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns
    y, x = torch.meshgrid(y, x, indexing="ij")
    waves = torch.stack([y, x, (3 * y).sin(), (3 * x).cos(), (2 * y + x).sin(), x * y], dim=-1)
    return torch.cat([torch.full((1, 1, 6), 9.0), waves.flatten(0, 1)[None]], dim=1)


@pytest.mark.parametrize("old", [224, 336, 448])
@pytest.mark.parametrize("new", [224, 336, 448])
def test_position_there_and_back_between_picture_sizes(old: int, new: int) -> None:
    old_grid, new_grid = (old // 16, old // 16), (new // 16, new // 16)
    position = smooth_position(*old_grid)
    there = resize_position(position, old_grid=old_grid, new_grid=new_grid)
    back = resize_position(there, old_grid=new_grid, new_grid=old_grid)
    assert there.shape == (1, 1 + new_grid[0] * new_grid[1], 6)
    assert torch.equal(there[:, 0], position[:, 0]), "the class token has no location"
    spread = position[:, 1:].std()
    assert (there - smooth_position(*new_grid))[:, 1:].abs().max() < 0.1 * spread, "what that size would have had"
    assert (back - position).abs().max() < 0.1 * spread
    assert (back - position).abs().mean() < 0.01 * spread


@given(rows=SIDES, columns=SIDES, new_rows=SIDES, new_columns=SIDES)
@settings(max_examples=60, deadline=None)
def test_any_grid_to_any_grid(rows: int, columns: int, new_rows: int, new_columns: int) -> None:
    position = torch.cat([torch.zeros(1, 1, 2), sincos_ramp(rows, columns)], dim=1)
    new = resize_position(position, old_grid=(rows, columns), new_grid=(new_rows, new_columns))
    grid = new[0, 1:].unflatten(0, (new_rows, new_columns))
    middle = grid[(new_rows - 1) // 2, (new_columns - 1) // 2]
    expected = torch.tensor([((new_rows - 1) // 2 + 0.5) / new_rows, ((new_columns - 1) // 2 + 0.5) / new_columns])
    coarser = min(rows, columns, new_rows, new_columns)
    assert (middle - expected).abs().max() < 0.25 / coarser, "less than a quarter of a patch from its location"
    assert (grid[1:, :, 0] > grid[:-1, :, 0]).all() and (grid[:, 1:, 1] > grid[:, :-1, 1]).all()


def sincos_ramp(rows: int, columns: int) -> Tensor:
    """(1, rows * columns, 2): the height and the width at which each patch has its middle, 0..1."""
    y, x = (torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns
    return torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).flatten(0, 1)[None]


def test_defect_03_position_is_resized_over_the_picture_and_not_along_the_raster() -> None:
    """At 448 pixels each new patch has the embedding that is nearest to the old patch around it."""
    generator = torch.Generator().manual_seed(0)
    old = torch.randn(1, 1 + 14 * 14, 64, generator=generator)
    rows, columns = torch.meshgrid(torch.arange(28) // 2, torch.arange(28) // 2, indexing="ij")
    expected_patch = (rows * 14 + columns).flatten()

    def share_at_location(patches: Tensor) -> float:
        return (torch.cdist(patches, old[0, 1:]).argmin(1) == expected_patch).float().mean().item()

    raster = F.interpolate(old[:, 1:].mT, size=28 * 28, mode="nearest").mT
    assert share_at_location(raster[0]) == pytest.approx(0.07, abs=0.01)  # what the original does
    assert share_at_location(resize_position(old, old_grid=(14, 14), new_grid=(28, 28))[0, 1:]) == 1.0


@pytest.mark.parametrize("new_size", [(64, 64), (32, 64), (48, 16), (96, 80)])
def test_a_moving_patch_excites_the_same_location_after_resizing(new_size: tuple[int, int]) -> None:
    """A bright patch wanders over the picture; the position of the token it excites is the patch's location."""
    patch, grid = 8, (4, 4)
    locations = sincos_ramp(64, 64)[0]  # a fine table: where in the picture
    small = {"patch_size": patch, "embed_dim": 32, "depth": 1, "num_heads": 2, "num_frames": 1, "num_classes": 2}
    model = VisionTransformer(img_size=new_size, **small).eval()
    old = torch.cat([torch.zeros(1, 1, 32), sincos_2d(*grid, 32)[None]], dim=1)
    with torch.no_grad():
        model.pos_embed.copy_(resize_position(old, old_grid=grid, new_grid=model.grid))
    table = resize_position(old, old_grid=grid, new_grid=(64, 64))[0, 1:]
    seen: list[Tensor] = []
    model.blocks[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1][0, :, :, 0].flatten(0, 1)))

    @torch.no_grad()
    def tokens(picture: Tensor) -> Tensor:  # (N, D): what the first block gets
        model(picture.expand(1, 3, 1, *new_size))
        return seen.pop()

    dark = tokens(torch.zeros(new_size))
    for row in range(model.grid[0]):
        for column in range(model.grid[1]):
            picture = torch.zeros(new_size)
            picture[row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] = 1.0
            excited = (tokens(picture) - dark).norm(dim=1).argmax()
            position = dark[excited] - model.patch_embed.proj.bias
            found = locations[torch.cdist(position[None], table).argmin()]
            true = torch.tensor([(row + 0.5) / model.grid[0], (column + 0.5) / model.grid[1]])
            assert (found - true).abs().max() <= 0.5 / 4 + 1e-3, "half a patch of the old grid"


@pytest.mark.parametrize("old", [8, 16, 32, 96])
@pytest.mark.parametrize("new", [8, 16, 32, 96])
def test_time_there_and_back_between_numbers_of_frames(old: int, new: int) -> None:
    def smooth(num_frames: int) -> Tensor:
        t = (torch.arange(num_frames) + 0.5) / num_frames
        return torch.stack([t, (3 * t).sin(), (t - 0.3) ** 2], dim=1)[None]

    there = resize_time(smooth(old), new)
    assert there.shape == (1, new, 3)
    assert (there - smooth(new)).abs().max() < 0.2, "the first and last half frame have no neighbour outside"
    inside = slice(new // 8, new - new // 8)
    assert (there - smooth(new))[:, inside].abs().max() < 0.02
    assert (resize_time(there, old) - smooth(old)).abs().max() < 0.2
    assert (resize_time(smooth(old), old) == smooth(old)).all()


def test_time_is_linear_between_the_middles_of_frames() -> None:
    assert resize_time(torch.tensor([[[0.0], [4.0]]]), 4).flatten().tolist() == [0.0, 1.0, 3.0, 4.0]
    assert resize_time(torch.tensor([[[0.0], [4.0]]]), 1).flatten().tolist() == [2.0]


@pytest.mark.parametrize("in_chans", [1, 2, 3, 4, 6, 7])
def test_equal_channels_get_the_same_response(in_chans: int) -> None:
    weight, grey = torch.randn(5, 3, 4, 4, dtype=torch.float64), torch.randn(2, 1, 8, 8, dtype=torch.float64)
    before = F.conv2d(grey.expand(-1, 3, -1, -1), weight, stride=4)
    adapted = adapt_channels(weight, in_chans)
    assert adapted.shape == (5, in_chans, 4, 4)
    torch.testing.assert_close(F.conv2d(grey.expand(-1, in_chans, -1, -1), adapted, stride=4), before)


def test_one_channel_gets_the_sum_and_six_get_halves() -> None:
    weight = torch.randn(5, 3, 4, 4)
    torch.testing.assert_close(adapt_channels(weight, 1), weight.sum(1, keepdim=True))
    torch.testing.assert_close(adapt_channels(weight, 6), torch.cat([weight, weight], dim=1) / 2)
    assert adapt_channels(weight, 3) is weight
    torch.testing.assert_close(adapt_channels(adapt_channels(weight, 1), 3).sum(1), weight.sum(1))


def test_half_precision_stays_half_precision() -> None:
    position = smooth_position(4, 4).bfloat16()
    assert resize_position(position, old_grid=(4, 4), new_grid=(8, 8)).dtype == torch.bfloat16
    assert resize_time(torch.randn(1, 8, 4).half(), 16).dtype == torch.float16
