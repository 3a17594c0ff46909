"""Signals that ask a run to stop: a time limit, preemption, Ctrl-C. They are heard between two steps."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from timesformer.utils.errors import Stopped
from timesformer.utils.signals import STOP_SIGNALS, handling_stop_signals

_MEANING = {
    signal.SIGINT: "Ctrl-C",
    signal.SIGTERM: "SIGTERM (scancel, preemption)",
    signal.SIGUSR1: "SIGUSR1 (a time limit or preemption)",
    signal.SIGUSR2: "SIGUSR2 (a time limit or preemption)",
}


class StopRequest:
    """The signal that this process got, if any.

    Attributes:
        signal: its number; 0 for none.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._interrupts = 0
        self._process = os.getpid()

    @contextlib.contextmanager
    def heard(self) -> Iterator[StopRequest]:
        """Take note of `STOP_SIGNALS` instead of dying of them; a second Ctrl-C is the ordinary KeyboardInterrupt."""
        if threading.current_thread() is not threading.main_thread():  # only there Python hears signals
            yield self
            return
        with handling_stop_signals(self._note):
            yield self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a child that has not set its own handlers yet
            return
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            raise KeyboardInterrupt
        again = "; again: at once" if number == signal.SIGINT else ""
        os.write(2, f"\n{_MEANING[signal.Signals(number)]}: stopping after this step{again}\n".encode())
        self.signal = self.signal or number

    def votes(self) -> list[int]:
        """1 for the signal that came, in the order of `STOP_SIGNALS`; summed over processes, `chosen` reads it."""
        return [int(number == self.signal) for number in STOP_SIGNALS]


def chosen(votes: list[int]) -> int:
    """The signal that any process got, 0 for none."""
    return next((int(number) for number, count in zip(STOP_SIGNALS, votes, strict=False) if count), 0)


def stopped(number: int, told: str = "") -> Stopped:
    """The exception that ends a run after signal `number`."""
    return Stopped(number, f"by {_MEANING[signal.Signals(number)]}" + (f". {told}" if told else ""))
