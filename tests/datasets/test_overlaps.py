"""Videos, people and scenes that two lists of a run share are said."""

from __future__ import annotations

from pathlib import Path

import pytest

from timesformer.datasets.overlaps import overlaps
from timesformer.datasets.records import VideoList, VideoRecord


def videos(split: str, *names: str) -> VideoList:
    return VideoList([VideoRecord(name, i % 2, f"{split}.csv:{i + 1}") for i, name in enumerate(names)])


def test_the_same_file_in_two_lists_is_said_with_both_rows(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "link.mp4").symlink_to("a.mp4")
    lists = {
        "train": videos("train", f"{tmp_path}/a.mp4"),
        "test": videos("test", f"{tmp_path}/b.mp4", f"{tmp_path}/./link.mp4"),
    }
    (line,) = overlaps(lists)
    assert line.startswith("1 of 2 videos of the test list are in the train list too: ")
    assert f"{tmp_path}/a.mp4 (train.csv:1, test.csv:2)" in line


def test_a_list_that_is_tested_on_purpose_is_not_compared() -> None:
    lists = {split: videos(split, "x/a.mp4") for split in ("val", "test")}
    assert len(overlaps(lists)) == 1 and overlaps(lists, same=["test", "val"]) == []


@pytest.mark.parametrize(
    "pattern", ["person{}_l.mp4", "walk/p{}_2.mp4", "v_Walk_g{}_c01.avi", "Subject-{}/x.mp4", "scene {}/y.mp4"]
)
def test_people_and_scenes_in_two_lists_are_said(pattern: str) -> None:
    def listed(split: str, *numbers: int) -> VideoList:
        return videos(split, *(f"{split}/" + pattern.format(f"{n:02}") for n in numbers for _ in range(2)))

    (line,) = overlaps({"train": listed("train", 1, 2, 3), "test": listed("test", 3, 4)})
    assert "the train and test lists share 1 of 2 names like " in line and "FOLDER.SUBJECT_PATTERN" in line
    assert overlaps({"train": listed("train", 1, 2), "test": listed("test", 3, 4)}) == []


def test_numbers_of_classes_and_of_clips_are_no_people() -> None:
    def listed(split: str, pattern: str) -> VideoList:
        records = [VideoRecord(pattern.format(label, split, i), label, "") for label in range(3) for i in range(3)]
        return VideoList(records)

    for pattern in ("data/G{0}/{1}_{2}.mp4", "clips/{1}_{2}.mp4", "/mnt/user1/{0}/{1}{2}.mp4"):
        assert overlaps({split: listed(split, pattern) for split in ("train", "test")}) == [], pattern
