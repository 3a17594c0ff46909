"""Folds: every clip tested once, no person in two splits, whatever the clips are."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timesformer.studies.folds import Fold, make_folds
from timesformer.utils.errors import UserError

clips = st.lists(st.tuples(st.integers(0, 4), st.sampled_from("abcdefghij")), min_size=3, max_size=80)


def check(folds: list[Fold], num_clips: int) -> None:
    assert sorted(index for fold in folds for index in fold.test) == [*range(num_clips)]
    for fold in folds:
        assert sorted([*fold.train, *fold.val, *fold.test]) == [*range(num_clips)]  # each once
        assert fold.train and fold.val and fold.test


@given(clips=clips, kind=st.sampled_from(["group_kfold", "loso", "cross_scene"]), num_folds=st.integers(2, 6))
def test_folds_never_share_people_or_scenes(clips: list[tuple[int, str]], kind: str, num_folds: int) -> None:
    labels, groups = zip(*clips, strict=True)
    try:
        folds = make_folds(kind, labels, groups, num_folds=num_folds)
    except UserError:
        assert len({*groups}) < max(3, num_folds if kind == "group_kfold" else 0)
        return
    check(folds, len(clips))
    for fold in folds:
        train, val, test = ({groups[index] for index in part} for part in (fold.train, fold.val, fold.test))
        assert not train & val and not train & test and not val & test
    if kind == "group_kfold":
        assert len(folds) == num_folds
    else:
        assert [fold.name for fold in folds] == sorted({*groups})


@given(labels=st.lists(st.integers(0, 4), min_size=3, max_size=80), num_folds=st.integers(2, 6))
def test_folds_of_single_clips_have_every_class(labels: list[int], num_folds: int) -> None:
    try:
        folds = make_folds("kfold", labels, num_folds=num_folds)
    except UserError as error:
        assert min(Counter(labels).values()) < max(num_folds, 4) and "class" in str(error)
        return
    assert len(folds) == num_folds
    check(folds, len(labels))
    for fold in folds:
        assert {labels[index] for index in fold.test} == {labels[index] for index in fold.train} == {*labels}
    sizes = [len(fold.test) for fold in folds]
    assert max(sizes) - min(sizes) <= len({*labels})


def test_the_validation_part_is_small_and_has_every_class() -> None:
    """12 people who make each of 4 gestures once: with one of them tested, two are for validation."""
    labels, groups = [0, 1, 2, 3] * 12, [f"p{i // 4:02d}" for i in range(48)]
    for fold in make_folds("loso", labels, groups):
        assert (len(fold.test), len(fold.val), len(fold.train)) in ((4, 8, 36), (4, 4, 40))
        assert {labels[index] for index in fold.val} == {0, 1, 2, 3}
    assert make_folds("loso", labels, groups) == make_folds("loso", labels, groups)


@pytest.mark.parametrize(
    ("kind", "groups", "message"),
    [
        ("loso", "aabb", "of 2 different subjects: training, validation and test need at least 3"),
        ("group_kfold", "abcd", "of 4 different subjects: 5 folds need at least 5. Use fewer --folds"),
        ("kfold", "", "class [01] has 2 clips: 5 folds need at least 5"),
    ],
)
def test_too_few_are_named(kind: str, groups: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_folds(kind, [0, 0, 1, 1], groups)
