"""Paths of a list that do not exist, but would if written otherwise: the one difference, and what mends it."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

from timesformer.datasets.files import list_folder, sub_folders
from timesformer.utils.paths import expand_path

MOST_TRIED = 50  # of the missing paths
MOST_FOLDERS = 200  # below a root that are looked into


def _beside(same: Callable[[str], str]) -> Callable[[str], Iterator[str]]:
    """Files beside a path whose names are equal to its own but for what `same` takes off."""

    def find(path: str) -> Iterator[str]:
        folder, name = os.path.split(path)
        return (os.path.join(folder, other) for other in list_folder(folder) if same(other) == same(name))

    return find


def _from_home(path: str) -> Iterator[str]:
    if match := re.search(r"(^|/)(~|\$)", path):
        yield expand_path(path[match.start(2) :])


# What differs, what to do about it, and the paths to try instead.
_DIFFERENCES: tuple[tuple[str, str, Callable[[str], Iterator[str]]], ...] = (
    ("with / in place of \\", r"Replace them: sed -i 's#\\#/#g' LIST", lambda path: iter([path.replace("\\", "/")])),
    ("without the comma at the end", "Add: DATA.PATH_LABEL_SEPARATOR ,", lambda path: iter([path.rstrip(", ")])),
    ("without the semicolon at the end", "Add: DATA.PATH_LABEL_SEPARATOR ';'", lambda path: iter([path.rstrip("; ")])),
    ("without the quotes", 'Only " can stand around a path: replace or remove the others',
     lambda path: iter([re.sub("[\"'`\u2018\u2019\u201c\u201d]", "", path)])),
    ("with letters composed as in the names of the files (Unicode NFC or NFD)",
     "Write the list on this machine, for example with find",
     lambda path: (unicodedata.normalize(form, path) for form in ("NFC", "NFD"))),
    ("with %20 and the like decoded", "Write plain paths, no URLs", lambda path: iter([unquote(path)])),
    ("without file://", "Write plain paths, no URLs", lambda path: iter([unquote(re.sub("^.*file:(//)?", "", path))])),
    ("with ~ or $NAME expanded", "Write whole paths, or relative ones and DATA.PATH_PREFIX", _from_home),
    ("without blanks around names", "Remove the blanks", lambda path: iter([re.sub(" */ *", "/", path.strip())])),
    ("with capital letters as in the names of the files", "Correct the list, or rename the files",
     _beside(str.casefold)),
    ("with another extension", "Correct the extensions in the list",
     _beside(lambda name: os.path.splitext(name)[0])),
)  # fmt: skip


def near_miss(paths: Sequence[str], roots: Sequence[str]) -> str:
    """What makes most of the missing `paths` exist, with an example and the remedy; "" if nothing does.

    Args:
        paths: that do not exist.
        roots: folders that may hold them: DATA.PATH_TO_DATA_DIR, DATA.PATH_PREFIX.
    """
    sample = paths[:: -(-len(paths) // MOST_TRIED)]
    best: tuple[int, str] = (0, "")
    for difference, remedy, candidates in (*_DIFFERENCES, *_other_folders(sample[0], roots)):
        found = [(path, hit) for path in sample if (hit := next(filter(os.path.exists, candidates(path)), ""))]
        if len(found) > best[0]:
            share = "They exist" if len(found) == len(paths) else f"{len(found)} of {len(sample)} that were tried exist"
            best = len(found), f"{share} {difference}: {found[0][0]} -> {found[0][1]}. {remedy}."
    return best[1]


def _other_folders(path: str, roots: Sequence[str]) -> Iterator[tuple[str, str, Callable[[str], Iterator[str]]]]:
    """The differences by which `path` exists below a root: a few folders less in front, or one more."""
    for root in filter(None, dict.fromkeys(roots)):
        parts = Path(path).parts
        for cut in range(1, len(parts)):
            front = os.path.join(*parts[:cut], "")
            if front != os.path.join(root, "") and os.path.exists(os.path.join(root, *parts[cut:])):
                remedy = f"Make the paths relative to {root}, and add: DATA.PATH_PREFIX {root}"
                yield f"in {root}, not in {front}", remedy, _moved(front, root)
                break
        for name in sub_folders(root)[:MOST_FOLDERS] if os.path.isdir(root) else ():
            inner = os.path.join(root, name)
            if os.path.exists(os.path.join(inner, os.path.relpath(path, root))):
                yield f"in {inner}", f"Add: DATA.PATH_PREFIX {inner}", _moved(os.path.join(root, ""), inner)


def _moved(front: str, root: str) -> Callable[[str], Iterator[str]]:
    return lambda path: iter([os.path.join(root, path.removeprefix(front))] if path.startswith(front) else [])
