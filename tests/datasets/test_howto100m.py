"""HowTo100M lists: columns by name, video ids, parts of a video."""

from __future__ import annotations

from pathlib import Path

import pytest

from timesformer.datasets.howto100m import HowTo100M
from timesformer.datasets.records import VideoList
from timesformer.utils.errors import DataListError


def load(folder: Path, text: str, **options: object) -> VideoList:
    (folder / "train.csv").write_text(text)
    return HowTo100M(**{"data_dir": str(folder), "split": "train", "num_classes": 3, **options}).load()  # type: ignore[arg-type]


def test_columns_by_name_in_any_order_with_parts_of_videos(tmp_path: Path) -> None:
    (tmp_path / "abc.webm").touch()
    text = "task_id,rank,video_id,start,end\n2,7,abc,1.5,60\n0,8,abc,60,120\n1,9,-xyz,,\n"
    found = load(tmp_path, text, prefix=str(tmp_path))
    assert [(Path(r.path).name, r.label, r.start_sec, r.end_sec) for r in found.records] == [
        ("abc.webm", 2, 1.5, 60.0),
        ("abc.webm", 0, 60.0, 120.0),  # another part of the same video may have another label
        ("-xyz.mp4", 1, 0.0, 0.0),
    ]
    assert found.records[2].source == "train.csv:4"


def test_plain_lists_are_those_of_kinetics(tmp_path: Path) -> None:
    found = load(tmp_path, "a b.mp4 2\nc.mp4 0\n")
    assert [(r.path, r.label) for r in found.records] == [("a b.mp4", 2), ("c.mp4", 0)]


def test_task_ids_become_labels_through_the_class_names(tmp_path: Path) -> None:
    (tmp_path / "tasks.txt").write_text("44824\n105222\n9\n")
    found = load(tmp_path, "video_id,task_id\na,105222\nb,9\n", class_names_path=str(tmp_path / "tasks.txt"))
    assert [r.label for r in found.records] == [1, 2]


def test_ids_are_found_in_the_folder_of_the_list(tmp_path: Path) -> None:
    (tmp_path / "abc.mkv").touch()
    found = load(tmp_path, "vid\tlabel\nabc\t1\n")
    assert found.records[0].path == str(tmp_path / "abc.mkv")
    assert not any("DATA.PATH_PREFIX" in line for line in found.warnings)


def test_problems_are_reported_with_line_numbers(tmp_path: Path) -> None:
    text = "path,label,start,end\na.mp4,1,9,3\nb.mp4,1,x,9\nc.mp4,1\nd.mp4,7,0,9\n,1,,\n"
    with pytest.raises(DataListError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert all(f"train.csv:{line}:" in message for line in (2, 3, 4, 5, 6))
    assert "no path" in message and "no part of a video" in message and "out of range 0..2" in message


def test_a_header_without_labels_names_the_columns(tmp_path: Path) -> None:
    with pytest.raises(DataListError, match=r"no column for the label among video_id, rank.*task_id"):
        load(tmp_path, "video_id,rank\na,1\n")
