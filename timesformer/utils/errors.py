"""Errors that a user can cause and fix. Commands print them without a traceback."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

RESTART_STATUS = 75  # exit status that requests a restart; EX_TEMPFAIL in sysexits.h


class UserError(Exception):
    """Base of all errors whose message alone says what was found, what is allowed and what to do next."""


class ConfigError(UserError):
    """One or more problems in the configuration; the message lists all of them."""


class DataListError(UserError):
    """A list of videos is missing, or has lines that cannot be used; the message names file and line."""


class VideoReadError(UserError):
    """A video cannot be read: `path` is its file or frame folder, `cause` says in one line what is wrong with it."""

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(path, cause)
        self.path, self.cause = path, cause

    def __str__(self) -> str:
        return f"{self.path}: {self.cause}"


class CheckpointError(UserError):
    """A file of weights cannot be used; the message says why and what to set."""


class DamagedFileError(CheckpointError):
    """The bytes of a file of weights are proven damaged: cut off, a wrong checksum, records that nobody writes."""


class Stopped(UserError):
    """The signal of number `signal` has ended the run between two steps; the message says where and how to resume."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(signal_number, message)
        self.signal = signal_number

    def __str__(self) -> str:
        return str(self.args[1])

    @property
    def exit_status(self) -> int:
        """`RESTART_STATUS` after SIGUSR1 or SIGUSR2, else 128 + number, as shells count."""
        restart = signal.Signals(self.signal).name in ("SIGUSR1", "SIGUSR2")
        return RESTART_STATUS if restart else 128 + self.signal


def exit_status(work: Callable[[], None]) -> int:
    """Do the work of a command; print its `UserError` to stderr, without a traceback.

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
