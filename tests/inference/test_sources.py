"""What a user names becomes records, each video once, with labels where they are known."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from timesformer.datasets.records import VideoRecord
from timesformer.inference.sources import file_names, find_videos
from timesformer.utils.errors import DataListError, UserError

NAMES = ["wave", "thumb up", "point"]


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """wave/a.mp4, thumb up/b2.mp4, thumb up/b10.mp4 and a folder of pictures point/series."""
    for name in ("wave/a.mp4", "thumb up/b10.mp4", "thumb up/b2.mp4", "wave/.hidden.mp4"):
        (tmp_path / "clips" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "clips" / name).write_bytes(b"\0")
    (tmp_path / "clips/point/series").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "clips/point/series/1.png"), np.zeros((8, 8, 3), np.uint8))
    return tmp_path / "clips"


def found(*sources: object) -> list[tuple[str, object]]:
    records, _ = find_videos([*map(str, sources)], class_names=NAMES)
    return [(Path(record.path).name, record.label) for record in records]


def test_a_folder_of_classes_has_labels(clips: Path) -> None:
    assert found(clips) == [("series", 2), ("b2.mp4", 1), ("b10.mp4", 1), ("a.mp4", 0)]
    assert found(clips / "thumb up") == [("b2.mp4", 1), ("b10.mp4", 1)]
    (clips / "loose.mp4").write_bytes(b"\0")
    assert {label for _, label in found(clips)} == {-1}  # not all of them are known


def test_files_patterns_and_picture_folders(clips: Path) -> None:
    assert found(clips / "thumb up/*.mp4", clips / "point/series") == [("b2.mp4", -1), ("b10.mp4", -1), ("series", -1)]
    assert found(clips / "**/a.mp4") == [("a.mp4", -1)]
    assert found(clips / "none.mp4") == [("none.mp4", -1)]  # to be reported with what cannot be read
    records, remarks = find_videos([str(clips / "wave/a.mp4"), str(clips / "wave")], class_names=NAMES)
    assert len(records) == 1 and remarks[0].startswith("1 videos were named more than once")
    (clips / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds no videos"):
        found(clips / "empty")


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("wave/a.mp4\nthumb up/b2.mp4\n", [-1, -1]),
        ("path\nwave/a.mp4\n", [-1]),
        ("wave/a.mp4 0\nthumb up/b2.mp4 1\n", [0, 1]),
        ("wave/a.mp4,wave\nthumb up/b2.mp4,thumb up\n", [0, 1]),
        ("path,label\nwave/a.mp4,0\nthumb up/b2.mp4,1\n", [0, 1]),
        ("path,label,prediction,score_0\nwave/a.mp4,0,1,0.5\n", [0]),
    ],
)
def test_lists_with_and_without_labels(clips: Path, text: str, labels: list[int]) -> None:
    (clips / "list.csv").write_text(text)
    assert [label for _, label in found(clips / "list.csv")] == labels


def test_a_list_that_cannot_be_used_names_its_lines(clips: Path) -> None:
    (clips / "list.csv").write_text("wave/a.mp4 0\nthumb up/b2.mp4 7\n")
    with pytest.raises(DataListError, match=r"list.csv:2: label 7 is out of range 0..2"):
        found(clips / "list.csv")


def test_names_of_files_tell_videos_apart(tmp_path: Path) -> None:
    def names(*videos: str) -> list[str]:
        return file_names([VideoRecord(str(tmp_path / video), -1, "") for video in videos])

    assert names("a.mp4", "b.mp4") == ["a", "b"]
    assert names("x/a.mp4", "y/a.avi", "b.mp4") == ["x/a", "y/a", "b"]
    assert names("a.mp4", "a.avi") == ["a.mp4", "a.avi"]
    parts = [VideoRecord("a.mp4", -1, "", start_sec=start, end_sec=end) for start, end in ((0.5, 2), (2, 0))]
    assert file_names([*parts, VideoRecord("b.mp4", -1, "")]) == ["a_0.5-2", "a_2-end", "b"]
