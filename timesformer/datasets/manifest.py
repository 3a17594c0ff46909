"""One list of all videos of a project, `videos.csv`: label, person, scene and split of each, for people to edit."""

from __future__ import annotations

import codecs
import csv
import io
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from timesformer.datasets.files import natural_key
from timesformer.datasets.kinetics import Kinetics, Row
from timesformer.datasets.list_files import Table, find_list, raise_problems
from timesformer.datasets.records import VideoList, wrong_num_classes
from timesformer.datasets.splits import SPLITS, split_of_name
from timesformer.utils.errors import DataListError
from timesformer.utils.files import write_whole
from timesformer.utils.registry import DATASETS

FILE = "videos.csv"
REQUIRED = ("path", "label", "split")


@dataclass(frozen=True, kw_only=True)
class ManifestRow:
    """One video; the fields are the columns of the file, in their order. 0 and "" are an empty cell."""

    path: str  # a video file or a folder of frames, as it is written
    label: str  # the name of the class; several with ; between them for DATA.MULTI_LABEL
    subject: str = ""  # the person
    scene: str = ""  # the place, or the recording
    split: str = ""  # train, val, test; "": not used
    duration: float = 0.0  # seconds
    fps: float = 0.0
    frames: int = 0
    size: str = ""  # WIDTHxHEIGHT in pixels
    hash: str = ""  # of the content
    start: float = 0.0  # the part of the file that is used, in seconds; 0 to 0 means all of it
    end: float = 0.0
    line: int = 0  # of the file that was read, from 1; not written


COLUMNS = tuple(field.name for field in fields(ManifestRow) if field.name != "line")
_NUMBERS = ("duration", "fps", "frames", "start", "end")


def manifest_path(data_dir: str) -> str:
    """The manifest that DATA.PATH_TO_DATA_DIR means: the file itself, or `videos.csv` in that folder.

    Raises:
        DataListError: there is none.
    """
    if os.path.isfile(data_dir):
        return data_dir
    return find_list(data_dir, [FILE], folders=["."], advice="Write it with: timesformer prepare FOLDER --out DIR")


def read_manifest(path: str) -> list[ManifestRow]:
    """The rows of a manifest, paths as they are written; columns in any order, further ones are ignored.

    Raises:
        DataListError: with every problem of the file, each with its line.
    """
    table = Table(path, {name: (name,) for name in COLUMNS}, optional={*COLUMNS} - {*REQUIRED}, keep_bytes=True)
    if not table.header:
        line, text = next(table.lines)
        raise DataListError(
            f"{path}:{line}: the header is {text[:80]!r}, but should name the columns: path,label,split"
        )
    rows: list[ManifestRow] = []
    for line, values in table.rows():
        try:
            rows.append(_row(dict(zip(COLUMNS, values, strict=True)), line))
        except ValueError as error:
            table.report(str(error))
    raise_problems(path, table.problems)
    return rows


def write_manifest(path: str, rows: Sequence[ManifestRow]) -> None:
    """Write a manifest at once: whoever reads `path` meanwhile gets the old file, or the whole new one."""
    write_whole(path, _lines([COLUMNS, *map(_cells, rows)]).encode("utf-8", "surrogateescape"))


def append_rows(path: str, rows: Sequence[ManifestRow]) -> None:
    """Add `rows` below those of a manifest, in its columns; what is there stays as it is, to the letter."""
    table = Table(path, {name: (name,) for name in REQUIRED})
    names = [name.strip().lower() for name in next(csv.reader([table.header], delimiter=table.separator))]
    cells = [dict(zip(COLUMNS, _cells(row), strict=True)) for row in rows]
    added = _lines([[each.get(name, "") for name in names] for each in cells], table.separator)
    content = Path(path).read_bytes()
    marks = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
    encoding = marks.get(content[:2], "utf-8")
    end = "" if content.decode(encoding, "surrogateescape").endswith("\n") else "\n"
    write_whole(path, content + f"{end}{added}".encode(encoding, "surrogateescape"))


@DATASETS.register("manifest")
@dataclass(kw_only=True)
class Manifest(Kinetics):
    """One split of a manifest; `data_dir` is the file, or the folder that holds `videos.csv`.

    Relative paths belong to `prefix` or else to the folder of the file. Without a file of class names, the classes
    are the labels of all videos that have a split, in natural order.
    """

    def load(self) -> VideoList:
        """The videos of the split.

        Raises:
            DataListError: the file is missing or has lines that cannot be used, the model has another number of
                classes, or the split has no videos.
        """
        path = manifest_path(self.data_dir)
        rows = [row for row in read_manifest(path) if row.split]
        names = self.class_names() or self._labels_of(path, rows)
        own = [self._located(row, os.path.dirname(path)) for row in rows if row.split == self.split]
        if not own:
            counts = Counter(row.split for row in rows)
            sizes = ", ".join(f"{split} {counts[split]}" for split in SPLITS)
            advice = ", or set TEST.SPLIT val" if self.split == "test" else ""
            raise DataListError(
                f"{path}: no videos for {self.split} (videos: {sizes}). Write {self.split} into the column `split` of "
                f"some{advice}."
            )
        found = self._records(path, [], own, self.label_names(names))
        return VideoList(found.records, names, found.warnings)

    def _labels_of(self, path: str, rows: Sequence[ManifestRow]) -> list[str]:
        names = sorted({label for row in rows for label in self._label_texts(row.label)}, key=natural_key)
        if self.num_classes not in ("auto", len(names)):
            raise wrong_num_classes(path, len(names), self.num_classes)
        return names

    def _located(self, row: ManifestRow, folder: str) -> Row:
        path = os.path.join(self.prefix or folder, row.path)
        return Row(row.line, path, row.label, row.start, row.end, row.fps, row.subject, row.scene)


def _row(cells: dict[str, str], line: int) -> ManifestRow:
    """A row from the texts of its cells; a ValueError says what is wrong with one."""
    numbers = {name: _number(name, cells[name]) for name in _NUMBERS}
    split = split_of_name(cells["split"])
    if cells["split"] and not split:
        raise ValueError(f"split {cells['split']!r} is none of train, val, test, or empty for a video that is not used")
    if not cells["path"]:
        raise ValueError("no path")
    if split and not cells["label"]:
        raise ValueError("no label, but a split")
    if numbers["end"] and numbers["end"] <= numbers["start"]:
        raise ValueError(f"from {numbers['start']} to {numbers['end']} seconds is no part of a video")
    values = cells | numbers | {"split": split, "frames": int(numbers["frames"])}
    return ManifestRow(**values, line=line)  # type: ignore[arg-type]


def _number(name: str, text: str) -> float:
    try:
        value = float(text.replace(",", ".") or 0)  # as some spreadsheets write it
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} {text!r} is not a number from 0")
    return value


def _cells(row: ManifestRow) -> list[str]:
    """What is written for `row`; a path that would start a comment is written as ./#path."""
    values = {name: getattr(row, name) for name in COLUMNS}
    path = f"./{row.path}" if row.path.startswith("#") else row.path
    numbers = {name: str(values[name]).removesuffix(".0") if values[name] else "" for name in _NUMBERS}
    cells = [*(values | numbers | {"path": path}).values()]
    if broken := [cell for cell in cells if len(cell.splitlines()) > 1]:
        raise DataListError(f"{broken[0]!r} has a line break, which a list cannot hold: rename it")
    return cells


def _lines(rows: Sequence[Sequence[str]], separator: str = ",") -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator="\n").writerows(rows)
    return text.getvalue()
