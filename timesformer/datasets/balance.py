"""Classes of different size: how unequal they are, an order of an epoch with equal shares, weights of the loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from timesformer.datasets.records import VideoRecord, class_counts

AUTO_ABOVE = 3.0  # videos of the largest class to those of the smallest one


def imbalance(records: Sequence[VideoRecord]) -> float:
    """Videos of the largest class over those of the smallest one; classes without a video do not count."""
    counts = class_counts(records).values()
    return max(counts) / min(counts) if counts else 1.0


def balanced_order(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """As many indices as there are labels, each class as often as the others, up to one; int64, in random order.

    A class that is smaller than its share is gone through several times, of a larger one a part is drawn.

    Args:
        labels: (n,) class of each record.
        generator: of the draw.
    """
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    size, longer = divmod(len(labels), len(members))
    shares = size + (generator.permutation(len(members)) < longer)
    drawn = []
    for indices, share in zip(members, shares, strict=True):
        rounds = [generator.permutation(indices) for _ in range(-(-share // len(indices)))]
        drawn.append(np.concatenate(rounds)[:share] if rounds else indices[:0])
    return generator.permutation(np.concatenate(drawn))


def occurrences(order: np.ndarray) -> np.ndarray:
    """How often the index at each position occurs before it; int64, shaped as `order`."""
    by_index = np.argsort(order, kind="stable")
    run_starts = np.flatnonzero(np.diff(order[by_index], prepend=-1))
    counted = np.empty_like(by_index)
    counted[by_index] = np.arange(len(order)) - np.repeat(run_starts, np.diff([*run_starts, len(order)]))
    return counted


def class_weights(records: Sequence[VideoRecord], num_classes: int) -> list[float]:
    """A weight per class, inverse to its videos, such that the mean over the videos is 1; 1 for a class without any."""
    counts = class_counts(records)
    return [len(records) / (len(counts) * counts[label]) if counts[label] else 1.0 for label in range(num_classes)]
