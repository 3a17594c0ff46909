"""Errors that a user can cause and mend. Tools print them without a traceback."""

from __future__ import annotations

import signal
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


class Stopped(UserError):
    """A signal has ended the run between two steps; the message says where and how to go on.

    Attributes:
        signal: number of the signal.
    """

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.signal = signal_number

    def __reduce__(self) -> tuple[type[Stopped], tuple[int, str]]:
        return Stopped, (self.signal, str(self))

    @property
    def exit_status(self) -> int:
        """After SIGUSR1 or SIGUSR2 75 (EX_TEMPFAIL: start me again), else 128 + number, as shells count."""
        return 75 if self.signal in (signal.SIGUSR1, signal.SIGUSR2) else 128 + self.signal


def exit_status(work: Callable[[], None]) -> int:
    """Do the work of a command-line tool; tell its `UserError`s on stderr, without a traceback.

    Returns:
        0; 1 after a `UserError`; 130 after Ctrl-C; that of `Stopped`.
    """
    try:
        work()
    except Stopped as stopped:
        print(f"\nstopped: {stopped}", file=sys.stderr)
        return stopped.exit_status
    except UserError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    return 0
