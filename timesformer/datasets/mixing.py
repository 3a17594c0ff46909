"""Mixup and CutMix of neighbouring clips, the same however the batch was cut into pieces.

Letters: B clips, C channels, T frames, H W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from timesformer.utils.random import numpy_generator, torch_seed

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
        clips, targets = clips.clone(), targets.clone()
        for position, first in row_of.items():
            second = row_of.get(position + 1)
            if position % 2 or second is None:
                continue
            pair = torch.stack((clips[first], clips[second])).flatten(1, 2)  # (2, C*T, H, W)
            pair_targets = torch.stack((targets[first], targets[second]))
            mixed, mixed_targets = self._mix_pair(pair, pair_targets, epoch, position // 2)
            for row, clip, target in zip((first, second), mixed, mixed_targets, strict=True):
                clips[row], targets[row] = clip.view_as(clips[row]), target
        return clips, targets

    def _mix_pair(self, pair: Tensor, targets: Tensor, epoch: int, index: int) -> tuple[Tensor, Tensor]:
        """Mix (2, C*T, H, W) and (2, K) by random numbers that depend on (seed, epoch, index) alone."""
        generator = numpy_generator(self.seed, epoch, index, _STREAM)
        mixes, cuts = generator.random() < self.prob, generator.random() < self.switch_prob
        if not mixes:
            return pair, targets
        mix = self.cutmix if self.cutmix and (cuts or not self.mixup) else self.mixup
        assert mix is not None
        with torch.random.fork_rng(devices=[]):  # torchvision draws from torch's global CPU generator
            torch.manual_seed(torch_seed(generator))
            return mix(pair, targets)
