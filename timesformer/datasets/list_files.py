"""List files (lines of a path and a label): finding them, reading them, telling all their faults at once."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from timesformer.datasets.records import VIDEO_EXTENSIONS, VideoList, VideoRecord, list_pictures, shorten
from timesformer.utils.errors import DataListError

SEPARATORS = {" ": "' '", ",": ",", "\t": r"'\t'", ";": "';'"}  # separator -> how it is typed in a shell


@dataclass(frozen=True)
class Row:
    """A line of a list, cut into fields but not yet checked."""

    line: int
    path: str
    label: str  # the whole line when `path` is empty, as nothing divides it
    start_sec: float = 0.0
    end_sec: float = 0.0


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
    places = [os.path.normpath(os.path.join(data_dir, folder, name)) for folder in folders for name in names]
    for place in places:
        if os.path.isfile(place):
            return place
    lists = [f for folder in folders for kind in ("csv", "json") for f in Path(data_dir, folder).glob(f"*.{kind}")]
    there = shorten(sorted(str(f.relative_to(data_dir)) for f in lists))
    raise DataListError(f"no {' or '.join(places)}; lists there: {', '.join(there) or 'none'}. {advice}")


def raise_problems(path: str, problems: Sequence[str], advice: str = "") -> None:
    """Raise one DataListError that tells all `problems` of the file, if there are any."""
    if problems:
        head = f"{len(problems)} problem{'s' * (len(problems) > 1)} in {path}:"
        raise DataListError("\n".join(["\n  ".join([head, *shorten(problems)]), *filter(None, [advice])]))


def read_lines(path: str) -> list[tuple[int, str]]:
    """Number and stripped text of every line that is neither blank nor a comment ('#').

    Raises:
        DataListError: there is no such line, or lines are not UTF-8.
    """
    lines, problems = [], []
    for number, raw in enumerate(Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            text = raw.decode("utf-8").strip()
        except UnicodeDecodeError:
            problems.append(f"{os.path.basename(path)}:{number}: not UTF-8 text: {raw[:60]!r}")
            continue
        if text and not text.startswith("#"):
            lines.append((number, text))
    raise_problems(path, problems, "Save the list as plain UTF-8 text.")
    if not lines:
        raise DataListError(f"{path} is empty: each line should be a path and a label")
    return lines


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
    sure = len(sample) == len(found[base]) == len(set().union(*found.values()))
    told = f"{os.path.basename(list_path)}: paths are relative to {base!r}, as DATA.PATH_PREFIX is not set"
    return base, [told] if base and not sure else []


def split_line(line: str, separator: str) -> tuple[str, str]:
    """Path and label of a line, the path empty if there is none: the label follows the *last* separator."""
    if '"' in (line[0], line[-1]) and len(separator) == 1:
        *fields, label = next(csv.reader([line], delimiter=separator))
        path = separator.join(fields)
    else:
        path, _, label = line.rpartition(separator)
    return path.strip(), label.strip(' "')


def parse_list(
    path: str,
    *,
    separator: str = " ",
    prefix: str = "",
    multi_label: bool = False,
    num_classes: int,
    label_names: Mapping[str, int] | None = None,
    roots: Sequence[str] = (),
    frame_fps: float = 0.0,
) -> VideoList:
    """Read a list of `path<separator>label` lines.

    Args:
        path: the list.
        separator: between path and label. The label follows the last one, so paths may contain it.
        prefix, roots: where relative paths belong, see `base_folder`.
        multi_label: a label is several numbers with commas or semicolons between them.
        num_classes: labels are 0 .. num_classes - 1.
        label_names: names that may stand for labels.
        frame_fps: frame rate of frame folders, 0 when unknown.

    Raises:
        DataListError: with every problem of the list, each with file and line.
    """
    file, names = os.path.basename(path), label_names or {}
    separator = "\t" if separator == r"\t" else separator
    if not separator:
        raise DataListError("DATA.PATH_LABEL_SEPARATOR is empty: give what stands between path and label")
    lines = read_lines(path)

    def fits(line: str, separator: str) -> bool:
        found, label = split_line(line, separator)
        return bool(found) and all(_is_label(text, names) for text in _label_texts(label, multi_label))

    sample = lines[1:21] or lines  # without what may be a header
    if not all(fits(line, separator) for _, line in sample):
        for other, typed in SEPARATORS.items():
            if all(fits(line, other) for _, line in sample):
                raise DataListError(
                    f"{file}:{sample[0][0]}: {separator!r} does not split {sample[0][1]!r} into path and "
                    f"label, but {other!r} does. Add: DATA.PATH_LABEL_SEPARATOR {typed}"
                )
    warnings, problems = [], []
    columns = [text.strip(' "') for text in lines[0][1].split(separator)]
    words = len(columns) > 1 and all(re.fullmatch(r"[^\W\d][\w ()-]*", text) for text in columns)
    if words and not fits(lines[0][1], separator):
        number, line = lines.pop(0)
        if len(columns) > 2:
            raise DataListError(f"{file}:{number}: columns {', '.join(columns)}: keep two, path and label")
        if not lines:
            raise DataListError(f"{path} has a header but no videos")
        warnings.append(f"{file}:{number}: skipped as a header: {line!r}")
    rows = [Row(number, *split_line(line, separator)) for number, line in lines]
    base, told = base_folder([row.path for row in rows], list_path=path, prefix=prefix, roots=roots)
    rows = [replace(row, path=os.path.join(base, row.path)) if row.path else row for row in rows]
    number_at_end = re.compile(re.escape(separator) + r"-?\d+(\.\d+)?$")
    odd = [row for row in rows if number_at_end.search(row.path)]
    commas = multi_label and separator == ","
    if odd and (commas or len(odd) == len(rows)) and not os.path.exists(odd[0].path):
        advice = "several labels? put ; between them" if commas else "three columns? keep two, path and label"
        problems.append(f"{file}:{odd[0].line}: {advice}: {dict(lines)[odd[0].line]!r}")
    found = build_records(
        rows,
        list_path=path,
        num_classes=num_classes,
        multi_label=multi_label,
        label_names=names,
        frame_fps=frame_fps,
        problems=problems,
    )
    return VideoList(found.records, warnings=warnings + told + found.warnings)


def _label_texts(text: str, multi_label: bool) -> list[str]:
    return [part.strip() for part in re.split("[,;]", text)] if multi_label else [text]


def _is_label(text: str, names: Mapping[str, int]) -> bool:
    return text in names or re.fullmatch("-?[0-9]+", text) is not None


def build_records(
    rows: Iterable[Row],
    *,
    list_path: str,
    num_classes: int,
    multi_label: bool = False,
    label_names: Mapping[str, int] | None = None,
    frame_fps: float = 0.0,
    problems: Iterable[str] = (),
) -> VideoList:
    """Records from rows whose paths can be opened as they are; folders are listed, equal rows kept once.

    Several rows of one video are joined when `multi_label` is set.

    Raises:
        DataListError: with `problems` and those found here: bad labels, one video with two labels.
    """
    file, names = os.path.basename(list_path), label_names or {}
    problems, repeated, warnings = [*problems], [], []
    seen: dict[tuple[str, float, float], VideoRecord] = {}
    numbers: set[int] = set()
    for row in rows:
        source = f"{file}:{row.line}"
        if not row.path:
            problems.append(f"{source}: no separator between path and label: {row.label[:80]!r}")
            continue
        texts = _label_texts(row.label, multi_label)
        bad = [text for text in texts if not _is_label(text, names)]
        if bad:
            kind = "a whole number or a class name" if names else "a whole number"
            problems.append(f"{source}: label {bad[0]!r} is not {kind} ({row.path})")
            continue
        labels = tuple(sorted({names[text] if text in names else int(text) for text in texts}))
        numbers.update(labels)
        if outside := [label for label in labels if not 0 <= label < num_classes]:
            problems.append(f"{source}: label {outside[0]} is out of range 0..{num_classes - 1} ({row.path})")
            continue
        key = (row.path, row.start_sec, row.end_sec)
        label = labels if multi_label else labels[0]
        if key not in seen:
            frames: tuple[str, ...] = ()
            if not row.path.lower().endswith(VIDEO_EXTENSIONS) and os.path.isdir(row.path):
                frames = list_pictures(row.path)
                warnings += [] if frames else [f"{source}: a folder without pictures: {row.path}"]
            fps = frame_fps if frames else 0.0
            seen[key] = VideoRecord(row.path, label, source, frames, fps, "", row.start_sec, row.end_sec)
        elif multi_label:
            seen[key] = replace(seen[key], label=tuple(sorted({*labels, *seen[key].label})))  # type: ignore[misc]
            repeated.append(f"{source}: same video as {seen[key].source}, joined ({row.path})")
        elif seen[key].label == label:
            repeated.append(f"{source}: same video as {seen[key].source}, kept once ({row.path})")
        else:
            other = f"{seen[key].source} gives the same video label {seen[key].label}"
            problems.append(f"{source}: label {label}, but {other} ({row.path})")
    advice = ""
    if numbers and max(numbers) >= num_classes:
        advice = f"If the list is right, add: MODEL.NUM_CLASSES {max(numbers) + 1}"
        if min(numbers) == 1 and max(numbers) == num_classes:
            advice = "The labels seem to count from 1; they must count from 0."
    raise_problems(list_path, problems, advice)
    return VideoList([*seen.values()], warnings=warnings + shorten(repeated))
