"""Files: what is no file (opening a named pipe would wait without end), and files of JSON lines."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def not_a_file(path: str | os.PathLike[str]) -> str:
    """What exists there in place of a file, such as "a named pipe, not a file"; empty for a file, or for nothing.

    The shell's own pipes (`<(command)`, /dev/stdin) count as files.
    """
    if os.fspath(path).startswith(("/dev/fd/", "/proc/self/fd/", "/dev/stdin")):
        return ""
    try:
        kind = _KINDS.get(stat.S_IFMT(os.stat(path).st_mode), "")
    except (OSError, ValueError):  # opening it will say why
        return ""
    return f"{kind}, not a file" if kind else ""


def json_lines(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The objects of a file with one in each line; [] without the file. Half a line, which a crash leaves, is none."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        rows += [row] if isinstance(row, dict) else []
    return rows


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file such that others find the former one or the whole new one, also where this process is killed."""
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
