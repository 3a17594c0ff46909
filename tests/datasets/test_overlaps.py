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
    (found,) = overlaps(lists)
    line = found.text
    assert found.kind == "file" and line.startswith("1 of 2 videos of the test list are in the train list too: ")
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

    (found,) = overlaps({"train": listed("train", 1, 2, 3), "test": listed("test", 3, 4)})
    line = found.text
    assert (
        [len(videos) for videos in found.videos] == [2, 2]
        and "the train and test lists share 1 of 2 names like " in line
        and "FOLDER.SUBJECT_PATTERN" in line
    )
    assert overlaps({"train": listed("train", 1, 2), "test": listed("test", 3, 4)}) == []


def test_numbers_of_classes_and_of_clips_are_no_people() -> None:
    def listed(split: str, pattern: str) -> VideoList:
        records = [VideoRecord(pattern.format(label, split, i), label, "") for label in range(3) for i in range(3)]
        return VideoList(records)

    for pattern in ("data/G{0}/{1}_{2}.mp4", "clips/{1}_{2}.mp4", "/mnt/user1/{0}/{1}{2}.mp4"):
        assert overlaps({split: listed(split, pattern) for split in ("train", "test")}) == [], pattern


def known(split: str, *pairs: tuple[str, str]) -> VideoList:
    records = [VideoRecord(f"{split}{i}.mp4", i % 2, "", subject=who, scene=at) for i, (who, at) in enumerate(pairs)]
    return VideoList(records)


def test_known_people_and_scenes_in_two_lists_are_said() -> None:
    train = known("train", ("ann", ""), ("bob", ""), ("eve", ""))
    (found,) = overlaps({"train": train, "test": known("test", ("eve", ""), ("eve", ""), ("joe", ""))})
    assert found.kind == "subject" and [len(videos) for videos in found.videos] == [1, 2]
    assert "the train and test lists share 1 of 2 people: eve." in found.text
    (found,) = overlaps({"train": known("train", ("", "hall")), "val": known("val", ("", "hall"))})
    assert found.kind == "scene" and "share 1 of 1 scenes: hall" in found.text


def test_lists_that_are_divided_by_scene_may_share_their_people_but_not_one_of_many() -> None:
    everybody = [f"p{i}" for i in range(6)]
    train = known("train", *((who, "hall") for who in everybody))
    assert overlaps({"train": train, "test": known("test", *((who, "yard") for who in everybody))}) == []
    others = [(f"q{i}", "yard") for i in range(5)]
    (found,) = overlaps({"train": train, "test": known("test", ("p1", "yard"), *others)})
    assert found.kind == "subject" and found.videos[0][0].subject == "p1"
