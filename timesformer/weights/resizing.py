"""Weights of one input size made into weights of another: positions, frames and colour channels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def resize_position(pos_embed: Tensor, *, old_grid: tuple[int, int], new_grid: tuple[int, int]) -> Tensor:
    """Position embedding of another grid of patches, so that each patch keeps its place in the picture.

    Bicubic over rows and columns, with a wider kernel where the grid shrinks; the class token's row stays as it is.
    Without a change of grid the tensor itself is returned.

    Args:
        pos_embed: (1, 1 + rows * columns, D), patches row by row.
        old_grid: (rows, columns) of `pos_embed`.
        new_grid: (rows, columns) of what is returned.
    """
    if old_grid == new_grid:
        return pos_embed
    cls, patches = pos_embed[:, :1], pos_embed[:, 1:]
    picture = patches.mT.float().unflatten(2, old_grid)  # (1, D, rows, columns)
    picture = F.interpolate(picture, size=new_grid, mode="bicubic", align_corners=False, antialias=True)
    return torch.cat([cls, picture.flatten(2).mT.to(cls.dtype)], dim=1)


def resize_time(time_embed: Tensor, num_frames: int) -> Tensor:
    """Time embedding (1, T, D) -> (1, num_frames, D), linear between the frames' middles."""
    if time_embed.shape[1] == num_frames:
        return time_embed
    return F.interpolate(time_embed.mT.float(), size=num_frames, mode="linear", align_corners=False).mT.to(
        time_embed.dtype
    )


def adapt_channels(weight: Tensor, in_chans: int) -> Tensor:
    """Patch projection (D, C, p, p) -> (D, in_chans, p, p) with the same response to a picture of equal channels.

    The channels are repeated in turn and scaled; what the sum over channels then lacks is spread evenly. One channel
    gets the sum of all, six channels get half of each of three.
    """
    channels = weight.shape[1]
    if channels == in_chans:
        return weight
    repeated = weight[:, torch.arange(in_chans) % channels] * (channels / in_chans)
    lacking = weight.sum(1, keepdim=True) - repeated.sum(1, keepdim=True)
    return repeated + lacking / in_chans
