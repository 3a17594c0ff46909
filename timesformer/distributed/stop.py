"""Signals that request a stop (a time limit, preemption, Ctrl-C): a run acts on them between two steps."""

from __future__ import annotations

import atexit
import contextlib
import functools
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from timesformer.utils.errors import Stopped

DATA_WAIT_SECONDS = 5.0  # that a process which got a signal waits for data
GRACE_SECONDS = 3.0  # after a second Ctrl-C, for the main thread to end by itself

_MEANINGS = {
    "SIGINT": "Ctrl-C",
    "SIGTERM": "SIGTERM (kill, scancel, preemption)",
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


def end_with_parent(parent: int) -> None:
    """Stop this process once `parent`, which started it, is gone: a launcher that was killed ends no rank.

    It gets SIGTERM, so that a training saves its step, and is killed if that takes more than `DATA_WAIT_SECONDS`.
    A thread looks once a second. (Linux's PR_SET_PDEATHSIG would come at the end of the thread that started this one.)
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os.write(2, f"\nerror: process {parent}, which started this one, is gone: this one ends too\n".encode())
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(DATA_WAIT_SECONDS)
        for child in multiprocessing.active_children():
            child.kill()
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

    threading.Thread(target=watch, daemon=True, name="parent").start()


class StopRequest:
    """The signal that this process received, if any: its number is in `signal`, 0 for none.

    A thread reports a signal at once, whatever the main thread computes, and ends a process that cannot come to its
    next step: one that waits for data, or after a second Ctrl-C.
    """

    def __init__(self) -> None:
        self.signal = self._interrupts = 0
        self.received = 0.0  # when, in seconds of `time.monotonic`
        self._process = os.getpid()
        self._waiting = False

    @contextlib.contextmanager
    def heard(self) -> Iterator[StopRequest]:
        """Note `STOP_SIGNALS` instead of ending at once; a second Ctrl-C is the ordinary KeyboardInterrupt."""
        if threading.current_thread() is not threading.main_thread():  # only there Python handles signals
            yield self
            return
        reading, writing = socket.socketpair()
        writing.setblocking(False)
        before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        watcher = threading.Thread(target=self._watch, args=(reading,), daemon=True, name="signals")
        watcher.start()
        try:
            with handling_stop_signals(self._note):
                yield self
        finally:
            signal.set_wakeup_fd(before)
            writing.close()  # ends the thread, after it has reported what came
            watcher.join(1.0)

    @contextlib.contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """While this lasts, a signal ends the process after `DATA_WAIT_SECONDS`."""
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False

    def is_stuck(self) -> bool:
        """Whether data did not come for `DATA_WAIT_SECONDS` after a signal."""
        return self.signal > 0 and time.monotonic() - self.received > DATA_WAIT_SECONDS

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a child that has not set its own handlers yet
            return
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            raise KeyboardInterrupt
        self.received = self.received or time.monotonic()
        self.signal = self.signal or number

    def _watch(self, signals: socket.socket) -> None:
        """Report each signal; end a process whose main thread does not come to it."""
        first = last = 0.0
        interrupts = number = 0
        signals.settimeout(0.5)
        with signals:
            while True:
                try:
                    received = signals.recv(1)
                except TimeoutError:
                    received = b"\0"
                if not received:
                    return
                now = time.monotonic()
                if (came := received[0]) in STOP_SIGNALS:
                    again = "; again: at once" if came == signal.SIGINT and not interrupts else ""
                    os.write(2, f"\n{_meaning(came)}: stopping after this step{again}\n".encode())
                    first, last, number = first or now, now, number or came
                    interrupts += came == signal.SIGINT
                # A loader with processes ends the run itself; one without may be in a library that hangs, or just slow.
                late = self._waiting and now - first > DATA_WAIT_SECONDS * (12 if self.signal else 1.6)
                if number and (late or (self._interrupts < interrupts > 1 and now - last > GRACE_SECONDS)):
                    os.write(2, f"\nstopped at once by {_meaning(number)}\n".encode())
                    for child in multiprocessing.active_children():
                        child.kill()
                    os._exit(stopped(number).exit_status)

    def votes(self) -> list[int]:
        """1 for the signal that came, in the order of `STOP_SIGNALS`; summed over processes, `chosen` reads it."""
        return [int(number == self.signal) for number in STOP_SIGNALS]


def chosen(votes: list[int]) -> int:
    """The signal that any process received, 0 for none."""
    return next((int(number) for number, count in zip(STOP_SIGNALS, votes, strict=False) if count), 0)


def stopped(number: int, message: str = "", *, alone: bool = False) -> Stopped:
    """The exception that ends a run after signal `number`; `alone`: see `Stopped`."""
    return Stopped(number, f"by {_meaning(number)}" + (f". {message}" if message else ""), alone)


def _meaning(number: int) -> str:
    return _MEANINGS[signal.Signals(number).name]
