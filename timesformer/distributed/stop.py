"""Signals that request a stop (a time limit, preemption, Ctrl-C): a run acts on them between two steps."""

from __future__ import annotations

import atexit
import contextlib
import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from timesformer.utils.errors import Stopped

_MEANINGS = {
    "SIGINT": "Ctrl-C",
    "SIGTERM": "SIGTERM (scancel, preemption)",
    "SIGUSR1": "SIGUSR1 (a time limit or preemption)",
    "SIGUSR2": "SIGUSR2 (a time limit or preemption)",
}
# Those that this system has; of several that came, the first in this order counts.
STOP_SIGNALS = tuple(getattr(signal, name) for name in _MEANINGS if hasattr(signal, name))


@contextlib.contextmanager
def handling_stop_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """`STOP_SIGNALS` go to `handler`, afterwards where they went before."""
    before = {number: signal.signal(number, handler) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def ignore_stop_signals(_worker: int = 0) -> None:
    """Let a loader process live on until its training process ends it: a cluster signals all processes of a job."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@functools.cache
def kill_children_at_exit() -> None:
    """End children that are left when this process ends: those that ignore SIGTERM would keep it waiting."""

    def kill() -> None:
        if hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would report the death of a worker
        for child in multiprocessing.active_children():
            child.kill()

    atexit.register(kill)


class StopRequest:
    """The signal that this process received, if any: its number is in `signal`, 0 for none."""

    def __init__(self) -> None:
        self.signal = self._interrupts = 0
        self._process = os.getpid()

    @contextlib.contextmanager
    def heard(self) -> Iterator[StopRequest]:
        """Note `STOP_SIGNALS` instead of ending at once; a second Ctrl-C is the ordinary KeyboardInterrupt."""
        in_main_thread = threading.current_thread() is threading.main_thread()  # only there Python handles signals
        with handling_stop_signals(self._note) if in_main_thread else contextlib.nullcontext():
            yield self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a child that has not set its own handlers yet
            return
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            raise KeyboardInterrupt
        again = "; again: at once" if number == signal.SIGINT else ""
        os.write(2, f"\n{_meaning(number)}: stopping after this step{again}\n".encode())
        self.signal = self.signal or number

    def votes(self) -> list[int]:
        """1 for the signal that came, in the order of `STOP_SIGNALS`; summed over processes, `chosen` reads it."""
        return [int(number == self.signal) for number in STOP_SIGNALS]


def chosen(votes: list[int]) -> int:
    """The signal that any process received, 0 for none."""
    return next((int(number) for number, count in zip(STOP_SIGNALS, votes, strict=False) if count), 0)


def stopped(number: int, message: str = "") -> Stopped:
    """The exception that ends a run after signal `number`."""
    return Stopped(number, f"by {_meaning(number)}" + (f". {message}" if message else ""))


def _meaning(number: int) -> str:
    return _MEANINGS[signal.Signals(number).name]
