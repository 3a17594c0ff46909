"""The same clips mirrored, reversed in time, frozen and shuffled: what a model makes of them says what it looks at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from timesformer.utils.random import numpy_generator
from timesformer.video.clip_spec import Views

VARIANTS = ("mirrored", "reversed", "frozen", "shuffled")


@dataclass(frozen=True, kw_only=True)
class Variants:
    """Changes the centre view of each video, before pixels are normalised or become motion images.

    Attributes:
        views: of a video.
        seed: of the permutations.
    """

    views: Views = field(default_factory=Views)
    seed: int = 0

    def centre(self, num_views: int) -> int:
        """Index of the centre crop of the middle clip, among the crops of the first clip, then of the second, ..."""
        crops = self.views.num_crops
        return num_views // crops // 2 * crops + crops // 2

    def __call__(self, clips: Tensor, videos: Sequence[int]) -> Iterator[Tensor]:
        """uint8 (B, C, F, H, W) -> the same for each of `VARIANTS`: all frames the middle one, or in another order.

        Args:
            clips: as they come from the loader: F are all frames that are read.
            videos: index of each clip's video, on which its permutation depends.
        """
        frames = clips.shape[2]
        yield clips.flip(-1)
        yield clips.flip(2)
        yield clips[:, :, [frames // 2]].expand_as(clips)
        orders = [numpy_generator(self.seed, 0, video, 1).permutation(frames) for video in videos]
        yield torch.stack([clip[:, order] for clip, order in zip(clips, orders, strict=True)])
