"""Calibration against scikit-learn's curve, by hand, and of labels drawn from the scores."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from timesformer.evaluation.reliability import are_probabilities, reliability


def drawn(n: int, num_classes: int, *, sharpness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from probabilities, and those probabilities made sharper."""
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, (n, num_classes))
    true, shown = (np.exp(each) / np.exp(each).sum(axis=1, keepdims=True) for each in (logits, sharpness * logits))
    labels = np.array([generator.choice(num_classes, p=row) for row in true])
    return shown, labels


def test_the_bins_are_those_of_scikit_learn() -> None:
    scores, labels = drawn(500, 4)
    found = reliability(scores, labels, num_bins=10)
    accuracy, confidence = calibration_curve(scores.argmax(1) == labels, scores.max(1), n_bins=10)
    filled = found.counts > 0
    assert found.counts.sum() == 500 and not filled[:2].any()  # the highest of 4 is above 1/4
    assert found.accuracy[filled] == pytest.approx(accuracy) and found.confidence[filled] == pytest.approx(confidence)


def test_the_error_by_hand() -> None:
    """Two of 0.95, one of them right: |0.5 - 0.95|; two of 0.55, both right: |1 - 0.55|."""
    scores = np.array([[0.95, 0.05], [0.95, 0.05], [0.55, 0.45], [0.45, 0.55]])
    found = reliability(scores, np.array([0, 1, 0, 1]), num_bins=10)
    assert found.error == pytest.approx(0.45)
    assert np.isnan(found.accuracy).sum() == 8 and found.counts.tolist() == [0, 0, 0, 0, 0, 2, 0, 0, 0, 2]


def test_certain_and_right_has_no_error() -> None:
    found = reliability(np.eye(3)[[0, 1, 2]], np.array([0, 1, 2]))
    assert found.error == found.chance_error == 0


def test_the_error_of_a_calibrated_model_is_that_of_chance() -> None:
    for n in (60, 2000):
        found = reliability(*drawn(n, 5))
        assert found.chance_error / 2 < found.error < 2 * found.chance_error
    assert reliability(*drawn(60, 5)).chance_error > 3 * reliability(*drawn(2000, 5)).chance_error
    overconfident = reliability(*drawn(2000, 5, sharpness=3))
    assert overconfident.error > 5 * overconfident.chance_error


def test_what_probabilities_are() -> None:
    scores, _ = drawn(5, 3)
    assert are_probabilities(np.round(scores, 6))
    assert not are_probabilities(3 * scores) and not are_probabilities(np.array([[1.5, -0.5]]))
