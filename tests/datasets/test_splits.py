"""Division by hashes: as it always was where no class is left out, else by a search that leaves none out."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timesformer.datasets.splits import SPLITS, divide, divide_subjects, held_out, missing_classes

HOW = {"val_fraction": 0.2, "test_fraction": 0.2}


def people(*classes: str) -> dict[str, Counter[int]]:
    """One subject for each text, with a video for each digit, which is its class."""
    return {f"p{i}": Counter(map(int, digits)) for i, digits in enumerate(classes)}


def test_the_division_by_hash_is_what_it_always_was() -> None:
    keys = [f"p{i}" for i in range(10)]
    order = sorted(keys, key=lambda key: hashlib.sha256(f"3 {key}".encode()).digest())
    assert divide(keys, seed=3, **HOW) == dict(zip(order, ["test"] * 2 + ["val"] * 2 + ["train"] * 6, strict=True))


def test_subjects_that_leave_no_class_out_are_divided_by_hash() -> None:
    counts = people(*["0011"] * 10)
    assert divide_subjects(counts, seed=3, **HOW) == divide(counts, seed=3, **HOW)
    assert divide_subjects(people("01", "01"), seed=3, **HOW) == {"p0": "train", "p1": "train"}


@pytest.mark.parametrize("seed", range(5))
def test_no_class_is_left_out_where_that_is_possible(seed: int) -> None:
    """Each subject has one class, or most have few."""
    for counts in (people(*"0123" * 4), people(*["0123"] * 3, *["01"] * 9), people(*["012", "34"] * 5)):
        found = divide_subjects(counts, seed=seed, **HOW)
        assert found.keys() == counts.keys() and {*found.values()} == {*SPLITS}
        assert not any(missing_classes(counts, found).values())
        assert found == divide_subjects(dict(reversed(counts.items())), seed=seed, **HOW)


def test_by_hash_alone_a_class_would_be_left_out() -> None:
    counts = people(*"0123" * 4)
    assert all(any(missing_classes(counts, divide(counts, seed=seed, **HOW)).values()) for seed in range(5))


def test_the_parts_are_near_the_fractions_in_videos() -> None:
    counts = people(*["0" * 5, "1" * 5] * 10, "2" * 4, "2" * 3, "2" * 3)
    found = divide_subjects(counts, seed=0, **HOW)
    sizes = {split: sum(counts[s].total() for s, at in found.items() if at == split) for split in SPLITS}
    assert not any(missing_classes(counts, found).values())
    assert abs(sizes["val"] - 22) <= 3 and abs(sizes["test"] - 22) <= 3


def test_what_is_impossible_costs_as_few_classes_as_it_must_and_train_none() -> None:
    found = divide_subjects(counts := people("012", "01", "01", "0", "0", "0"), seed=0, **HOW)
    assert missing_classes(counts, found) == {"train": set(), "val": {2}, "test": {2}}
    found = divide_subjects(counts := people(*"012"), seed=0, **HOW)  # no part stays empty for it
    assert sorted(found.values()) == sorted(SPLITS)


@given(st.integers(0, 50), st.floats(0, 0.9))
def test_held_out_leaves_something(count: int, fraction: float) -> None:
    number = held_out(count, fraction, most=max(count - 1, 0))
    assert 0 <= number < max(count, 1)
    assert number > 0 or count < 3 or fraction == 0
