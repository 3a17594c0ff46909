"""What a path is that should be a file: opening a named pipe would wait for a writer without end."""

from __future__ import annotations

import os
import stat

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
