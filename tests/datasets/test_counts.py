"""The table of videos per class and list."""

from __future__ import annotations

from timesformer.datasets.counts import count_table
from timesformer.datasets.records import VideoList, VideoRecord


def videos(*labels: int | tuple[int, ...], subjects: str = "", names: str = "") -> VideoList:
    people = subjects or " " * len(labels)
    records = [VideoRecord(f"{i}.mp4", label, "", subject=people[i].strip()) for i, label in enumerate(labels)]
    return VideoList(records, names.split())


def test_classes_are_rows_and_lists_are_columns() -> None:
    lists = {
        "train": videos(0, 0, 0, 1, 1, 2, subjects="aabbbc", names="left right up-and-down"),
        "val": videos(0, 2, subjects="dd"),
        "test": videos(0, 2, subjects="dd"),
    }
    assert count_table(lists, 3).splitlines() == [
        "videos of a class   train  val = test",
        "left                    3           1",
        "right                   2           0",
        "up-and-down             1           1",
        "min                     1           0",
        "median                  2           1",
        "max                     3           1",
        "all videos              6           2",
        "subjects                3           1",
    ]


def test_several_labels_and_no_names() -> None:
    lines = count_table({"train": videos(0, (0, 1), (1, 2), 1)}, 4).splitlines()
    assert [line.split()[-1] for line in lines] == ["train", "2", "3", "1", "0", "0", "1.5", "3", "4"]
    assert lines[1].startswith("class 0 ") and not any("subjects" in line for line in lines)


def test_of_many_classes_the_smallest_and_the_largest_are_listed() -> None:
    labels = [label for label in range(40) for _ in range(40 - label)]
    lines = count_table({"train": videos(*labels)}, 40).splitlines()
    shown = [int(line.split()[1]) for line in lines if line.startswith("class ")]
    assert shown == [39, 38, 37, 36, 35, 4, 3, 2, 1, 0]
    assert lines[6].strip() == "..." and lines[-3].split() == ["median", "20.5"]
