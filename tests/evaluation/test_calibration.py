"""Temperature and threshold against what they are by construction."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from timesformer.evaluation.calibration import Calibration, calibrate, calibrated, error_threshold


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_finds_the_temperature_that_labels_were_drawn_with(temperature: float) -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, (4000, 5))
    labels = np.array([generator.choice(5, p=row) for row in softmax(logits, axis=1)])
    found = calibrate(softmax(logits * temperature, axis=1), labels, [1.0, 2.0, 3.0])
    assert found.temperature == pytest.approx(temperature, rel=0.1)
    assert found.nll_after <= found.nll_before + 1e-9
    assert found.durations_sec == (1.5, 2.0, 2.5)
    assert Calibration.from_dict(found.to_dict()) == found


def test_the_order_of_classes_does_not_change() -> None:
    scores = np.random.default_rng(1).dirichlet(np.ones(4), 20)
    assert (calibrated(scores, 2.5).argmax(1) == scores.argmax(1)).all()
    assert calibrated(scores, 1.0) == pytest.approx(scores)


def test_threshold_by_hand() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.6, 0.5])
    correct = np.array([True, True, True, True, False, True])
    assert error_threshold(scores, correct, max_error=0.0) == 0.7  # one of the two at 0.6 is wrong
    assert error_threshold(scores, correct, max_error=0.2) == 0.5
    assert error_threshold(scores, ~correct, max_error=0.01) == 1.0


@given(st.lists(st.tuples(st.sampled_from([0.2, 0.4, 0.6, 0.8]), st.booleans()), min_size=1), st.floats(0, 0.5))
def test_no_more_errors_above_the_threshold_than_allowed(rows: list[tuple[float, bool]], allowed: float) -> None:
    scores, correct = np.array([score for score, _ in rows]), np.array([right for _, right in rows])
    above = scores >= error_threshold(scores, correct, max_error=allowed)
    assert not above.any() or (~correct[above]).mean() <= allowed


@pytest.mark.parametrize("content", [None, {}, [], {"temperature": "x"}, {"durations_sec": [1, "a"]}])
def test_what_is_no_calibration_is_none(content: object) -> None:
    assert Calibration.from_dict(content) is None
