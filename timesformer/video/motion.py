"""Motion images: where something moves in each part of a clip, whatever stands still and whatever the light."""

from __future__ import annotations

import torch
from torch import Tensor


def motion_images(frames: Tensor, num_images: int) -> Tensor:
    """Float frames (B, C, F, H, W) of 0..255 -> (B, 1, num_images, H, W).

    Absolute differences of successive grey frames are summed over each of `num_images` parts of the clip, and their
    logarithms brought to mean 0 and standard deviation 1 in each clip: a background that stands still is gone, and
    dark or pale clips look like others. (A motion energy image, Bobick and Davis, 2001, for each part of the clip.)

    Args:
        frames: F - 1 is a multiple of `num_images`.
        num_images: of each clip.
    """
    differences = frames.mean(dim=1, keepdim=True).diff(dim=2).abs_().unflatten(2, (num_images, -1))
    images = differences.sum(dim=3).log1p_()
    std, mean = torch.std_mean(images, dim=(1, 2, 3, 4), keepdim=True)
    return images.sub_(mean).div_(std + 1e-6)
