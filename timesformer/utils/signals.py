"""The signals that ask a run to stop, and what worker processes do about them."""

from __future__ import annotations

import atexit
import contextlib
import functools
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from types import FrameType

# Those that ask a run to stop; which counts when several came.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


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
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would report the death of a worker
        for child in multiprocessing.active_children():
            child.kill()

    atexit.register(kill)
