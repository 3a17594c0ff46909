"""List files: finding them, their rows, the folder of their paths, and all their problems in one message."""

from __future__ import annotations

import codecs
import csv
import os
import re
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from timesformer.datasets.files import list_folder
from timesformer.datasets.records import shorten
from timesformer.datasets.splits import split_of_name
from timesformer.utils.errors import DataListError
from timesformer.utils.files import not_a_file

SEPARATORS = {" ": "' '", ",": ",", "\t": r"'\t'", ";": "';'", "|": "'|'"}  # separator -> how it is typed in a shell
NOT_UTF8 = "not UTF-8 text (save the list as plain UTF-8)"
MAX_LINE = 50_000  # letters; more is no list
MAX_ALIKE = 3  # problems of one cause that are shown; more of it are counted


class Problem(NamedTuple):
    """What is wrong with one line of a list, or one file."""

    where: str
    text: str
    cause: str = ""  # equal for problems of one kind; "": the text


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
    there = ", ".join(shorten(sorted(str(f.relative_to(data_dir)) for f in lists))) or "none"
    split = split_of_name(Path(names[0]).stem)
    inside = (
        os.path.join(data_dir, folder, name) for folder in folders for name in list_folder(f"{data_dir}/{folder}")
    )
    files = (os.path.normpath(path) for path in inside if split_of_name(Path(path).stem) == split)
    if split and (other := next(filter(os.path.isfile, files), "")):
        wanted = os.path.join(os.path.dirname(other), names[0])
        advice = f"If {other} is that list, rename it: mv {shlex.quote(other)} {shlex.quote(wanted)}"
    raise DataListError(f"no {' or '.join(paths)}; lists there: {there}. {advice}")


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


class Table:
    """A text file with one row a line; blank lines and comments ('#') do not count.

    Args:
        path: UTF-8 text (UTF-16 with its mark, too) with line ends of any system.
        columns: what is needed -> the names it may have in a header, in lower case, the preferred one first.
        optional: those of `columns` that may be missing.
        hash_names: names of files and folders that start with '#': lines that start with one are no comments.
        keep_bytes: yield lines that are not UTF-8 (with surrogates), rather than report them.

    Attributes:
        header: the first line if it names any column that must be there, else "".
        lines: number and stripped text of each line below the header; to be read once.
        problems: a line for each row that cannot be used, see `raise_problems`.

    Raises:
        DataListError: the file has no line, or its header names some columns but not all.
    """

    def __init__(
        self,
        path: str,
        columns: Mapping[str, Sequence[str]] | None = None,
        *,
        optional: Collection[str] = (),
        hash_names: Collection[str] = (),
        keep_bytes: bool = False,
    ) -> None:
        self.path, self.file = path, os.path.basename(path)
        if kind := not_a_file(path):
            raise DataListError(f"{path}: a list must be a text file; this is {kind}")
        self._hash_names, self._keep_bytes = tuple(hash_names), keep_bytes
        self.problems: list[Problem] = []
        self.lines = self._read()
        first = next(self.lines, None)
        if first is None:
            raise_problems(path, self.problems)
            raise DataListError(f"{path} is empty: each line should be a path and a label")
        present = [sep for sep in SEPARATORS if sep != " " and sep in first[1]]  # names of columns may have blanks
        self.separator = max(present or [" "], key=first[1].count)
        self._names = [name.strip().lower() for name in next(csv.reader([first[1]], delimiter=self.separator))]
        wanted, self._indices, missing = columns or {}, [], []
        for column, names in wanted.items():
            self._indices.append(next((self._names.index(name) for name in names if name in self._names), None))
            missing += [column] if self._indices[-1] is None and column not in optional else []
        self.header = first[1] if len(missing) < len(wanted.keys() - optional) else ""
        if not self.header:
            self.lines = chain([first], self.lines)
        elif missing:
            raise DataListError(
                f"{path}:{first[0]}: no column for the {missing[0]} among {', '.join(self._names)}. "
                f"Call it one of: {', '.join(wanted[missing[0]])}"
            )

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Line number and the fields of `columns` in their order, "" for missing ones; only with a header."""
        for fields in csv.reader(self._texts(), delimiter=self.separator):
            if len(fields) != len(self._names):  # separators at the ends, where they are blanks, may be too many
                fields = next(csv.reader([self._text.strip()], delimiter=self.separator))
            if len(fields) == len(self._names):
                yield self._line, ["" if index is None else fields[index].strip() for index in self._indices]
            else:
                self.report(f"{len(fields)} fields where the header has {len(self._names)}")

    def report(self, cause: str) -> None:
        """Add a problem of the line that was read last."""
        self.problems.append(Problem(f"{self.file}:{self._line}", f"{cause}: {self._text.strip()[:80]!r}", cause))

    def _read(self) -> Iterator[tuple[int, str]]:
        with open(self.path, "rb") as file:
            encoding = "utf-16" if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
        with open(self.path, encoding=encoding, errors="surrogateescape") as file:
            for self._line, self._text in enumerate(file, 1):
                text = self._text.strip()
                if len(text) > MAX_LINE:
                    self.report(f"more than {MAX_LINE} letters in a line")
                elif "\0" in text or not (self._keep_bytes or is_utf8(text)):
                    self.report(NOT_UTF8)
                elif text and (text[0] != "#" or text.startswith(self._hash_names)):
                    yield self._line, text

    def _texts(self) -> Iterator[str]:
        for _ in self.lines:
            text = self._text.rstrip("\n")  # not stripped: the last fields may be empty
            if text.count('"') % 2:  # the csv reader would read on in the next line
                self.report("a quote is not closed")
            else:
                yield text


def is_utf8(text: str) -> bool:
    """Whether no byte of `text` was kept as a surrogate because it is not UTF-8."""
    return text.isascii() or not re.search("[\udc80-\udcff]", text)


def raise_problems(path: str, problems: Sequence[Problem], advice: str = "") -> None:
    """Raise one DataListError that reports all `problems` of a file, if there are any; those of one cause together."""
    groups: dict[str, list[str]] = {}
    for where, text, cause in problems:
        groups.setdefault(cause or text, []).append(f"{where}: {text}")
    lines = []
    for cause, alike in groups.items():
        if many := len(alike) > MAX_ALIKE:
            lines.append(f"{len(alike)} times: {cause}, such as")
        lines += [f"  {line}" if many else line for line in alike[:MAX_ALIKE]]
    if lines:
        head = f"{len(problems)} problem{'s' * (len(problems) > 1)} in {path}:"
        raise DataListError("\n".join(["\n  ".join([head, *shorten(lines)]), *filter(None, [advice])]))
