"""Paths as people write them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

# How to open a text file that holds names of files: what is not UTF-8 in them stays as it is on the disk.
AS_NAMED: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape"}


def user_cache() -> Path:
    """The folder in which this project keeps what it can make again: below $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "timesformer"


def expand_path(path: str) -> str:
    """`path` with `~` and `$NAME` expanded, as a shell does; as it is if something of that name exists.

    Raises:
        ValueError: the home folder or the variable is unknown.
    """
    if not re.match(r"~|.*\$", path) or os.path.lexists(path):
        return path
    expanded = os.path.expanduser(os.path.expandvars(path))
    if left := re.search(r"^~[^/\\]*|\$\w+|\${.*?}", expanded):
        raise ValueError(f"{left[0]} is not known here")
    return expanded
