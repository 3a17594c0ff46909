"""Small and missing classes, people in two lists and mirrored classes are findings, from the lists alone."""

from __future__ import annotations

import pytest

from tests.curation.clips import a_list
from timesformer.curation.findings import ERROR, WARNING
from timesformer.curation.list_checks import class_findings, class_names, flip_findings, list_warnings, people_findings
from timesformer.datasets.overlaps import overlaps
from timesformer.datasets.records import VideoList, VideoRecord


def counted(split: str, *numbers: int) -> VideoList:
    labels = [label for label, number in enumerate(numbers) for _ in range(number)]
    records = [VideoRecord(f"{split}/{i}.mp4", label, f"{split}.csv:{i + 1}") for i, label in enumerate(labels)]
    return VideoList(records, ["wave", "point", "idle"])


def test_classes_that_are_missing_small_or_out_of_balance() -> None:
    found = class_findings({"train": counted("train", 31, 10, 0), "val": counted("val", 5, 2, 3)})
    assert [(each.severity, each.check, each.what) for each in found] == [
        (ERROR, "missing classes", "no video for train of 1 classes: idle"),
        (WARNING, "imbalance", "wave has 31 videos for train, point has 10"),
        (WARNING, "small classes", "fewer than 3 videos for val: point (2)"),
    ]
    assert class_findings({"train": counted("train", 30, 10, 10), "test": counted("test", 3, 3, 3)}) == []
    assert class_findings({"train": counted("train", 31, 10, 10)}, balanced=True) == []


def test_classes_without_names_are_called_by_their_numbers_and_several_labels_count() -> None:
    videos = VideoList([VideoRecord("a.mp4", (0, 2), ""), VideoRecord("b.mp4", (2,), "")])
    assert class_names({"train": videos}) == ["class 0", "class 1", "class 2"]
    missing, small = class_findings({"train": videos})
    assert "class 1" in missing.what and "class 0 (1), class 2 (2)" in small.what


@pytest.mark.parametrize("several", [False, True])
def test_balancing_is_for_videos_with_one_label(several: bool) -> None:
    labels = [0] * 40 + [1] * 10
    records = [VideoRecord(f"{i}.mp4", (label,) if several else label, "") for i, label in enumerate(labels)]
    (found,) = class_findings({"train": VideoList(records)})
    assert found.check == "imbalance" and found.settings == ({} if several else {"TRAIN.BALANCE": "auto"})
    assert ("Record more" in found.advice) == several


def people(split: str, *subjects: str) -> VideoList:
    return a_list([VideoRecord(f"{s}/{split}.mp4", i % 2, f"{split}.csv:{i}", s) for i, s in enumerate(subjects)])


def test_a_person_planted_in_two_lists_is_an_error_and_the_fewer_videos_are_to_leave() -> None:
    train = [VideoRecord(f"t{i}.mp4", i % 3, f"train.csv:{i + 1}", subject=f"S{i % 9}") for i in range(36)]
    test = [VideoRecord(f"v{i}.mp4", i % 3, f"test.csv:{i + 1}", subject=f"T{i % 3}") for i in range(9)]
    planted = VideoRecord("planted.mp4", 1, "test.csv:10", subject="S4")
    assert people_findings({"train": a_list(train), "test": a_list(test)}) == []
    (found,) = people_findings({"train": a_list(train), "test": a_list([*test, planted])})
    assert (found.severity, found.check) == (ERROR, "person in two lists") and "S4" in found.what
    assert [each.record for each in found.remove] == [planted] and len(found.videos) == 5


def test_people_guessed_from_names_are_a_warning_that_says_so() -> None:
    def named(split: str, *numbers: int) -> VideoList:
        return a_list([VideoRecord(f"{split}/p{n:02}_{k}.mp4", k, f"{split}.csv:1") for n in numbers for k in range(2)])

    (found,) = people_findings({"train": named("train", 1, 2, 3), "val": named("val", 3, 4)})
    assert found.severity == WARNING and found.check == "person or scene in two lists (guessed from names)"
    assert len(found.videos) == 4 and not found.remove


def test_mirrored_classes_come_with_the_setting_that_mends_them() -> None:
    (found,) = flip_findings(["swipe left", "swipe right"], (), only_mapped=False)
    assert "DATA.FLIP_LABEL_MAP" in found.what and found.settings == {
        "DATA.FLIP_LABEL_MAP": [["swipe left", "swipe right"]]
    }
    (found,) = flip_findings(["swipe left", "wave"], (), only_mapped=False)
    assert found.settings == {"DATA.RANDOM_FLIP": False}
    assert flip_findings(["swipe left", "swipe right"], [["swipe left", "swipe right"]], only_mapped=False) == []


def test_warnings_of_the_lists_are_findings_once() -> None:
    lists = {"train": people("train", "ann"), "val": people("val", "ann")}
    lists["train"].warnings = ["left out: 3 files", *(overlap.text for overlap in overlaps(lists))]
    assert [each.what for each in list_warnings(lists)] == ["left out: 3 files"]
