"""Kinetics and everything listed like it (K400, K600, UCF, HMDB, your own): `train.csv val.csv test.csv`."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

from fvcore.common.config import CfgNode

from timesformer.datasets.list_files import SEPARATORS, Table, base_folder, find_list, raise_problems
from timesformer.datasets.records import (
    VIDEO_EXTENSIONS,
    VideoList,
    VideoRecord,
    list_pictures,
    load_class_names,
    shorten,
)
from timesformer.utils.errors import DataListError
from timesformer.utils.registry import DATASETS

ADVICE = {
    "train": "Write one `path label` a line (timesformer/datasets/DATASET.md).",
    "val": "Hold a part of the training videos out for it (timesformer/datasets/DATASET.md).",
    "test": "To test on the validation list, add: TEST.SPLIT val",
}


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


@DATASETS.register("kinetics")
@dataclass(kw_only=True)
class Kinetics:
    """Lists `data_dir/{train,val,test}.csv` (or below `metadata/`) of `path<separator>label` lines."""

    data_dir: str
    split: str
    num_classes: int  # labels are 0 .. num_classes - 1
    prefix: str = ""  # folder of relative paths; without one, see `base_folder`
    separator: str = " "  # between path and label. The label follows the last one, so paths may contain it
    multi_label: bool = False  # a label is several numbers with commas or semicolons between them
    class_names_path: str = ""  # file of class names, which may stand for labels

    folders: ClassVar[Sequence[str]] = (".", "metadata")  # of the lists
    frame_fps: ClassVar[float] = 0.0  # of frame folders; 0 when unknown
    columns: ClassVar[Mapping[str, Sequence[str]]] = {}  # of lists with a header: path, label, start, end (see `Table`)

    @classmethod
    def from_config(cls, cfg: CfgNode, split: str) -> Kinetics:
        """The split that `cfg` describes."""
        return cls(
            data_dir=cfg.DATA.PATH_TO_DATA_DIR,
            split=split,
            num_classes=cfg.MODEL.NUM_CLASSES,
            prefix=cfg.DATA.PATH_PREFIX,
            separator=cfg.DATA.PATH_LABEL_SEPARATOR,
            multi_label=cfg.DATA.MULTI_LABEL,
            class_names_path=cfg.DATA.CLASS_NAMES_PATH,
        )

    def load(self) -> VideoList:
        """Read the list.

        Raises:
            DataListError: it is missing or has lines that cannot be used.
        """
        path = find_list(self.data_dir, [f"{self.split}.csv"], folders=self.folders, advice=ADVICE[self.split])
        return self.read(path, self.class_names())

    def class_names(self) -> list[str]:
        """Class names, [] when unknown."""
        return load_class_names(self.class_names_path, self.num_classes) if self.class_names_path else []

    def label_names(self, names: Sequence[str]) -> dict[str, int]:
        """What may stand for a label in a list."""
        return {name: label for label, name in enumerate(names)}

    def locate(self, folder: str, path: str) -> str:
        """The path to open for `path` in a list with `columns`, which is relative to `folder`."""
        return os.path.join(folder, path)

    def read(self, path: str, names: Sequence[str] = ()) -> VideoList:
        """The records of the list `path`; `names` are the class names.

        Raises:
            DataListError: with every problem of the list, each with file and line.
        """
        separator = "\t" if self.separator == r"\t" else self.separator
        if not separator:
            raise DataListError("DATA.PATH_LABEL_SEPARATOR is empty: give what stands between path and label")
        table, known = Table(path, self.columns, optional=("start", "end")), self.label_names(names)
        rows, warnings = (_named_rows(table), []) if table.header else self._plain_rows(table, separator, known)
        paths, join = [row.path for row in rows], self.locate if table.header else os.path.join
        base, doubts = base_folder(paths, list_path=path, prefix=self.prefix, roots=[self.data_dir], join=join)
        if not table.header:
            self._check_columns(table, rows, separator, base)
        rows = [row._replace(path=row.path and join(base, row.path)) for row in rows]
        found = self._records(table, rows, known)
        return VideoList(found.records, [*names], warnings + doubts + found.warnings)

    def _plain_rows(self, table: Table, separator: str, known: Mapping[str, int]) -> tuple[list[Row], list[str]]:
        """The rows of a list without `columns`, and a warning if its first line is skipped as a header.

        Raises:
            DataListError: another separator fits, or the header has not two columns or no line below it.
        """

        def fits(line: str, separator: str) -> bool:
            path, label = split_line(line, separator)
            return bool(path) and all(_is_label(text, known) for text in self._label_texts(label))

        lines = [*table.lines]
        sample = lines[1:21] or lines  # without what may be a header
        if not all(fits(text, separator) for _, text in sample):
            for other, typed in SEPARATORS.items():
                if all(fits(text, other) for _, text in sample):
                    raise DataListError(
                        f"{table.file}:{sample[0][0]}: {separator!r} does not split {sample[0][1]!r} into path "
                        f"and label, but {other!r} does. Add: DATA.PATH_LABEL_SEPARATOR {typed}"
                    )
        line, first = lines[0]
        names = [text.strip(' "') for text in first.split(separator)]
        are_words = len(names) > 1 and all(re.fullmatch(r"[^\W\d][\w ()-]*", name) for name in names)
        warnings = []
        if are_words and not fits(first, separator):
            if len(names) > 2:
                raise DataListError(f"{table.file}:{line}: columns {', '.join(names)}: keep two, path and label")
            if len(lines) == 1:
                raise DataListError(f"{table.path} has a header but no videos")
            warnings = [f"{table.file}:{line}: skipped as a header: {first!r}"]
            del lines[0]
        return [Row(line, *split_line(text, separator)) for line, text in lines], warnings

    def _check_columns(self, table: Table, rows: Sequence[Row], separator: str, base: str) -> None:
        """Add a problem if paths end with a number that seems to be a label or another column."""
        number_at_end = re.compile(re.escape(separator) + r"-?\d+(\.\d+)?$")
        odd = [row for row in rows if number_at_end.search(row.path)]
        commas = self.multi_label and separator == ","
        if odd and (commas or len(odd) == len(rows)) and not os.path.exists(os.path.join(base, odd[0].path)):
            advice = "several labels? put ; between them" if commas else "three columns? keep two, path and label"
            line = f"{odd[0].path}{separator}{odd[0].label}"
            table.problems.append(f"{table.file}:{odd[0].line}: {advice}: {line!r}")

    def _label_texts(self, text: str) -> list[str]:
        return [part.strip() for part in re.split("[,;]", text)] if self.multi_label else [text]

    def _labels(self, row: Row, known: Mapping[str, int]) -> tuple[int, ...]:
        """The labels of a row, sorted; a ValueError says what is wrong with them."""
        if not row.path:
            raise ValueError(f"no separator between path and label: {row.label[:80]!r}")
        texts = self._label_texts(row.label)
        if bad := [text for text in texts if not _is_label(text, known)]:
            kind = "a whole number or a class name" if known else "a whole number"
            raise ValueError(f"label {bad[0]!r} is not {kind} ({row.path})")
        return tuple(sorted({known[text] if text in known else int(text) for text in texts}))

    def _records(self, table: Table, rows: Sequence[Row], known: Mapping[str, int]) -> VideoList:
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
                labels = self._labels(row, known)
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


def _named_rows(table: Table) -> list[Row]:
    """The rows of a table with a header; a part of a video is `start` to `end`, in seconds."""
    rows = []
    for line, (path, label, start, end) in table.rows():
        try:
            start_sec, end_sec = float(start or 0), float(end or 0)
            if not path:
                raise ValueError("no path")
            if start_sec < 0 or (end_sec and end_sec <= start_sec):
                raise ValueError(f"from {start_sec} to {end_sec} seconds is no part of a video")
            rows.append(Row(line, path, label, start_sec, end_sec))
        except ValueError as error:
            table.report(str(error))
    return rows


def _is_label(text: str, known: Mapping[str, int]) -> bool:
    return text in known or re.fullmatch("-?[0-9]+", text) is not None
