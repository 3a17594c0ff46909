"""Videos with labels: the records that every dataset lists, and checks and summaries of such lists."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timesformer.datasets.files import list_folder
from timesformer.utils.errors import DataListError, VideoReadError

MAX_SHOWN = 20  # lines of one kind in a message; the others are counted


@dataclass(frozen=True)
class VideoRecord:
    """One video, or one part of a video, with its label."""

    path: str  # a video file, or a folder of frames, as it will be opened
    label: int | tuple[int, ...]  # class index; a sorted tuple of them with DATA.MULTI_LABEL
    source: str  # where the record comes from, for messages, such as "train.csv:12"
    # Of a folder: its pictures in order. Of a video without files: uint8 (T, H, W, 3), an array or what has the shape
    # of one and makes the frames that it is indexed with.
    frames: Sequence[str] | Any = ()
    fps: float = 0.0  # of a frame folder when known, else 0
    subject: str = ""  # the person in the video when known, else ""
    start_sec: float = 0.0  # the part of the file that is used; 0 to 0 means all of it
    end_sec: float = 0.0
    scene: str = ""  # the place or the recording when known, else ""


@dataclass
class VideoList:
    """The videos of one split, the names of the classes ([] when unknown) and one line per warning."""

    records: list[VideoRecord]
    class_names: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def people(self, indices: Iterable[int]) -> list[str]:
        """The person in each of these videos, "" where unknown."""
        return [self.records[index].subject for index in indices]


@dataclass(frozen=True)
class Failure:
    """A video that could not be read: its record's index, path and list line, and the cause in one line."""

    index: int
    path: str
    source: str
    cause: str

    @classmethod
    def of(cls, index: int, record: VideoRecord, error: VideoReadError) -> Failure:
        """The failure of `record`; a cause in one picture of a frame folder names the picture."""
        cause = error.cause if error.path == record.path else str(error)
        return cls(index, record.path, record.source, cause)

    def __str__(self) -> str:
        return f"{self.path} ({self.source}): {self.cause}"


def in_memory(record: VideoRecord) -> bool:
    """Whether the frames of `record` are an array, or made when they are read, rather than files."""
    return hasattr(record.frames, "shape")


def shorten(lines: Sequence[str], limit: int = MAX_SHOWN) -> list[str]:
    """The first `limit` lines and, when there are more, a line with the number of the others."""
    return [*lines[:limit], *([f"... and {len(lines) - limit} more"] if len(lines) > limit else [])]


def class_counts(records: Iterable[VideoRecord]) -> Counter[int]:
    """Number of videos per class."""
    return Counter(label for r in records for label in (r.label if isinstance(r.label, tuple) else (r.label,)))


def coverage_warnings(
    records: Iterable[VideoRecord], num_classes: int, list_name: str, class_names: Sequence[str] = ()
) -> list[str]:
    """One line when classes have no video; without class names, also what corrects a NUM_CLASSES that is too large."""
    counts = class_counts(records)
    names = [f"{label} ({class_names[label]})" if class_names else str(label) for label in range(num_classes)]
    empty = [name for label, name in enumerate(names) if not counts[label]]
    used = 0 if class_names else max(counts, default=-1) + 1
    advice = f"; if there are {used} classes, add: MODEL.NUM_CLASSES {used}" if 0 < used < num_classes else ""
    text = f"{list_name}: {len(empty)} of {num_classes} classes have no video: {', '.join(shorten(empty, 10))}{advice}"
    return [text] if empty else []


def split_missing(records: Iterable[VideoRecord]) -> tuple[list[VideoRecord], list[VideoRecord]]:
    """Records whose file or folder exists or that need none, and the others; each folder is listed only once."""
    entries: dict[str, set[str]] = {}
    present: list[VideoRecord] = []
    missing: list[VideoRecord] = []
    for record in records:
        if in_memory(record):
            present.append(record)
            continue
        parent, name = os.path.split(record.path.rstrip("/\\"))
        if parent not in entries:
            entries[parent] = set(list_folder(parent))
        exists = name in entries[parent] or os.path.exists(record.path)  # the latter: case-insensitive file systems
        (present if exists else missing).append(record)
    return present, missing


def missing_table(missing: Sequence[VideoRecord], remedy: str = "") -> str:
    """One table of missing files (where each is listed, the path that was tried) and the `remedy`, or what to check."""
    rows = [("listed in", "path tried"), *((r.source, r.path) for r in missing)]
    width = max(len(source) for source, _ in rows[: MAX_SHOWN + 1])
    lines = shorten([f"{source:{width}}  {path}" for source, path in rows], MAX_SHOWN + 1)
    if remedy:
        return "\n".join([*lines, remedy])
    lines.append("Relative paths are put below DATA.PATH_PREFIX: check it, and that all files were copied.")
    if not any(os.path.splitext(r.path)[1] for r in missing):
        lines.append("None of these paths has an extension: if they are video ids, make them files (ID.mp4).")
    return "\n".join(lines)


def path_tail(path: str) -> str:
    """The last two parts of a path: what names a video on any machine."""
    return "/".join(path.replace("\\", "/").rstrip("/").split("/")[-2:])


def fingerprint(records: Sequence[VideoRecord]) -> str:
    """What identifies a list on any machine, in one line.

    It is the sha256 of the last two parts of each path, the labels and the part of the file that is used, in
    order; then the number of videos and the histogram of classes.
    """
    digest = hashlib.sha256()
    for r in records:
        digest.update(f"{path_tail(r.path)}\t{r.label}\t{r.start_sec}\t{r.end_sec}\n".encode(errors="surrogateescape"))
    histogram = " ".join(f"{label}:{count}" for label, count in sorted(class_counts(records).items()))
    return f"sha256 {digest.hexdigest()}, {len(records)} videos, class:count {histogram}"


def wrong_num_classes(name: str, found: int, num_classes: int | str) -> DataListError:
    """The error of a model that has another number of classes than the data."""
    return DataListError(
        f"{name} has {found} classes, but MODEL.NUM_CLASSES is {num_classes}. Add: MODEL.NUM_CLASSES {found}"
    )


def load_class_names(path: str, num_classes: int | str) -> list[str]:
    """Class names in label order from a text file (one a line) or a json ({name: label}, or a list of names).

    Raises:
        DataListError: no such file, not `num_classes` names (auto: any number), or labels that are not 0, 1, 2, ...
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        content = json.loads(text) if path.lower().endswith(".json") else text.rstrip().splitlines()
        if isinstance(content, dict):
            by_label = {int(label): name for name, label in content.items()}
            if sorted(by_label) != [*range(len(content))]:
                raise ValueError("its labels are not 0, 1, 2, ..., each once")
            content = [by_label[label] for label in range(len(content))]
        names = [str(name).strip().strip('"') for name in content]
    except (OSError, ValueError, TypeError) as error:
        raise DataListError(f"the class names {path!r} cannot be used: {error}") from error
    if num_classes not in ("auto", len(names)):
        raise wrong_num_classes(path, len(names), num_classes)
    return names
