"""Calibrate scores: of a checkpoint on a list of its run, storing the result in the file; of a validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from timesformer.config import config_from_settings
from timesformer.datasets.build import load_list
from timesformer.datasets.records import VideoRecord
from timesformer.engine.checkpoint import read_checkpoint
from timesformer.engine.checkpoint_writer import write_whole
from timesformer.evaluation.calibration import Calibration, calibrate
from timesformer.evaluation.evaluate import Predictions
from timesformer.utils.errors import UserError
from timesformer.utils.logging import get_logger
from timesformer.weights.layouts import stored_settings

log = get_logger(__name__)


def calibrate_file(
    path: str | Path,
    score: Callable[[Sequence[VideoRecord]], Predictions],
    *,
    split: str = "val",
    data_dir: str = "",
) -> Calibration:
    """Score the videos of a split, fit, and rewrite the checkpoint with the result under `calibration`.

    Args:
        path: of a run's checkpoint.
        score: of its predictor, one centre view and one label a video.
        split: of the configuration that the checkpoint stores.
        data_dir: where the videos and lists are now; "": where they were.

    Raises:
        UserError: not such a checkpoint, or none of the videos can be read.
    """
    content = read_checkpoint(path)
    moved = {"DATA.PATH_TO_DATA_DIR": data_dir} if data_dir else {}
    records = load_list(config_from_settings(stored_settings(content) | moved), split).records
    predictions = score(records)
    for failure in predictions.missing:
        log.warning("cannot be read: %s: %s", failure.path, failure.cause)
    if not len(predictions.indices):
        raise UserError(f"none of the {len(records)} videos of the {split} list could be read")
    found = calibration_of(predictions)
    if found is None:
        raise UserError(f"{path} gives scores that are not numbers")
    write_whole(content | {"calibration": found.to_dict()}, Path(path))
    return found


def calibration_of(predictions: Predictions) -> Calibration | None:
    """From the scores of labelled videos, one label each; None without any, or where a score is not a number."""
    scores, durations = predictions.scores, predictions.durations_sec
    if not len(scores) or not np.isfinite(scores).all():
        return None
    return calibrate(scores, np.array(predictions.labels), durations[durations > 0])
