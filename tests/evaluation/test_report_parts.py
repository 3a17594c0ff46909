"""The clips that play in the report, and what it says of each class."""

from __future__ import annotations

import io
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from timesformer.datasets.records import VideoRecord
from timesformer.evaluation.evaluate import Predictions
from timesformer.evaluation.metrics import accuracy_interval
from timesformer.evaluation.report_parts import describe_classes, describe_labels, play
from timesformer.utils.errors import VideoReadError


def in_memory(num_frames: int, fps: float, **part: float) -> VideoRecord:
    """Frame t is of brightness t."""
    frames = np.broadcast_to(np.arange(num_frames, dtype=np.uint8)[:, None, None, None], (num_frames, 150, 200, 3))
    return VideoRecord("made", 0, "", frames, fps, **part)


def decoded(content: bytes) -> tuple[np.ndarray, float]:
    with av.open(io.BytesIO(content)) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        return frames, float(container.streams.video[0].average_rate or 0)


@pytest.mark.parametrize(
    ("num_frames", "fps", "frames", "rate", "part"),
    [
        (40, 25.0, 40, 25.0, ""),  # every frame
        (127, 30.0, 64, 15.0, ""),  # every second one, in the same time
        (1, 30.0, 1, 30.0, ""),
        (9, 2.0, 9, 2.0, ""),
        (189, 9.0, 64, 9 * 63 / 89, "from 5.4 to 15.3 s"),  # the middle 10 of 21 seconds
    ],
)
def test_long_videos_lose_frames_and_their_ends(
    num_frames: int, fps: float, frames: int, rate: float, part: str
) -> None:
    _, content, found_part = play(in_memory(num_frames, fps))
    shown, found_rate = decoded(content)
    assert shown.shape == (frames, 112, 150, 3)
    assert found_rate == pytest.approx(rate, rel=0.01) and found_part == part


def test_only_the_part_that_counts_is_shown() -> None:
    _, content, part = play(in_memory(100, 10.0, start_sec=5.0, end_sec=7.0))
    assert part == ""
    brightness = decoded(content)[0].mean(axis=(1, 2, 3))
    assert len(brightness) == 20 and np.abs(brightness - np.arange(50, 70)).max() < 4


def test_a_folder_of_pictures_plays(tmp_path: Path) -> None:
    for i in range(5):
        cv2.imwrite(str(tmp_path / f"frame_{i}.png"), np.full((40, 60, 3), 50 * i, np.uint8))
    _, content, _ = play(VideoRecord(str(tmp_path), 0, ""))
    shown, rate = decoded(content)
    assert shown.shape == (5, 40, 60, 3) and rate == 30.0 and np.diff(shown.mean(axis=(1, 2, 3))).min() > 40
    with pytest.raises(VideoReadError, match="no such file"):
        play(VideoRecord(str(tmp_path / "gone.mp4"), 0, ""))


def test_each_class_has_its_accuracy_interval_and_worst_confusion() -> None:
    scores = np.eye(4)[[0, 0, 1, 2, 2, 1]] * 0.7 + 0.075
    predictions = Predictions(np.arange(6), [0, 0, 0, 0, 0, 1], scores, [], np.ones(6), [])
    first, second, third, fourth = describe_classes(predictions, ["a", "b", "c", "d"])["classes"]
    assert (first["name"], first["videos"], first["right"], first["accuracy"]) == ("a", 5, 2, 40.0)
    assert first["taken_for"] == "c" and 0 <= first["low"] < 40 < first["high"] <= 100
    assert (second["accuracy"], second["taken_for"]) == (100.0, "")
    assert third["accuracy"] is None and fourth["videos"] == 0 and fourth["taken_for"] == ""


def test_the_interval_of_a_class_is_by_person_where_some_have_several_videos() -> None:
    scores = np.eye(2)[[0] * 5 + [1] * 5 + [1, 1]]
    predictions = Predictions(np.arange(12), [0] * 10 + [1] * 2, scores, [], np.ones(12), [])
    people = [*("ann",) * 5, *("bob",) * 5, "ann", "bob"]
    alone, _ = describe_classes(predictions, ["a", "b"])["classes"]
    first, second = describe_classes(predictions, ["a", "b"], people)["classes"]
    assert first["low"] < 1e-6 < alone["low"] < 50 < alone["high"] < 99.9 < first["high"]
    assert (second["low"], second["high"]) == accuracy_interval(np.array([True, True]))


def test_labels_have_their_average_precision() -> None:
    scores = np.array([[0.9, 0.2, 0.1], [0.8, 0.7, 0.1], [0.1, 0.6, 0.1]])
    found = describe_labels(
        Predictions(np.arange(3), [(0,), (0, 1), (0,)], scores, [], np.ones(3), []), ["a", "b", "c"]
    )
    assert [row["videos"] for row in found] == [3, 1, 0]
    assert [row["precision"] for row in found] == [100.0, 100.0, None]
