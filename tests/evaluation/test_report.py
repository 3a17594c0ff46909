"""The files of a report that name single clips."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from timesformer.datasets.records import VideoList, VideoRecord
from timesformer.evaluation.evaluate import Predictions
from timesformer.evaluation.report import write_wrong_clips, wrong_clips

SCORES = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.0625, 0.4375], [0.2, 0.2, 0.6]])


def predictions(labels: list[int]) -> Predictions:
    """Of the records 4, 3, 2 and 1."""
    return Predictions(np.array([4, 3, 2, 1]), [*labels], SCORES, [], np.ones(4), [])


def test_wrong_clips_come_with_their_path_the_worst_first(tmp_path: Path) -> None:
    videos = VideoList([VideoRecord(f"/data/{i}.mp4", 0, "test.csv:1") for i in range(5)])
    names = ["left", "right", "up, then down"]
    found = wrong_clips(predictions([0, 2, 1, 1]), videos, names)
    assert [(clip.record, clip.path) for clip in found] == [(2, "/data/2.mp4"), (1, "/data/1.mp4"), (3, "/data/3.mp4")]
    assert str(found[0]) == "right confused with left (0.50 against 0.06)"
    write_wrong_clips(tmp_path / "worst.csv", found)
    with (tmp_path / "worst.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "path": "/data/2.mp4",
        "label": "right",
        "prediction": "left",
        "label_score": "0.0625",
        "prediction_score": "0.5",
    }
    assert rows[1]["prediction"] == "up, then down" and len(rows) == 3
    assert wrong_clips(predictions([0, 1, 0, 2]), videos, names) == []
