"""Reads the lists that people keep beside their videos: any separator, header or not, names or numbers as labels."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import NamedTuple

from timesformer.datasets.files import is_video, list_folder, natural_key, sub_folders, videos_by_stem
from timesformer.datasets.kinetics import split_line
from timesformer.datasets.list_files import SEPARATORS, Table, base_folder, raise_problems
from timesformer.datasets.records import load_class_names, shorten
from timesformer.datasets.splits import SPLITS, split_of_name
from timesformer.utils.errors import DataListError

FOLDERS = (".", "metadata", "annotations", "labels", "lists", "splits")  # of lists, below the folder of the videos
ENDINGS = (".csv", ".txt", ".tsv", ".lst")
COLUMNS = {
    "path": ("path", "video_path", "file_path", "filepath", "file", "filename", "file_name", "video", "video_name",
             "clip", "video_id", "vid", "id"),
    "label": ("label", "class", "class_name", "label_name", "category", "action", "gesture", "task", "target"),
    "split": ("split", "set", "subset", "partition", "usage"),
    "subject": ("subject", "person", "user", "participant", "signer", "actor", "subject_id", "person_id", "user_id"),
    "scene": ("scene", "place", "location", "room", "session", "background"),
}  # fmt: skip
_NAME_FILES = ("classes", "class_names", "classnames", "labels", "label_names", "categories", "label_map", "classind")


class ListedVideo(NamedTuple):
    """A row whose video exists."""

    path: str
    label: str
    source: str  # file:line
    split: str = ""
    subject: str = ""
    scene: str = ""


def find_lists(root: str) -> list[str]:
    """The lists of `root`: one per split when there is one for training, else the one that lists most videos; or []."""
    present = [
        os.path.normpath(os.path.join(root, folder, name))
        for folder in FOLDERS
        for name in sorted(list_folder(os.path.join(root, folder)), key=natural_key)
        if name.lower().endswith(ENDINGS) and name[0] != "."
    ]
    of_split: dict[str, str] = {}
    for path in present:
        of_split.setdefault(split_of_file(path), path)
    if "train" in of_split:
        return [of_split[split] for split in SPLITS if split in of_split]
    sizes: dict[str, int] = {}
    for path in present:
        with suppress(DataListError):  # a list of something else
            sizes[path] = len(read_list(path, root)[0])
    best = max(sizes, key=lambda path: sizes[path], default="")
    return [best] if best and sizes[best] else []


def read_lists(paths: Sequence[str], root: str) -> tuple[list[ListedVideo], list[str]]:
    """The videos of lists, each once, labels as names where a file or the folders give them; and notes.

    Raises:
        DataListError: rows that cannot be used, or one video with two labels or in two lists.
    """
    rows: list[ListedVideo] = []
    notes: list[str] = []
    for path in paths:
        try:
            found, missing = read_list(path, root)
        except DataListError as error:
            raise DataListError(f"{error}\nCorrect the list, or move it away to go by the folders") from error
        rows += [row._replace(split=row.split or split_of_file(path)) for row in found]
        if missing:
            notes.append(f"{path}: {len(missing)} videos do not exist: {', '.join(shorten(missing, 3))}")
        if not found:
            raise DataListError(f"{path}: none of its videos exists, such as {', '.join(shorten(missing, 3))}")
    first: dict[str, ListedVideo] = {}
    for row in rows:
        other = first.setdefault(os.path.realpath(row.path), row)
        if (other.label, other.split) != (row.label, row.split):
            raise DataListError(
                f"{row.path} is {other.label} for {other.split or 'no split'} in {other.source}, but {row.label} for "
                f"{row.split or 'no split'} in {row.source}: keep one"
            )
    return _with_names([*first.values()], root), notes


def split_of_file(path: str) -> str:
    """The split that the name of a list, or a word of it, means: train.csv, jester-v1-train.csv; else ""."""
    stem = os.path.splitext(os.path.basename(path))[0]
    return next(filter(None, map(split_of_name, [stem, *re.split(r"[\W_]+", stem)])), "")


def read_list(path: str, root: str) -> tuple[list[ListedVideo], list[str]]:
    """The rows of one list whose videos exist, and the paths of the others.

    Raises:
        DataListError: it has no rows, or rows that cannot be used.
    """
    table = Table(path, COLUMNS, optional=("split", "subject", "scene"), keep_bytes=True)
    folders = ["", os.path.dirname(path), root, *(os.path.join(root, name) for name in sub_folders(root))]
    rows = [*table.rows()] if table.header else _plain_rows([*table.lines], folders)
    raise_problems(path, table.problems)
    file = os.path.basename(path)
    base, _ = base_folder([cells[0] for _, cells in rows], list_path=path, prefix="", roots=folders, join=_locate)
    found, missing = [], []
    for line, (name, label, split, subject, scene) in rows:
        if not name or not label:
            raise DataListError(f"{path}:{line}: should be a path and a label, found {name or label!r}")
        if split and not split_of_name(split):
            raise DataListError(f"{path}:{line}: split {split!r} is none of train, val, test")
        full = _locate(base, name)
        if os.path.exists(full):
            found.append(ListedVideo(full, label, f"{file}:{line}", split_of_name(split), subject, scene))
        else:
            missing.append(full)
    return found, missing


def _plain_rows(lines: Sequence[tuple[int, str]], folders: Sequence[str]) -> list[tuple[int, list[str]]]:
    """The cells of lines without header: cut where most paths are of videos, or of what is in one of `folders`."""

    def is_path(name: str) -> bool:
        return is_video(name) or (name != "" and any(os.path.exists(_locate(folder, name)) for folder in folders))

    sample = lines[:: max(1, len(lines) // 50)]
    separator = max(SEPARATORS, key=lambda sep: sum(is_path(split_line(text, sep)[0]) for _, text in sample))
    rows = [(line, [*split_line(text, separator), "", "", ""]) for line, text in lines]
    if len(rows) > 1 and not is_path(rows[0][1][0]) and is_path(rows[1][1][0]):
        del rows[0]  # a header with names of its own
    return rows


def _locate(folder: str, name: str) -> str:
    """The file of a path or of a video's id."""
    full = os.path.join(folder, name.replace("\\", "/"))
    if is_video(name) or os.path.exists(full):
        return full
    return _stems(os.path.dirname(full)).get(os.path.basename(full), full)


_stems = cache(videos_by_stem)


def _with_names(rows: list[ListedVideo], root: str) -> list[ListedVideo]:
    """Rows whose numbers are replaced by the names of a file of classes, else by those of folders, if one fits."""
    numbers = {row.label for row in rows}
    if not all(label.isdecimal() for label in numbers):
        return rows
    names = _names_of_file(root, max(map(int, numbers)) + 1) or _names_of_folders(rows)
    return [row._replace(label=names.get(row.label, row.label)) for row in rows]


def _names_of_file(root: str, num_classes: int) -> dict[str, str]:
    for folder in FOLDERS:
        for name in list_folder(os.path.join(root, folder)):
            if os.path.splitext(name)[0].lower() in _NAME_FILES:
                with suppress(DataListError):
                    names = load_class_names(os.path.join(root, folder, name), num_classes)
                    return {str(label): name for label, name in enumerate(names)}
    return {}


def _names_of_folders(rows: Sequence[ListedVideo]) -> dict[str, str]:
    """The name of the folder of each label, if labels and folders go together one to one."""
    folders: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        folders[row.label].add(os.path.basename(os.path.dirname(row.path)))
    names = {label: min(found) for label, found in folders.items() if len(found) == 1}
    return names if len({*names.values()}) == len(folders) else {}
