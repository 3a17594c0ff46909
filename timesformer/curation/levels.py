"""What folders and names of files mean: split, class, person, scene."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from timesformer.datasets.files import natural_key
from timesformer.datasets.overlaps import PEOPLE, PLACES
from timesformer.datasets.splits import split_of_name


def level_roles(folders: Sequence[Sequence[str]], stems: Sequence[str] = ()) -> list[str]:
    """What each level of folders means: "split", "label", "subject", "scene", or "" for something else.

    Args:
        folders: of each video the folders that lead to it, from the top.
        stems: the names of the videos, without extension.
    """
    depth = max(map(len, folders), default=0)
    names = [sorted({parts[i] for parts in folders if len(parts) > i}, key=natural_key) for i in range(depth)]
    roles = [""] * depth
    for level, found in enumerate(names):
        splits = {split_of_name(name) for name in found} - {""}
        if "train" in splits and (len(splits) > 1 or len(found) == 1) and "split" not in roles:
            roles[level] = "split"
        elif len(found) > 1:
            roles[level] = group_of_names(found)
    most = max((len([p for p in folders if len(p) > i]) for i in range(depth) if roles[i] != "split"), default=0)
    open_levels = [
        i
        for i in range(depth)
        if not roles[i] and len(names[i]) > 1 and 2 * sum(len(parts) > i for parts in folders) > most
    ]
    if not open_levels:  # what looks like people or places may be the classes: Subject1/G7/video
        groups = [i for i in range(depth) if roles[i] in ("subject", "scene")]
        if groups and not labels_in_names(stems):
            roles[max(groups, key=lambda i: (roles[i] == "scene", i))] = "label"
        return roles
    outer, *deeper = open_levels
    crossed = next((i for i in deeper if _is_crossed(folders, outer, i)), None)
    if crossed is None:
        roles[outer] = "label"
        return roles

    # Two levels cross, such as person and class: the class is in the names of files, or has no number for a name.
    def likely(level: int) -> tuple[float, float, int]:
        in_stems = [
            len(p) > level and p[level].lower() in stem.lower() for p, stem in zip(folders, stems, strict=False)
        ]
        words = sum(not name.isdigit() for name in names[level]) / len(names[level])
        return sum(in_stems) / len(folders), words, level

    label = max((outer, crossed), key=likely)
    roles[label], roles[outer + crossed - label] = "label", "subject"
    return roles


def group_of_names(names: Sequence[str]) -> str:
    """ "subject" or "scene" when each of `names` is such a word with a number (p01, Subject 3, room2), else ""."""
    for role, words in (("subject", PEOPLE), ("scene", PLACES)):
        if all(re.fullmatch(rf"({words})[ _-]?[0-9]+", name, re.IGNORECASE) for name in names):
            return role
    return ""


def labels_in_names(names: Sequence[str]) -> list[str]:
    """The words of each file name that have no number, such as `swipe left` of p03_swipe_left_2.mp4; [] for no classes.

    They are classes if there are at least two, and on average at least two videos of each.
    """
    texts = []
    for name in names:
        words = re.split(r"[ _.-]+", os.path.splitext(os.path.basename(name))[0])
        texts.append(" ".join(word for word in words if word and not re.search("[0-9]", word)))
    distinct = {*texts}
    return texts if "" not in distinct and 2 <= len(distinct) <= len(names) / 2 else []


def _is_crossed(folders: Sequence[Sequence[str]], outer: int, inner: int) -> bool:
    """Whether most names of the inner level are in more than half of the folders of the outer level."""
    parents: Mapping[str, set[str]] = defaultdict(set)
    for parts in folders:
        if len(parts) > inner:
            parents[parts[inner]].add(parts[outer])
    num_outer = len({parts[outer] for parts in folders if len(parts) > inner})
    shared = sum(2 * len(each) > num_outer for each in parents.values())
    return num_outer > 1 and 2 * shared > len(parents)
