"""Division of videos into train, val and test by hashes: the same on every machine, and no class left out."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Mapping

SPLITS = ("train", "val", "test")
_SPELLINGS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "development", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
MOST_ORDERS = 200  # of the subjects, that are tried
MOST_STEPS = 5_000_000  # subjects times classes times orders: seconds


def split_of_name(name: str) -> str:
    """The split that the name of a folder or list stands for (`Train`, `validation_set`, `test-list01`), else ""."""
    letters = re.sub(r"[\W\d_]", "", name.lower())
    return _SPELLINGS.get(re.sub("(set|split|list|data|files|videos|clips)$", "", letters), "")


def divide(keys: Collection[str], *, val_fraction: float, test_fraction: float, seed: int) -> dict[str, str]:
    """The split of each key: in order of hash, the first part to test, the next to val, the rest to train."""
    order = hashed_order(keys, str(seed))
    num_test = held_out(len(order), test_fraction, most=len(order) - 1)
    num_val = held_out(len(order), val_fraction, most=len(order) - 1 - num_test)
    return {
        key: "test" if i < num_test else "val" if i < num_test + num_val else "train" for i, key in enumerate(order)
    }


def divide_subjects(
    counts: Mapping[str, Counter[int]], *, val_fraction: float, test_fraction: float, seed: int
) -> dict[str, str]:
    """The split of each subject such that no split is without a class, if that is possible.

    It is that of `divide` unless that leaves a class out. Else subjects are dealt in many orders, and the division
    with the fewest missing classes is taken (those of train count first), then the one nearest to the fractions in
    videos.

    Args:
        counts: subject -> class -> number of its videos.
        val_fraction: of the videos.
        test_fraction: of the videos.
        seed: another seed is another division.
    """
    plain = divide(counts, val_fraction=val_fraction, test_fraction=test_fraction, seed=seed)
    if not any(missing_classes(counts, plain).values()):
        return plain
    total = sum(sum(classes.values()) for classes in counts.values())
    fractions = {"test": test_fraction, "val": val_fraction}
    targets = {split: fraction * total for split, fraction in fractions.items() if split in plain.values()}
    num_orders = min(MOST_ORDERS, MOST_STEPS // sum(map(len, counts.values())) + 1)
    orders = (hashed_order(counts, f"{seed} {number}") for number in range(num_orders))
    divisions = [plain, *(_deal(order, counts, targets) for order in orders)]

    def badness(division: Mapping[str, str]) -> tuple[float, ...]:
        missing = {split: len(classes) for split, classes in missing_classes(counts, division).items()}
        num_empty = len({*plain.values()} - {*division.values()})
        sizes = {split: sum(counts[s].total() for s, at in division.items() if at == split) for split in targets}
        deviation = sum(abs(sizes[split] - target) for split, target in targets.items())
        return num_empty, missing.pop("train"), sum(missing.values()), deviation

    return min(divisions, key=badness)


def missing_classes(counts: Mapping[str, Counter[int]], division: Mapping[str, str]) -> dict[str, set[int]]:
    """The classes that have no video in each split that has any."""
    found: dict[str, set[int]] = {split: set() for split in {*division.values()}}
    for subject, split in division.items():
        found[split].update(counts[subject])
    every = set().union(*found.values())
    return {split: every - classes for split, classes in found.items()}


def hashed_order(keys: Collection[str], seed: str) -> list[str]:
    """The keys in order of the sha256 of "SEED KEY"."""
    return sorted(keys, key=lambda key: hashlib.sha256(f"{seed} {key}".encode(errors="surrogateescape")).digest())


def held_out(count: int, fraction: float, *, most: int) -> int:
    """Share of `count` to hold out: rounded, at least 1 of 3 or more, never more than `most`."""
    return min(max(round(count * fraction), int(fraction > 0 and count >= 3)), most)


def _deal(order: list[str], counts: Mapping[str, Counter[int]], targets: Mapping[str, float]) -> dict[str, str]:
    """Subjects in `order`: to each held-out split first those with a class that it lacks, then any up to its target.

    None is dealt whose classes the splits that follow could then not all have.
    """
    division: dict[str, str] = {}
    left = Counter(label for classes in counts.values() for label in classes)  # subjects that have the class
    for number, (split, target) in enumerate(targets.items()):
        reserved = len(targets) - number  # subjects of each class, for the splits that follow and for train
        lacking, size = {*left}, 0
        for only_lacking in (True, False):
            for subject in order:
                classes = counts[subject]
                wanted = bool(lacking & classes.keys()) if only_lacking else size + classes.total() / 2 <= target
                if subject not in division and wanted and all(left[label] > reserved for label in classes):
                    division[subject] = split
                    left.subtract(dict.fromkeys(classes, 1))
                    lacking -= classes.keys()
                    size += classes.total()
    return {subject: division.get(subject, "train") for subject in order}
