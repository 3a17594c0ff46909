"""Mixup and CutMix of neighbouring clips, the same however the batch was cut into pieces.

Letters: B clips, C channels, T frames, H W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from timesformer.utils.random import numpy_generator, torch_seed
from timesformer.utils.transfer import to_device

_STREAM = 1  # keeps these random numbers apart from a clip's own, whose key is (seed, epoch, index)


@dataclass(kw_only=True)
class ClipMixer:
    """Mixes each clip with its partner: places 2j and 2j+1 of the epoch's order.

    Mixup (Zhang et al., 2018) averages the two clips; CutMix (Yun et al., 2019) exchanges one rectangle, the
    same in every frame. The targets are weighed as the pixels are.
    A clip whose partner is not in the batch stays as it is.
    """

    num_classes: int  # K, the width of the targets
    mixup_alpha: float  # parameter of the Beta distribution; 0 switches mixup off
    cutmix_alpha: float  # likewise
    prob: float  # that a pair is mixed at all
    switch_prob: float  # of CutMix when both are on
    seed: int  # of the run

    def __post_init__(self) -> None:
        from torchvision.transforms import v2  # seconds: not at import of this file

        mixup, cutmix = self.mixup_alpha, self.cutmix_alpha
        self.mixup = v2.MixUp(alpha=mixup, num_classes=self.num_classes) if mixup > 0 else None
        self.cutmix = v2.CutMix(alpha=cutmix, num_classes=self.num_classes) if cutmix > 0 else None

    def __call__(self, clips: Tensor, targets: Tensor, epoch: int, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Mix the pairs of one batch; the inputs stay unchanged.

        Args:
            clips: (B, C, T, H, W) float.
            targets: (B, K) float, one-hot or multi-hot.
            epoch: index of the epoch.
            positions: the B clips' places in the epoch's order over all processes.

        Returns:
            Mixed clips and targets, shaped as given.
        """
        row_of = {position: row for row, position in enumerate(positions)}
        # By row: its partner's row, its own share of target and pixels, and the rectangle of its partner's pixels.
        partner, shares, boxes = np.arange(len(positions)), np.ones((len(positions), 2)), np.zeros((len(positions), 4))
        for position, first in row_of.items():
            second = row_of.get(position + 1)
            if position % 2 or second is None or not (drawn := self._draw(clips.shape, epoch, position // 2)):
                continue
            partner[[first, second]] = second, first
            if (box := drawn.get("box")) is None:
                shares[[first, second]] = drawn["lam"]
            else:
                shares[[first, second], 0], boxes[[first, second]] = drawn["lam_adjusted"], box
        table = np.column_stack([partner, shares, 1.0 - shares, boxes]).astype(np.float32)  # one copy to the device
        columns = to_device(torch.from_numpy(table), clips.device).T[..., None]  # each (B, 1)
        other, own_target, own, other_target, others, *edges = columns
        rows = other[:, 0].long()
        left, top, right, bottom = (edge[:, None] for edge in edges)  # (B, 1, 1)
        y, x = (torch.arange(length, device=clips.device) for length in clips.shape[-2:])
        pasted = (y[:, None] >= top) & (y[:, None] < bottom) & (x >= left) & (x < right)  # (B, H, W)
        own, others = (share.view(-1, 1, 1, 1, 1) for share in (own, others))
        other_clips = clips[rows]
        mixed = torch.where(pasted[:, None, None], other_clips, (other_clips * others).add_(clips * own))
        return mixed, targets[rows] * other_target + targets * own_target

    def _draw(self, shape: torch.Size, epoch: int, index: int) -> dict[str, Any]:
        """torchvision's numbers for a pair: `lam`, or `box` (left, top, right, bottom) and `lam_adjusted`; or none.

        They depend on (seed, epoch, index) and the size of the frames alone.
        """
        generator = numpy_generator(self.seed, epoch, index, _STREAM)
        mixes, cuts = generator.random() < self.prob, generator.random() < self.switch_prob
        if not mixes:
            return {}
        mix = self.cutmix if self.cutmix and (cuts or not self.mixup) else self.mixup
        assert mix is not None
        with torch.random.fork_rng(devices=[]):  # torchvision draws from torch's global CPU generator
            torch.default_generator.manual_seed(torch_seed(generator))  # not those of GPUs, as `torch.manual_seed`
            return mix.make_params([torch.empty(1, *shape[-3:], device="meta")])  # type: ignore[no-any-return]
