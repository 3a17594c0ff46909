"""Tells a training that learns its clips by heart: near 100% on them, near chance on the validation list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NEAR_PERFECT = 90.0  # % top-1 on training clips
FEWEST_VIDEOS = 20  # in a validation that says anything


@dataclass
class TrainingAccuracy:
    """Top-1 on the training clips of an epoch, as they were when the model saw them, augmented."""

    correct: float = 0.0
    clips: int = 0

    def add(self, *, correct: float, clips: int) -> None:
        """Add the clips of some steps."""
        self.correct += correct
        self.clips += clips

    @property
    def top1(self) -> float:
        """In percent; 0 without clips."""
        return 100.0 * self.correct / max(1, self.clips)


def overfits(train_top1: float, val: Mapping[str, float], *, num_videos: int, largest_class: float) -> bool:
    """Whether the validation score is below half of the training score, or not distinguishable from chance.

    Args:
        train_top1: on the training clips of the epoch, in percent.
        val: `top1` of the validation and its interval `top1_low`, `top1_high`, in percent.
        num_videos: that the validation scored.
        largest_class: the share of them in the largest class, in percent: what a constant answer scores.
    """
    if train_top1 < NEAR_PERFECT or num_videos < FEWEST_VIDEOS or val["top1_high"] >= train_top1:
        return False
    return val["top1"] < train_top1 / 2 or val["top1_low"] <= largest_class


def overfitting_message(
    train_top1: float,
    val: Mapping[str, float],
    *,
    num_videos: int,
    largest_class: float,
    augmented: bool,
    pretrained: bool,
    averaged: bool,
) -> str:
    """What `overfits` has seen, what it means, and the settings to try; "" without overfitting.

    Args:
        train_top1: as `val`, `num_videos` and `largest_class`, see `overfits`.
        augmented: training clips are changed in more than their crop.
        pretrained: training started from weights.
        averaged: the validated weights are an average (EMA).
    """
    if not overfits(train_top1, val, num_videos=num_videos, largest_class=largest_class):
        return ""
    interval = f"[{val['top1_low']:.1f}, {val['top1_high']:.1f}]"
    augment = "stronger augmentation (AUG.*, see `timesformer config AUG`)"
    if not augmented:
        augment = "augmentation (AUG.*, see `timesformer config AUG`; now off)"
    smaller = "a smaller model (such as that of configs/Own/gestures_cpu.yaml)"
    if pretrained:
        smaller = "training fewer blocks (TRAIN.TRAINABLE_BLOCKS 2)"
    lines = [
        f"overfitting: top-1 {train_top1:.1f}% on training clips, {val['top1']:.1f}% {interval} on {num_videos} "
        f"validation videos (always the largest class: {largest_class:.1f}%)",
        "  The model has memorised the training clips; what it learned does not hold for other videos.",
        f"  To try: {augment}, and {smaller}.",
    ]
    if val["top1_low"] <= largest_class:
        lines.append("  Check too that both lists number the classes alike: `timesformer preview --split val`.")
    if averaged:
        lines.append("  The average of the weights may lag behind in a short training. To try: EMA.ENABLED False.")
    return "\n".join(lines)
