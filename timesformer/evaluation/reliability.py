"""Calibration: whether a model that is 80% sure is right in 80% of the cases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NUM_BINS = 15  # as in Guo et al., "On Calibration of Modern Neural Networks" (2017), which defines ECE


@dataclass(frozen=True)
class Reliability:
    """Videos in bins of equal width by confidence, the score of the predicted class; all in 0..1.

    Attributes:
        counts: (B,) videos in each bin, (b / B, (b + 1) / B].
        confidence: (B,) their mean confidence; NaN in an empty bin.
        accuracy: (B,) share of them that was predicted right; NaN in an empty bin.
        chance_error: the expected calibration error that a calibrated model of these confidences shows on average,
            because the videos are few.
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    chance_error: float

    @property
    def error(self) -> float:
        """Expected calibration error (ECE): mean over the videos of |accuracy - confidence| of their bin."""
        return float(np.nansum(self.counts * np.abs(self.accuracy - self.confidence)) / self.counts.sum())


def reliability(scores: np.ndarray, labels: np.ndarray, *, num_bins: int = NUM_BINS, draws: int = 200) -> Reliability:
    """Confidence and accuracy in bins.

    Args:
        scores: (n, K) probabilities, n > 0.
        labels: (n,) whole numbers.
        num_bins: B.
        draws: labels that are drawn for `chance_error`, with a fixed seed.
    """
    confidence, correct = scores.max(axis=1), scores.argmax(axis=1) == labels
    bins = np.searchsorted(np.linspace(0, 1, num_bins + 1)[1:-1], confidence)  # as scikit-learn's calibration_curve
    counts, sums = (np.bincount(bins, weights, num_bins) for weights in (None, confidence))
    with np.errstate(invalid="ignore"):
        means, accuracy = sums / counts, np.bincount(bins, correct, num_bins) / counts
    generator = np.random.default_rng(0)
    errors = [
        np.abs(np.bincount(bins, generator.random(len(bins)) < confidence, num_bins) - sums).sum() / len(bins)
        for _ in range(draws)
    ]
    return Reliability(counts, means, accuracy, float(np.mean(errors)))


def are_probabilities(scores: np.ndarray) -> bool:
    """Whether each row of (n, K) scores adds up to 1, but for rounding; sums and maxima of logits do not."""
    return bool((scores >= 0).all() and np.allclose(scores.sum(axis=1), 1, atol=1e-3))
