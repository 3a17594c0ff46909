"""List files of paths and labels: finds and reads them, or reports all their problems in one message."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from timesformer.datasets.records import VIDEO_EXTENSIONS, VideoList, VideoRecord, list_pictures, shorten
from timesformer.datasets.tables import SEPARATORS, Table, raise_problems
from timesformer.utils.errors import DataListError


def find_list(data_dir: str, names: Sequence[str], *, folders: Sequence[str] = (".", "metadata"), advice: str) -> str:
    """Path of the first of `names` in `data_dir` or one of its `folders`.

    Raises:
        DataListError: there is none; the message names the lists that are there, and gives `advice`.
    """
    if not os.path.isdir(data_dir):
        found = f"there is no folder {data_dir!r}" if data_dir else "it is not set"
        if os.path.isfile(data_dir):
            found = f"{data_dir!r} is a file. Type DATA.PATH_TO_DATA_DIR {os.path.dirname(data_dir) or '.'}"
        raise DataListError(f"DATA.PATH_TO_DATA_DIR must be the folder that holds {names[0]}: {found}")
    paths = [os.path.normpath(os.path.join(data_dir, folder, name)) for folder in folders for name in names]
    if path := next(filter(os.path.isfile, paths), ""):
        return path
    lists = [f for folder in folders for kind in ("csv", "json") for f in Path(data_dir, folder).glob(f"*.{kind}")]
    there = shorten(sorted(str(f.relative_to(data_dir)) for f in lists))
    raise DataListError(f"no {' or '.join(paths)}; lists there: {', '.join(there) or 'none'}. {advice}")


def base_folder(
    paths: Sequence[str],
    *,
    list_path: str,
    prefix: str,
    roots: Sequence[str] = (),
    join: Callable[[str, str], str] = os.path.join,
) -> tuple[str, list[str]]:
    """The folder that relative `paths` of a list belong to, and a warning if that is in doubt.

    It is `prefix` if that is set; else, of the working folder (""), the list's folder and `roots`, the one
    where most of about 50 paths exist (the first on a draw). It is in doubt when some exist in none or in several.
    """
    if prefix:
        return prefix, []
    sample = {path for path in paths[:: max(1, len(paths) // 50)] if path}
    found: dict[str, set[str]] = {}
    for base in ("", os.path.dirname(list_path), *roots):
        found[base] = {os.path.realpath(file) for path in sample if os.path.exists(file := join(base, path))}
    base = max(found, key=lambda base: len(found[base]))
    certain = len(sample) == len(found[base]) == len(set().union(*found.values()))
    warning = f"{os.path.basename(list_path)}: paths are relative to {base!r}, as DATA.PATH_PREFIX is not set"
    return base, [warning] if base and not certain else []


class Row(NamedTuple):
    """A line of a list, cut into fields but not yet checked."""

    line: int
    path: str  # "" when there is no separator: the label is the whole line
    label: str
    start_sec: float = 0.0
    end_sec: float = 0.0


def split_line(line: str, separator: str) -> tuple[str, str]:
    """Path and label of a line, the path empty if there is none: the label follows the *last* separator."""
    if '"' in (line[0], line[-1]) and len(separator) == 1:
        *fields, label = next(csv.reader([line], delimiter=separator))
        path = separator.join(fields)
    else:
        path, _, label = line.rpartition(separator)
    return path.strip(), label.strip(' "')


@dataclass(kw_only=True)
class ListReader:
    """Reads lists of `path<separator>label` lines, or with a header that names `columns`.

    Raises:
        DataListError: the separator is empty.
    """

    num_classes: int  # labels are 0 .. num_classes - 1
    separator: str = " "  # between path and label. The label follows the last one, so paths may contain it
    prefix: str = ""  # folder of relative paths; without one, see `base_folder`
    roots: Sequence[str] = ()  # folders that relative paths may belong to
    multi_label: bool = False  # a label is several numbers with commas or semicolons between them
    label_names: Mapping[str, int] = field(default_factory=dict)  # names that may stand for labels
    frame_fps: float = 0.0  # of frame folders; 0 when unknown
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)  # path, label, start, end: see `Table`
    join: Callable[[str, str], str] = os.path.join  # with `columns`: folder, path in the list -> the path to open

    def __post_init__(self) -> None:
        if not self.separator:
            raise DataListError("DATA.PATH_LABEL_SEPARATOR is empty: give what stands between path and label")
        self.separator = "\t" if self.separator == r"\t" else self.separator

    def read(self, path: str) -> VideoList:
        """The records of the list `path`.

        Raises:
            DataListError: with every problem of the list, each with file and line.
        """
        table = Table(path, self.columns, optional=("start", "end"))
        rows, warnings = (self._named_rows(table), []) if table.header else self._plain_rows(table)
        paths, join = [row.path for row in rows], self.join if table.header else os.path.join
        base, doubts = base_folder(paths, list_path=path, prefix=self.prefix, roots=self.roots, join=join)
        if not table.header:
            self._check_columns(table, rows, base)
        found = self._records(table, [row._replace(path=row.path and join(base, row.path)) for row in rows])
        return replace(found, warnings=warnings + doubts + found.warnings)

    def _named_rows(self, table: Table) -> list[Row]:
        """The rows of a table with a header; a part of a video is `start` to `end`, in seconds."""
        rows = []
        for line, (path, label, start, end) in table.rows():
            try:
                start_sec, end_sec = float(start or 0), float(end or 0)
                if start_sec < 0 or (end_sec and end_sec <= start_sec):
                    raise ValueError(f"from {start_sec} to {end_sec} seconds is no part of a video")
                rows.append(Row(line, path, label, start_sec, end_sec))
            except ValueError as error:
                table.report(str(error))
        return rows

    def _plain_rows(self, table: Table) -> tuple[list[Row], list[str]]:
        """The rows of other lists, and a warning if the first line is skipped as a header.

        Raises:
            DataListError: another separator fits, or the header has not two columns or no line below it.
        """
        lines = [*table.lines]
        sample = lines[1:21] or lines  # without what may be a header
        if not all(self._fits(text, self.separator) for _, text in sample):
            for other, typed in SEPARATORS.items():
                if all(self._fits(text, other) for _, text in sample):
                    raise DataListError(
                        f"{table.file}:{sample[0][0]}: {self.separator!r} does not split {sample[0][1]!r} into path "
                        f"and label, but {other!r} does. Add: DATA.PATH_LABEL_SEPARATOR {typed}"
                    )
        line, first = lines[0]
        names = [text.strip(' "') for text in first.split(self.separator)]
        are_words = len(names) > 1 and all(re.fullmatch(r"[^\W\d][\w ()-]*", name) for name in names)
        if not are_words or self._fits(first, self.separator):
            return [Row(line, *split_line(text, self.separator)) for line, text in lines], []
        if len(names) > 2:
            raise DataListError(f"{table.file}:{line}: columns {', '.join(names)}: keep two, path and label")
        if len(lines) == 1:
            raise DataListError(f"{table.path} has a header but no videos")
        rows = [Row(line, *split_line(text, self.separator)) for line, text in lines[1:]]
        return rows, [f"{table.file}:{line}: skipped as a header: {first!r}"]

    def _check_columns(self, table: Table, rows: Sequence[Row], base: str) -> None:
        """Add a problem if paths end with a number that seems to be a label or another column."""
        number_at_end = re.compile(re.escape(self.separator) + r"-?\d+(\.\d+)?$")
        odd = [row for row in rows if number_at_end.search(row.path)]
        commas = self.multi_label and self.separator == ","
        if odd and (commas or len(odd) == len(rows)) and not os.path.exists(os.path.join(base, odd[0].path)):
            advice = "several labels? put ; between them" if commas else "three columns? keep two, path and label"
            line = f"{odd[0].path}{self.separator}{odd[0].label}"
            table.problems.append(f"{table.file}:{odd[0].line}: {advice}: {line!r}")

    def _fits(self, line: str, separator: str) -> bool:
        path, label = split_line(line, separator)
        return bool(path) and all(map(self._is_label, self._label_texts(label)))

    def _label_texts(self, text: str) -> list[str]:
        return [part.strip() for part in re.split("[,;]", text)] if self.multi_label else [text]

    def _is_label(self, text: str) -> bool:
        return text in self.label_names or re.fullmatch("-?[0-9]+", text) is not None

    def _labels(self, row: Row) -> tuple[int, ...]:
        """The labels of a row, sorted; a ValueError says what is wrong with them."""
        if not row.path:
            raise ValueError(f"no separator between path and label: {row.label[:80]!r}")
        texts = self._label_texts(row.label)
        if bad := [text for text in texts if not self._is_label(text)]:
            kind = "a whole number or a class name" if self.label_names else "a whole number"
            raise ValueError(f"label {bad[0]!r} is not {kind} ({row.path})")
        return tuple(sorted({self.label_names[text] if text in self.label_names else int(text) for text in texts}))

    def _records(self, table: Table, rows: Sequence[Row]) -> VideoList:
        """Records of rows whose paths can be opened; equal rows are kept once, those of one video joined (multi-label).

        Raises:
            DataListError: the table has problems, labels are bad, or one video has two labels.
        """
        problems, repeated, warnings = table.problems, [], []
        seen: dict[tuple[str, float, float], VideoRecord] = {}
        numbers: set[int] = set()
        for row in rows:
            source, key = f"{table.file}:{row.line}", (row.path, row.start_sec, row.end_sec)
            try:
                labels = self._labels(row)
                numbers.update(labels)
                if outside := [label for label in labels if not 0 <= label < self.num_classes]:
                    raise ValueError(f"label {outside[0]} is out of range 0..{self.num_classes - 1} ({row.path})")
            except ValueError as error:
                problems.append(f"{source}: {error}")
                continue
            label = labels if self.multi_label else labels[0]
            if (first := seen.get(key)) is None:
                frames: tuple[str, ...] = ()
                if not row.path.lower().endswith(VIDEO_EXTENSIONS) and os.path.isdir(row.path):
                    frames = list_pictures(row.path)
                    warnings += [] if frames else [f"{source}: a folder without pictures: {row.path}"]
                fps = self.frame_fps if frames else 0.0
                seen[key] = VideoRecord(row.path, label, source, frames, fps, "", row.start_sec, row.end_sec)
            elif isinstance(first.label, tuple):
                seen[key] = replace(first, label=tuple(sorted({*labels, *first.label})))
                repeated.append(f"{source}: same video as {first.source}, joined ({row.path})")
            elif first.label == label:
                repeated.append(f"{source}: same video as {first.source}, kept once ({row.path})")
            else:
                other = f"{first.source} gives the same video label {first.label}"
                problems.append(f"{source}: label {label}, but {other} ({row.path})")
        advice = ""
        if numbers and max(numbers) >= self.num_classes:
            advice = f"If the list is right, add: MODEL.NUM_CLASSES {max(numbers) + 1}"
            if min(numbers) == 1 and max(numbers) == self.num_classes:
                advice = "The labels seem to count from 1; they must count from 0."
        raise_problems(table.path, problems, advice)
        return VideoList([*seen.values()], warnings=warnings + shorten(repeated))
