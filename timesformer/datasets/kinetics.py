"""Kinetics and everything listed like it (K400, K600, UCF, HMDB, your own): `train.csv val.csv test.csv`."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

from fvcore.common.config import CfgNode

from timesformer.datasets.files import LeftOut, RealPaths, is_system_file, is_video, list_folder, list_pictures
from timesformer.datasets.list_files import (
    NOT_UTF8,
    SEPARATORS,
    Problem,
    Table,
    base_folder,
    find_list,
    is_utf8,
    raise_problems,
)
from timesformer.datasets.records import VideoList, VideoRecord, load_class_names, shorten
from timesformer.utils.errors import DataListError
from timesformer.utils.registry import DATASETS

ADVICE = {
    "train": "Write one `path label` a line (timesformer/datasets/DATASET.md).",
    "val": "Hold a part of the training videos out for it (timesformer/datasets/DATASET.md).",
    "test": "To test on the validation list, add: TEST.SPLIT val",
}
MOST_CLASSES = 10**6  # as MODEL.NUM_CLASSES allows


class Row(NamedTuple):
    """A line of a list, cut into fields but not yet checked."""

    line: int
    path: str  # "" when there is no separator: the label is the whole line
    label: str
    start_sec: float = 0.0
    end_sec: float = 0.0
    fps: float = 0.0  # of a frame folder when known
    subject: str = ""
    scene: str = ""


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
    num_classes: int | str  # labels are 0 .. num_classes - 1; auto: any
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
        bases = (self.prefix or "", os.path.dirname(path), self.data_dir)
        hash_names = {name for base in bases for name in list_folder(base) if name[0] == "#"}
        table = Table(path, self.columns, optional=("start", "end"), hash_names=hash_names, keep_bytes=True)
        known = self.label_names(names)
        rows, warnings = (_named_rows(table), []) if table.header else self._plain_rows(table, separator, known)
        paths, join = [row.path for row in rows], self.locate if table.header else os.path.join
        base, doubts = base_folder(paths, list_path=path, prefix=self.prefix, roots=[self.data_dir], join=join)
        if not table.header:
            self._check_columns(table, rows, separator, base)
        rows = [row._replace(path=row.path and join(base, row.path)) for row in rows]
        found = self._records(path, table.problems, rows, known)
        return VideoList(found.records, [*names], warnings + doubts + found.warnings)

    def _plain_rows(self, table: Table, separator: str, known: Mapping[str, int]) -> tuple[list[Row], list[str]]:
        """The rows of a list without `columns`, and a warning if its first line is skipped as a header.

        Raises:
            DataListError: another separator fits, or the header has not two columns or no line below it.
        """

        def fits(line: str, separator: str, named: bool = False) -> bool:
            path, label = split_line(line, separator)
            if named and label and not is_video(label):  # labels may be names, where the path is known by its ending
                return is_video(path)
            return bool(path) and all(_is_label(text, known) for text in self._label_texts(label))

        lines = [*table.lines]
        sample = lines[1:21] or lines  # without what may be a header
        in_doubt = not all(is_video(split_line(text, separator)[0]) for _, text in sample)  # else labels may be wrong
        for named in (False, True) if in_doubt else ():
            share = {sep: sum(fits(text, sep, named) for _, text in sample) for sep in (separator, *SEPARATORS)}
            other = max(share, key=lambda sep: share[sep])
            if (
                share[other] == len(sample) > share[separator]
                or share[other] > 0.9 * len(sample) > 9 * share[separator]
            ):
                raise DataListError(
                    f"{table.file}:{sample[0][0]}: {separator!r} does not split {sample[0][1]!r} into path "
                    f"and label, but {other!r} does. Add: DATA.PATH_LABEL_SEPARATOR {SEPARATORS[other]}"
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
            table.problems.append(Problem(f"{table.file}:{odd[0].line}", f"{advice}: {line!r}"))

    @property
    def _end(self) -> int:
        """The first number that is no label."""
        return MOST_CLASSES if isinstance(self.num_classes, str) else self.num_classes

    def _label_texts(self, text: str) -> list[str]:
        return [part.strip() for part in re.split("[,;]", text)] if self.multi_label else [text]

    def _labels(self, row: Row, known: Mapping[str, int]) -> tuple[int, ...]:
        """The labels of a row, sorted; a ValueError says what is wrong with them, and the cause without details."""
        if not is_utf8(row.path) and not os.path.lexists(row.path):
            raise ValueError(f"{NOT_UTF8}: {row.path[:80]!r}", NOT_UTF8)
        if not row.path:
            cause = "no separator between path and label"
            raise ValueError(f"{cause}: {row.label[:80]!r}", cause)
        texts = self._label_texts(row.label)
        if bad := [text for text in texts if not _is_label(text, known)]:
            kind = "a whole number or a class name" if known else "a whole number"
            raise ValueError(f"label {bad[0][:80]!r} is not {kind} ({row.path})", f"a label is not {kind}")
        labels = tuple(sorted({known[text] if text in known else int(text) for text in texts}))
        if outside := [label for label in labels if not 0 <= label < self._end]:
            allowed = f"out of range 0..{self._end - 1}"
            raise ValueError(f"label {outside[0]} is {allowed} ({row.path})", f"a label is {allowed}", max(labels))
        return labels

    def _records(
        self, path: str, problems: Sequence[Problem], rows: Sequence[Row], known: Mapping[str, int]
    ) -> VideoList:
        """Records of rows whose paths can be opened; equal rows are kept once, those of one video joined (multi-label).

        Raises:
            DataListError: the list `path` has `problems`, labels are bad, or one video has two labels.
        """
        file, problems, repeated, left_out, warnings = os.path.basename(path), [*problems], [], LeftOut(), []
        seen: dict[tuple[str, float, float], VideoRecord] = {}
        real_path = RealPaths()
        numbers: set[int] = set()
        for row in rows:
            source, key = f"{file}:{row.line}", (real_path(row.path), row.start_sec, row.end_sec)
            if is_system_file(row.path):
                left_out.add("rows of hidden or system files", os.path.basename(row.path))
                continue
            try:
                labels = self._labels(row, known)
                frames: tuple[str, ...] = ()
                if key not in seen and not is_video(row.path) and os.path.isdir(row.path):
                    frames = list_pictures(row.path, left_out)
                    warnings += [] if frames else [f"{source}: a folder without pictures: {row.path}"]
            except ValueError as error:
                text, *details = error.args
                numbers.update(details[1:])
                problems.append(Problem(source, text, *details[:1]))
                continue
            numbers.update(labels)
            label = labels if self.multi_label else labels[0]
            if (first := seen.get(key)) is None:
                fps = (row.fps or self.frame_fps) if frames else 0.0
                part = row.start_sec, row.end_sec
                seen[key] = VideoRecord(row.path, label, source, frames, fps, row.subject, *part, row.scene)
                continue
            paths = row.path if row.path == first.path else f"{row.path}, {first.path}"
            if isinstance(first.label, tuple):
                seen[key] = replace(first, label=tuple(sorted({*labels, *first.label})))
                repeated.append(f"{source}: same video as {first.source}, joined ({paths})")
            elif first.label == label:
                repeated.append(f"{source}: same video as {first.source}, kept once ({paths})")
            else:
                text = f"label {label}, but {first.source} gives the same video label {first.label} ({paths})"
                problems.append(Problem(source, text, "one video has two labels"))
        advice = _label_advice([row for row in rows if row.path], known, self.num_classes)
        if numbers and max(numbers) >= self._end:
            advice = f"If the list is right, add: MODEL.NUM_CLASSES {max(numbers) + 1}"
            if min(numbers) == 1 and max(numbers) == self.num_classes:
                advice = "The labels seem to count from 1; they must count from 0."
        raise_problems(path, problems, advice)
        if not seen:
            raise DataListError(f"{path}: no row is left. {' '.join(left_out.lines(file))}")
        return VideoList([*seen.values()], warnings=warnings + shorten(repeated) + left_out.lines(file))


def _label_advice(rows: Sequence[Row], known: Mapping[str, int], num_classes: int | str) -> str:
    """What mends labels that are mostly wrong for one reason."""
    bad = [row for row in rows if not _is_label(row.label, known)]
    if 2 * len(bad) <= len(rows):
        return ""
    names = sorted({row.label for row in bad})

    def most(fits: Callable[[str], object]) -> bool:
        return sum(bool(fits(row.label)) for row in bad) > 0.9 * len(bad)

    if most(is_video):
        return "The columns seem to be swapped: each line should be a path, then its label."
    if most(lambda label: re.fullmatch(r"-?\d+\.0*", label)):
        return f"Labels are whole numbers: write {names[0].partition('.')[0]}, not {names[0]}."
    if most(lambda label: re.fullmatch("['`\u2018\u2019\u201c].*['`\u2019\u201d]", label)):
        return f"Only double quotes can stand around a label or a path, or none, found {names[0]}."
    if most(lambda label: re.fullmatch(r"\d+([,;]\s*\d+)*", label)):
        return "If videos have several labels, add: DATA.MULTI_LABEL True MODEL.LOSS_FUNC bce_logit"
    if known or not most(lambda label: re.search(r"[^\W\d]", label)):
        return ""
    count = f" MODEL.NUM_CLASSES {len(names)}" if num_classes not in ("auto", len(names)) else ""
    shown = ", ".join(shorten(names, 10))
    return (
        f"The labels are {len(names)} names ({shown}). Write the names into a text file, one a line, in the order of "
        f"their labels, and add: DATA.CLASS_NAMES_PATH FILE{count}"
    )


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
