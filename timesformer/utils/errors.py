"""Errors that a user can cause and mend. Tools print them without a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable


class UserError(Exception):
    """Base of all errors whose message alone says what was found, what is allowed and what to do next."""


class ConfigError(UserError):
    """One or more problems in the configuration; the message lists all of them."""


class DataListError(UserError):
    """A list of videos is missing, or has lines that cannot be used; the message names file and line."""


class VideoReadError(UserError):
    """A video could not be read.

    Attributes:
        path: the file or frame folder.
        cause: what is wrong with it, in one line.
    """

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(path, cause)
        self.path = path
        self.cause = cause

    def __str__(self) -> str:
        return f"{self.path}: {self.cause}"


class CheckpointError(UserError):
    """A file of weights cannot be used; the message says why and what to set."""


def exit_status(work: Callable[[], None]) -> int:
    """Do the work of a command-line tool: 0, or 1 after a `UserError` (its message on stderr), or 130 after Ctrl-C."""
    try:
        work()
    except UserError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    return 0
