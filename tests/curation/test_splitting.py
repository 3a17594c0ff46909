"""Splits: given ones are kept, people stay in one, every class is in all of them where that is possible."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timesformer.curation.splitting import assign_splits, extend_splits, shared_groups
from timesformer.utils.errors import DataListError

FRACTIONS = {"val_fraction": 0.15, "test_fraction": 0.2}


def names(number: int) -> list[str]:
    return [f"clip{i}.mp4" for i in range(number)]


def test_without_groups_each_class_is_divided() -> None:
    labels = ["a", "b", "c", "c"] * 40
    splits = assign_splits(names(160), labels, [""] * 160, [""] * 160, **FRACTIONS)
    counts = Counter(zip(labels, splits, strict=True))
    assert counts["a", "test"] == 8 and counts["a", "val"] == 6 and counts["c", "test"] == 16
    assert splits == assign_splits(names(160), labels, [""] * 160, [""] * 160, **FRACTIONS)
    assert splits != assign_splits(names(160), labels, [""] * 160, [""] * 160, **FRACTIONS, seed=1)


def test_people_stay_together_and_no_class_is_left_out() -> None:
    people = [p for p in range(12) for _ in range(20)]
    labels = [f"class{(p + i) % 5}" for i, p in enumerate(people)]
    splits = assign_splits(names(240), labels, [f"p{p}" for p in people], [""] * 240, **FRACTIONS)
    assert shared_groups([f"p{p}" for p in people], splits) == {}
    of_split = defaultdict(set)
    for label, split in zip(labels, splits, strict=True):
        of_split[split].add(label)
    assert [len(of_split[split]) for split in ("train", "val", "test")] == [5, 5, 5]
    counts = Counter(splits)
    assert 20 <= counts["val"] <= 60 and 40 <= counts["test"] <= 60


def test_a_class_of_few_people_is_not_taken_from_train() -> None:
    people = [p for p in range(10) for _ in range(10)] + [0, 0]
    labels = ["common"] * 100 + ["rare", "rare"]  # of one person only
    for seed in range(3):
        splits = assign_splits(names(102), labels, [f"p{p}" for p in people], [""] * 102, **FRACTIONS, seed=seed)
        assert splits[-1] == "train"


@pytest.mark.parametrize(("people", "present"), [(3, {"train", "val", "test"}), (2, {"train", "val"}), (1, None)])
def test_few_people(people: int, present: set[str] | None) -> None:
    groups = [f"p{i % people}" for i in range(60)]
    splits = assign_splits(names(60), ["a", "b"] * 30, groups, [""] * 60, **FRACTIONS)
    assert {*splits} == (present or {"train", "val", "test"})  # one person: the clips are divided
    assert people == 1 or shared_groups(groups, splits) == {}


@pytest.mark.parametrize(
    ("source", "kept", "made"),
    [
        (("train", "val", "test"), {"train", "val", "test"}, False),
        (("train", "val"), {"train", "val"}, False),
        (("train", "test"), {"train", "val", "test"}, True),
        (("train",), {"train", "val", "test"}, True),
    ],
)
def test_splits_of_the_source_are_kept(source: tuple[str, ...], kept: set[str], made: bool) -> None:
    given_splits = [source[i % len(source)] for i in range(120)]
    splits = assign_splits(names(120), ["a", "b"] * 60, [""] * 120, given_splits, **FRACTIONS)
    assert {*splits} == kept
    changed = {(old, new) for old, new in zip(given_splits, splits, strict=True) if old != new}
    assert bool(changed) == made and all(old == "train" for old, _ in changed)
    if "test" in source:
        assert all(new != "test" for _, new in changed)


def test_a_source_without_train_and_unused_videos() -> None:
    with pytest.raises(DataListError, match="in test and val, but none is in train"):
        assign_splits(names(2), ["a", "b"], ["", ""], ["val", "test"], **FRACTIONS)
    assert assign_splits(names(3), ["a"] * 3, [""] * 3, ["train", "val", ""], **FRACTIONS)[2] == ""


def test_new_videos_join_their_people() -> None:
    known = {"p1": "test", "p2": "train"}
    groups = ["p1", "p2", "p1", "p9"]
    splits = extend_splits(names(4), ["a", "b", "a", "b"], groups, ["", "", "", ""], split_of_group=known, **FRACTIONS)
    assert splits == ["test", "train", "test", "train"]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), min_size=2, max_size=40), st.integers(0, 5))
def test_no_person_is_ever_in_two_splits(videos: list[tuple[int, int]], seed: int) -> None:
    groups = [f"p{person}" for _, person in videos]
    labels = [f"class{label}" for label, _ in videos]
    splits = assign_splits(names(len(videos)), labels, groups, [""] * len(videos), **FRACTIONS, seed=seed)
    assert "train" in splits
    assert len({*groups}) < 2 or shared_groups(groups, splits) == {}
