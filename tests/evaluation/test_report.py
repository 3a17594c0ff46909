"""The files of a report that name single clips."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from timesformer.datasets.records import VideoList, VideoRecord, fingerprint
from timesformer.datasets.video_dataset import VideoDataset
from timesformer.evaluation.evaluate import Predictions
from timesformer.evaluation.report import (
    distinct_names,
    read_predictions,
    right_clips,
    write_predictions,
    write_report,
    write_wrong_clips,
    wrong_clips,
)
from timesformer.utils.errors import UserError
from timesformer.video.clip_spec import ClipSpec

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


def test_predictions_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    parts = [VideoRecord("a, b", 0, "", subject=f"S{i}", start_sec=1.5 * i, end_sec=1.5 * i + 1) for i in range(5)]
    for records in (parts, [VideoRecord(f"{i}.mp4", 0, "") for i in range(5)]):
        write_predictions(path, VideoList(records), predictions([0, 2, 1, 1]))
        read, found = read_predictions(path)
        for record, index in zip(read, (4, 3, 2, 1), strict=True):
            given = records[index]
            names = ("path", "subject", "start_sec", "end_sec")
            assert all(getattr(record, name) == getattr(given, name) for name in names)
        assert found.labels == [0, 2, 1, 1] and np.array_equal(found.scores, SCORES)
    several = Predictions(np.array([0]), [(0, 2)], SCORES[:1], [], np.ones(1), [])
    write_predictions(path, VideoList(parts), several)
    assert read_predictions(path, multi_label=True)[1].labels == [(0, 2)]


@pytest.mark.parametrize(
    "text", [None, "", "path,label\na.mp4,0\n", "path,label,score_0\na.mp4,x,0.5\n", "path,label,score_0\na.mp4,0\n"]
)
def test_a_damaged_table_is_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "predictions.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=f"{path} is no table of predictions .*. Test the run again"):
        read_predictions(path)


def test_right_clips_are_the_others_the_most_confident_first() -> None:
    videos = VideoList([VideoRecord(f"{i}.mp4", 0, "") for i in range(5)])
    found = right_clips(predictions([0, 2, 1, 2]), videos, ["same", "same", "other"])
    assert [clip.path for clip in found] == ["4.mp4", "1.mp4"]
    assert [clip.path for clip in wrong_clips(predictions([0, 2, 1, 2]), videos, ["same"] * 3)] == ["2.mp4", "3.mp4"]


def test_classes_of_one_name_are_kept_apart() -> None:
    assert distinct_names(["left", "wave", "left", ""]) == ["left (label 0)", "wave", "left (label 2)", ""]


def test_results_name_the_list_and_every_class(tmp_path: Path) -> None:
    records = [VideoRecord(f"{i}.mp4", 0, "test.csv:1", subject=f"person {i % 2}") for i in range(5)]
    videos = VideoList(records, ["left", "left", "right"])
    dataset = VideoDataset(records, spec=ClipSpec(num_frames=2))
    found = predictions([0, 1, 0, 2])
    write_report(tmp_path, title="", split="test", videos=videos, dataset=dataset, predictions=found)
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["per_class"]) == ["left (label 0)", "left (label 1)", "right"]
    assert results["list"] == fingerprint(records) and "5 videos" in results["list"]
    assert results["top1"] == 100 and results["top1_low"] < 60 and results["top1_high"] == 100
