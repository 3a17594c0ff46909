"""Scores that mean what they say: temperature scaling, and the score from which errors are rare.

Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

MAX_ERROR = 0.01  # share of the clips above the threshold that may be wrong
MIN_SCORE = 1e-12
TEMPERATURES = (0.05, 20.0)


@dataclass(frozen=True)
class Calibration:
    """What a labelled list says of a model's scores.

    Attributes:
        temperature: divides the logits (or log scores) before softmax.
        threshold: calibrated score from which at most 1% of the list's clips are wrong; 1.0 where none is.
        durations_sec: quartiles of the clips' durations, as lengths of a stream's windows.
        clips: number of clips.
        nll_before, nll_after: mean negative log likelihood, in nats.
    """

    temperature: float
    threshold: float
    durations_sec: tuple[float, ...] = ()
    clips: int = 0
    nll_before: float = 0.0
    nll_after: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As a checkpoint holds it."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, content: object) -> Calibration | None:
        """The calibration that `to_dict` gave; None for anything else."""
        try:
            assert isinstance(content, Mapping)
            durations = tuple(float(value) for value in content["durations_sec"])
            return cls(**{**content, "durations_sec": durations})
        except (AssertionError, KeyError, TypeError, ValueError):
            return None


def calibrated(scores: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (n, K) with the temperature applied: softmax of log scores over temperature."""
    from scipy.special import softmax

    return np.asarray(softmax(np.log(np.maximum(scores, MIN_SCORE)) / temperature, axis=1))


def calibrate(scores: np.ndarray, labels: np.ndarray, durations_sec: Sequence[float] | np.ndarray = ()) -> Calibration:
    """Choose the temperature of least negative log likelihood, then the threshold.

    Args:
        scores: (n, K) probabilities of clips that the model was not trained on.
        labels: (n,) class indices.
        durations_sec: of the clips.

    Raises:
        ValueError: no clips.
    """
    from scipy.optimize import minimize_scalar

    if not len(labels):
        raise ValueError("no clips to calibrate on")
    rows = np.arange(len(labels))

    def nll(log_temperature: float) -> float:
        return float(-np.log(np.maximum(calibrated(scores, np.exp(log_temperature))[rows, labels], MIN_SCORE)).mean())

    best = minimize_scalar(nll, bounds=np.log(TEMPERATURES), method="bounded")
    temperature = float(np.exp(best.x))
    probabilities = calibrated(scores, temperature)
    return Calibration(
        temperature=temperature,
        threshold=error_threshold(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels),
        durations_sec=tuple(np.quantile(durations_sec, (0.25, 0.5, 0.75)).tolist()) if len(durations_sec) else (),
        clips=len(labels),
        nll_before=nll(0.0),
        nll_after=float(best.fun),
    )


def error_threshold(scores: np.ndarray, correct: np.ndarray, *, max_error: float = MAX_ERROR) -> float:
    """The lowest of `scores` (n,) from which at most `max_error` of the predictions are wrong; 1.0 where none is."""
    order = np.argsort(-scores, kind="stable")
    error = np.cumsum(~correct[order]) / np.arange(1, len(order) + 1)
    last = np.r_[np.diff(scores[order]) != 0, True]  # equal scores stand or fall together
    allowed = np.flatnonzero((error <= max_error) & last)
    return float(scores[order][allowed[-1]]) if len(allowed) else 1.0
