"""Checkpoints carry the calibration of the validation of their own weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from timesformer.engine.calibrate import calibration_of
from timesformer.engine.checkpoint import list_checkpoints, read_checkpoint
from timesformer.evaluation.calibration import Calibration
from timesformer.evaluation.evaluate import Predictions


@pytest.mark.parametrize("ema", [False, True])
def test_after_a_validation_and_not_inside_an_epoch(run: Callable[..., int], tmp_path: Path, ema: bool) -> None:
    settings = ["TRAIN.CHECKPOINT_PERIOD_STEPS", 1, "TRAIN.EVAL_PERIOD", 2, "SOLVER.MAX_EPOCH", 3, "EMA.ENABLED", ema]
    assert run(tmp_path, *settings, "TEST.ENABLE", False) == 0
    found = {path.stem: read_checkpoint(path).get("calibration") for path in list_checkpoints(tmp_path)}
    assert {name for name, value in found.items() if value} == {"checkpoint_epoch_00002", "checkpoint_epoch_00003"}
    last = Calibration.from_dict(found["checkpoint_epoch_00003"])
    assert last is not None and last.clips == 12 and last.nll_after <= last.nll_before
    assert 2.0 <= last.durations_sec[0] <= last.durations_sec[2] <= 4.0
    log = (tmp_path / "log.txt").read_text()
    assert f"scores calibrated on 12 validation clips: temperature {last.temperature:.2f}" in log


def predictions(scores: np.ndarray, durations: list[float]) -> Predictions:
    n = len(scores)
    return Predictions(np.arange(n), [0] * n, scores, [], np.ones(n), [], np.array(durations))


def test_without_clips_or_numbers_there_is_none() -> None:
    assert calibration_of(predictions(np.empty((0, 3)), [])) is None
    assert calibration_of(predictions(np.array([[0.5, np.nan]]), [1.0])) is None


def test_clips_of_unknown_duration_give_none() -> None:
    found = calibration_of(predictions(np.array([[0.6, 0.4], [0.7, 0.3]]), [0.0, 0.0]))
    assert found is not None and found.durations_sec == () and found.clips == 2
