"""Text for the terminal: lines that fit it, tables in columns, numbers with nouns."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from typing import TextIO


def fit(text: str, stream: TextIO) -> str:
    """`text` with lines broken at words to the terminal's width; files and pipes get whole lines.

    Words longer than a line, such as paths, stay whole; letters that the stream does not take are escaped.
    """
    encoding = getattr(stream, "encoding", None) or "utf-8"
    text = text.encode(encoding, "backslashreplace").decode(encoding)
    if not stream.isatty():
        return text
    width = shutil.get_terminal_size().columns
    return "\n".join(part for line in text.split("\n") for part in _broken(line, width))


def _broken(line: str, width: int) -> list[str]:
    if len(line) <= width:
        return [line]
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.wrap(
        line,
        width,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
        replace_whitespace=False,
    )


def printable(name: str) -> str:
    """The name of a file as text for any file, terminal or picture: bytes that are not UTF-8 are escaped."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows in aligned columns, with a line of dashes below the first row, the header."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = [rows[0], ["-" * width for width in widths], *rows[1:]]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def count(number: object, noun: str) -> str:
    """A number with its noun: "1 step", "2 steps"."""
    return f"{number} {noun}{'' if str(number) == '1' else 'es' if noun.endswith('s') else 's'}"
