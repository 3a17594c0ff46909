"""Weights of one input size for another: positions, frames and colour channels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def resize_position(pos_embed: Tensor, *, old_grid: tuple[int, int], new_grid: tuple[int, int]) -> Tensor:
    """Position embedding (1, 1 + N, D) of N = rows * columns patches -> that of another grid of (rows, columns).

    Bicubic, with a wider kernel where the grid shrinks; the row of the class token stays. In an equal grid it is the
    tensor itself. timm's `resample_abs_pos_embed` gives the same, but its older versions leave 2 x 8 for 4 x 4 patches.
    """
    if old_grid == new_grid:
        return pos_embed
    cls, patches = pos_embed[:, :1], pos_embed[:, 1:]
    image = patches.mT.float().unflatten(2, old_grid)  # (1, D, rows, columns)
    image = F.interpolate(image, size=new_grid, mode="bicubic", align_corners=False, antialias=True)
    return torch.cat([cls, image.flatten(2).mT.to(cls.dtype)], dim=1)


def resize_time(time_embed: Tensor, num_frames: int) -> Tensor:
    """Time embedding (1, T, D) -> (1, num_frames, D), linear between the middles of the frames."""
    if time_embed.shape[1] == num_frames:
        return time_embed
    resized = F.interpolate(time_embed.mT.float(), size=num_frames, mode="linear", align_corners=False)
    return resized.mT.to(time_embed.dtype)


def adapt_channels(weight: Tensor, in_chans: int) -> Tensor:
    """Patch projection (D, C, p, p) -> (D, in_chans, p, p) with the same response to an image of equal channels.

    The channels are repeated in turn and scaled; what their sum then lacks is spread evenly. One channel gets the sum
    of all and six get half of each of three, as in timm's `adapt_input_conv`, which changes the response for four.
    """
    channels = weight.shape[1]
    if channels == in_chans:
        return weight
    repeated = weight[:, torch.arange(in_chans) % channels] * (channels / in_chans)
    lacking = weight.sum(1, keepdim=True) - repeated.sum(1, keepdim=True)
    return repeated + lacking / in_chans
