"""Calls a function in a process of its own, so that a call that hangs or crashes costs that process alone."""

from __future__ import annotations

import os
import pickle
import signal
import traceback
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, Generic, NamedTuple, TypeVar

import torch

T = TypeVar("T")

SELF_DESTRUCTION_SEC = 5.0  # after the time limit a process ends by itself, in case its caller is gone


class _Process(NamedTuple):
    """A forked process: its number, and the pipe to it."""

    pid: int
    pipe: Connection


class GuardedCall(Generic[T]):
    """A function that runs in a forked process, one for each process that calls it.

    Args:
        function: what the process knows how to do; arguments and results travel as pickles.
        timeout_sec: how long a call may take; 0: for ever.
        recycle_after: calls after which the process is replaced by a fresh one; 0: never.

    Raises:
        TimeoutError: a call took too long. Its process has been killed; the next call gets another one.
        ChildProcessError: the process ended, as by a fault in a library.
    """

    def __init__(self, function: Callable[..., T], *, timeout_sec: float = 0.0, recycle_after: int = 0) -> None:
        self.function, self.timeout_sec, self.recycle_after = function, timeout_sec, recycle_after
        self._process: _Process | None = None
        self._owner = self._calls = 0
        self._ended: set[int] = set()  # numbers of processes to be forgotten by the system

    def __call__(self, *arguments: Any) -> T:
        if self._owner != os.getpid():  # this process is a fork; the others are its parent's
            self._owner, self._process, self._ended = os.getpid(), None, set()
        if self._process is None:
            self._process, self._calls = self._fork(), 0
        process = self._process
        try:
            process.pipe.send_bytes(pickle.dumps(arguments))
            if not process.pipe.poll(self.timeout_sec or None):
                self.close()
                raise TimeoutError(f"nothing came within {self.timeout_sec:g} s")
            result, error, trace = pickle.loads(process.pipe.recv_bytes())
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise ChildProcessError(self._ending(process)) from None
        self._calls += 1
        if self._calls == self.recycle_after:
            self.close()
        if error is not None:
            raise error from RuntimeError(f"in another process:\n{trace}")
        return result  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the process, whatever it does."""
        if self._process and self._owner == os.getpid():
            self._process.pipe.close()
            os.kill(self._process.pid, signal.SIGKILL)
            self._ended.add(self._process.pid)  # not waited for: a dead disk may hold it
        self._process = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_owner": 0, "_process": None}

    def _fork(self) -> _Process:
        self._ended = {pid for pid in self._ended if os.waitpid(pid, os.WNOHANG) == (0, 0)}
        here, there = Pipe()
        pid = os.fork()
        if pid:
            there.close()
            return _Process(pid, here)
        try:
            here.close()
            torch.set_num_threads(1)  # those of the caller do not live on in a fork
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            self._serve(there)
        finally:
            os._exit(0)

    def _serve(self, pipe: Connection) -> None:
        while True:
            arguments = pickle.loads(pipe.recv_bytes())  # ends with an error when the caller is gone
            if self.timeout_sec:
                signal.setitimer(signal.ITIMER_REAL, self.timeout_sec + SELF_DESTRUCTION_SEC)
            try:
                answer: tuple[Any, ...] = (self.function(*arguments), None, "")
            except Exception as error:
                answer = (None, error, traceback.format_exc())
            signal.setitimer(signal.ITIMER_REAL, 0)
            pipe.send_bytes(pickle.dumps(answer, protocol=5))

    def _ending(self, process: _Process) -> str:
        """How a process ended that should not have."""
        process.pipe.close()
        self._process = None
        status = os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1])
        how = f"by signal {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        return f"its process ended {how}"
