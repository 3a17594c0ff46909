"""Deals videos to train, val and test: splits that exist are kept, people stay together, classes are balanced."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from timesformer.datasets.splits import SPLITS, divide
from timesformer.utils.errors import DataListError

NUM_SEEDS = 20  # divisions by groups that are tried, of which the best is taken


def assign_splits(
    names: Sequence[str],
    labels: Sequence[str],
    groups: Sequence[str],
    given: Sequence[str],
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int = 0,
) -> list[str]:
    """The split of each video.

    Given splits are kept; if there is val or test, only a missing val is made, from train. Without any, both are made.

    Args:
        names: of the videos, such as paths below their folder: without groups, they decide.
        labels: the classes.
        groups: the person, or the scene, which goes to one split as a whole; "" where unknown.
        given: the split that a video has already, or "".
        val_fraction: of the videos.
        test_fraction: likewise.
        seed: another seed is another division.

    Raises:
        DataListError: splits are given, but none is train.
    """
    present = {*given} - {""}
    if present and "train" not in present:
        raise DataListError(f"the videos are in {' and '.join(sorted(present))}, but none is in train")
    splits = [*given] if present > {"train"} else ["train"] * len(names)
    if "val" in present:
        return splits
    test_fraction = test_fraction if present <= {"train"} else 0.0
    pool = [i for i, split in enumerate(splits) if split == "train"]
    parts = [[each[i] for i in pool] for each in (names, labels, groups)]
    chosen = _divide(*parts, val_fraction=val_fraction, test_fraction=test_fraction, seed=seed)
    for i, split in zip(pool, chosen, strict=True):
        splits[i] = split
    return splits


def extend_splits(
    names: Sequence[str],
    labels: Sequence[str],
    groups: Sequence[str],
    given: Sequence[str],
    *,
    split_of_group: Mapping[str, str],
    val_fraction: float,
    test_fraction: float,
    seed: int = 0,
) -> list[str]:
    """The splits of videos that join others: that of their group where it has one, else as `assign_splits` deals them.

    Args:
        split_of_group: of the people, or scenes, of the videos that are there.

    For the others see `assign_splits`.
    """
    splits = [split or split_of_group.get(group, "") for split, group in zip(given, groups, strict=True)]
    pool = [i for i, split in enumerate(splits) if not split]
    parts = [[each[i] for i in pool] for each in (names, labels, groups)]
    chosen = _divide(*parts, val_fraction=val_fraction, test_fraction=test_fraction, seed=seed)
    for i, split in zip(pool, chosen, strict=True):
        splits[i] = split
    return splits


def shared_groups(groups: Sequence[str], splits: Sequence[str]) -> dict[str, list[str]]:
    """The groups that are in more than one split, with these splits."""
    found: dict[str, set[str]] = defaultdict(set)
    for group, split in zip(groups, splits, strict=True):
        if group and split:
            found[group].add(split)
    return {group: sorted(each, key=SPLITS.index) for group, each in found.items() if len(each) > 1}


def _divide(
    names: Sequence[str],
    labels: Sequence[str],
    groups: Sequence[str],
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
) -> list[str]:
    """New splits: by groups where there are any, of which each split gets one; else of each class by hash."""
    if len({*groups} - {""}) < 2:
        of_class: dict[str, list[str]] = defaultdict(list)
        for name, label in zip(names, labels, strict=True):
            of_class[label].append(name)
        split_of: dict[str, str] = {}
        for each in of_class.values():
            split_of |= divide(each, val_fraction=val_fraction, test_fraction=test_fraction, seed=seed)
        return [split_of[name] for name in names]
    splits = ["train"] * len(names)
    units = [group or f"\0{name}" for group, name in zip(groups, names, strict=True)]
    left = [*range(len(names))]
    for split, fraction in (("test", test_fraction), ("val", val_fraction)):
        others = val_fraction if split == "test" else 0.0  # groups that must remain: one for train, one for val
        if fraction and len({units[i] for i in left}) > 1 + bool(others):
            share = fraction * len(names) / len(left)
            held_out = hold_out([labels[i] for i in left], [units[i] for i in left], share, seed=seed)
            for position in held_out:
                splits[left[position]] = split
            left = [i for i in left if splits[i] == "train"]
    return splits


def hold_out(labels: Sequence[str], groups: Sequence[str], fraction: float, *, seed: int) -> list[int]:
    """Indices of about `fraction` of the videos, whole groups with the classes as in all of them.

    Of the folds of many stratified divisions by groups, the one that leaves the fewest classes out of the rest, then
    of itself, then is nearest to the fraction and to the shares of the classes.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    total = Counter(labels)
    largest = max(total.values())
    if largest < 2:  # a new video each: nothing to deal
        return []
    num_folds = max(2, min(round(1 / fraction), len({*groups}), largest))
    best, least = [], (np.inf,) * 3
    for number in range(NUM_SEEDS):
        folds = StratifiedGroupKFold(num_folds, shuffle=True, random_state=(seed + number) % 2**32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of classes that are not in every fold
            parts = [held for _, held in folds.split(labels, labels, groups)]
        for held in parts:
            counts = Counter(labels[i] for i in held)
            missing = sum(counts[label] == number for label, number in total.items())
            absent = sum(not counts[label] for label in total)
            deviation = sum(abs(counts[label] - fraction * number) for label, number in total.items())
            if len(held) and (found := (missing, absent, deviation)) < least:
                best, least = held.tolist(), found
    return best
