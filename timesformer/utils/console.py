"""Text that fits the terminal it is printed on."""

from __future__ import annotations

import shutil
import textwrap
from typing import TextIO


def fit(text: str, stream: TextIO) -> str:
    """`text` with lines broken at words to the terminal's width; files and pipes get whole lines.

    Words longer than a line, such as paths, stay whole.
    """
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
