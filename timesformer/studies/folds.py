"""Folds of a protocol: which clips each of them trains on, validates on and tests; no group is in two of the three."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from timesformer.utils.console import count
from timesformer.utils.errors import UserError

# kind -> by what clips are grouped ("": not at all)
KINDS = {"kfold": "", "group_kfold": "subject", "loso": "subject", "cross_scene": "scene", "seeds": ""}
LEAVES_ONE_OUT = ("loso", "cross_scene")
VAL_FOLDS = 6  # one of so many parts of what is not tested is for validation


@dataclass(frozen=True)
class Fold:
    """Indices of the clips of each split, and what the fold is called in tables."""

    name: str
    train: list[int]
    val: list[int]
    test: list[int]


def make_folds(kind: str, labels: Sequence[int], groups: Sequence[str] = (), *, num_folds: int = 5) -> list[Fold]:
    """Folds that test every clip exactly once; the same ones for the same clips, whatever RNG_SEED is.

    Args:
        kind: `kfold` (stratified by class), `group_kfold` (and no group in two splits), `loso` or `cross_scene` (each
            group is a fold).
        labels: class of each clip.
        groups: person or scene of each clip, for all kinds but `kfold`.
        num_folds: for `kfold` and `group_kfold`.

    Raises:
        UserError: too few clips of a class, or too few groups.
    """
    labels_, groups_ = np.asarray(labels), np.asarray(groups) if kind != "kfold" else None
    if groups_ is None:
        label, fewest = Counter(labels).most_common()[-1]
        _need(f"class {label} has {count(fewest, 'clip')}", fewest, num_folds if num_folds > 2 else 4, num_folds)
    else:
        found = len({*groups})
        shown = f"the clips are of {found} different {KINDS[kind]}s"
        _need(shown, found, 3 if kind in LEAVES_ONE_OUT else max(3, num_folds), num_folds)
    tests = _parts(labels_, groups_, num_folds=None if kind in LEAVES_ONE_OUT else num_folds)
    folds = []
    for number, test in enumerate(tests, start=1):
        rest = np.setdiff1d(np.arange(len(labels_)), test)
        own = None if groups_ is None else groups_[rest]
        most = Counter(labels_[rest].tolist()).most_common()[-1][1] if own is None else len({*own})
        val = rest[_parts(labels_[rest], own, num_folds=max(2, min(VAL_FOLDS, most)), seed=number)[0]]
        name = str(groups[test[0]]) if kind in LEAVES_ONE_OUT else str(number)
        folds.append(Fold(name, np.setdiff1d(rest, val).tolist(), val.tolist(), test.tolist()))
    return folds


def _need(shown: str, found: int, needed: int, num_folds: int) -> None:
    if found < needed:
        purpose = f"{num_folds} folds" if num_folds == needed else "training, validation and test"
        raise UserError(f"{shown}: {purpose} need at least {needed}. Use fewer --folds, or another --kind")


def _parts(labels: np.ndarray, groups: np.ndarray | None, *, num_folds: int | None, seed: int = 0) -> list[np.ndarray]:
    """Indices of the clips of each part: each clip is in one, none is empty; without `num_folds` a group is a part."""
    from sklearn.model_selection import GroupKFold, LeaveOneGroupOut, StratifiedGroupKFold, StratifiedKFold

    options: dict[str, Any] = {"shuffle": True, "random_state": seed}
    if num_folds is None:
        splitters: list[Any] = [LeaveOneGroupOut()]
    elif groups is None:
        splitters = [StratifiedKFold(num_folds, **options)]
    else:  # the last where stratification leaves a part empty, or there is nothing to stratify
        splitters = [StratifiedGroupKFold(num_folds, **options), GroupKFold(num_folds)]
    for splitter in splitters:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # a class with fewer clips than parts
                parts = [test for _, test in splitter.split(labels, labels, groups)]
        except ValueError:
            if splitter is splitters[-1]:
                raise
            continue
        if all(map(len, parts)):
            return parts
    return parts
