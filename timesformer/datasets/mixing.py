"""Mixup and CutMix of neighbouring clips, the same however the batch was cut into pieces.

Letters: B clips, C channels, T frames, H W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from timesformer.utils.errors import ConfigError
from timesformer.utils.random import numpy_generator, torch_seed

_STREAM = 1  # keeps these random numbers apart from a clip's own, whose key is (seed, epoch, index)


class ClipMixer:
    """Mixes each clip with its partner: places 2j and 2j+1 of the epoch's order.

    Mixup (Zhang et al., 2018) averages the two clips; CutMix (Yun et al., 2019) exchanges one rectangle, the
    same in every frame. The targets are weighed as the pixels are.
    A clip whose partner is not in the batch stays as it is.

    Args:
        num_classes: K, the width of the targets.
        mixup_alpha, cutmix_alpha: parameters of the Beta distributions; 0 switches the one off.
        prob: probability that a pair is mixed at all.
        switch_prob: probability of CutMix when both are on.
        seed: seed of the run.

    Raises:
        ConfigError: both are off.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        mixup_alpha: float,
        cutmix_alpha: float,
        prob: float,
        switch_prob: float,
        seed: int,
    ) -> None:
        if mixup_alpha <= 0 and cutmix_alpha <= 0:
            raise ConfigError(
                f"MIXUP.ENABLED is True, but MIXUP.ALPHA {mixup_alpha} and MIXUP.CUTMIX_ALPHA {cutmix_alpha} "
                "switch both kinds of mixing off. Set one of them above 0, or MIXUP.ENABLED False."
            )
        from torchvision.transforms import v2  # seconds: not at import of this file

        self.mixup = v2.MixUp(alpha=mixup_alpha, num_classes=num_classes) if mixup_alpha > 0 else None
        self.cutmix = v2.CutMix(alpha=cutmix_alpha, num_classes=num_classes) if cutmix_alpha > 0 else None
        self.prob = prob
        self.switch_prob = switch_prob
        self.seed = seed

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
