"""Calls a function in a process of its own, so that a call that hangs or crashes costs only that process."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import partial
from multiprocessing import spawn
from typing import Any, Generic, NamedTuple, TypeVar

from timesformer.datasets.shared_answers import SharedAnswers
from timesformer.distributed.stop import ignore_stop_signals

T = TypeVar("T")

# A fork starts in milliseconds and shares the memory of its caller; Windows has none, and on macOS libraries of the
# system may crash in it. Neither form uses multiprocessing.Process, which loader processes may not start.
START_METHOD = "fork" if hasattr(os, "fork") and sys.platform != "darwin" else "spawn"
START_LIMIT_SEC = 300.0  # for a spawned process to import its libraries and to receive the function
GRACE_SEC = 5.0  # after the time limit a process ends by itself, in case its caller is gone
LENGTH = struct.Struct("!Q")  # number of bytes of a message, sent before it


class StartError(ChildProcessError):
    """The process of a `GuardedCall` did not start: not the fault of what it was called with."""


class _Process(NamedTuple):
    """A process that answers calls, the connection to it, and the memory of its answers."""

    connection: socket.socket
    answers: SharedAnswers
    kill: Callable[[], None]
    poll: Callable[[], int | None]  # exit status, minus the number of the signal that ended it, or None: it runs


@dataclass(eq=False)
class GuardedCall(Generic[T]):
    """A function that runs in another process, one for each process that calls it.

    Raises:
        TimeoutError: a call took too long. Its process has been killed; the next call gets another one.
        ChildProcessError: the process ended, for example by a fault in a library; `StartError` if it did at its start.
    """

    function: Callable[..., T]  # arguments and results are pickled; the function too where the process is spawned
    _: KW_ONLY
    timeout_sec: float = 0.0  # of a call until its whole answer has come; the start does not count; 0: no limit
    recycle_after: int = 0  # calls after which the process is replaced by a fresh one; 0: never
    start_method: str = START_METHOD  # "fork" or "spawn"

    def __post_init__(self) -> None:
        self._process: _Process | None = None
        self._owner = self._calls = 0
        self._killed: list[Callable[[], int | None]] = []  # `poll` of processes whose end was not waited for

    def __call__(self, *arguments: Any) -> T:
        if self._owner != os.getpid():  # this process is a fork; the others are its parent's
            self._owner, self._process, self._killed = os.getpid(), None, []
        message = pickle.dumps(arguments)
        if self._process is None:
            self._calls, self._killed = 0, [poll for poll in self._killed if poll() is None]
            self._fork() if self.start_method == "fork" else self._spawn()
        assert self._process
        answers = self._process.answers
        result, error, trace = answers.loads(self._exchange(message, self.timeout_sec))
        self._calls += 1
        if self._calls == self.recycle_after:
            self.close()
        if error is not None:
            raise error from RuntimeError(f"in another process:\n{trace}")
        return result  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the process, whatever it does."""
        if self._process and self._owner == os.getpid():
            self._process.connection.close()
            self._process.kill()
            self._killed.append(self._process.poll)  # not waited for: a dead disk may hold it
        self._process = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_owner": 0, "_process": None, "_killed": []}

    def _fork(self) -> None:
        (connection, remote), answers = socket.socketpair(), SharedAnswers()
        pid = os.fork()
        if pid:
            remote.close()
            kill, poll = partial(os.kill, pid, signal.SIGKILL), partial(_exit_status, pid)
            self._process = _Process(connection, answers, kill, poll)
            return
        try:
            import torch

            connection.close()
            torch.set_num_threads(1)  # those of the caller do not exist in a fork
            _serve(remote, answers, self.function, self.timeout_sec)
        finally:
            os._exit(0)

    def _spawn(self) -> None:
        preparation = spawn.get_preparation_data("guard")  # import paths, main module, ...
        preparation["authkey"] = bytes(preparation["authkey"])
        if not os.path.exists(preparation.get("init_main_from_path", "")):  # a script from stdin
            preparation.pop("init_main_from_path", None)
        message = pickle.dumps((preparation, pickle.dumps((self.function, self.timeout_sec))))
        (connection, remote), answers = socket.socketpair(), SharedAnswers()
        remote.set_inheritable(True)
        if answers.descriptor >= 0:
            os.set_inheritable(answers.descriptor, True)
        inherited = f"{remote.fileno()}, {answers.descriptor}"
        code = f"import sys; sys.path = {sys.path}; import {__name__} as g; g.serve_spawned({inherited})"
        command, environ = [spawn.get_executable(), "-c", code], {**os.environ, "OMP_NUM_THREADS": "1"}
        with remote:
            process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, close_fds=False)
        self._process = _Process(connection, answers, process.kill, process.poll)
        try:
            self._exchange(message, START_LIMIT_SEC)
        except TimeoutError:
            raise StartError(f"its process did not start within {START_LIMIT_SEC:g} s") from None
        except ChildProcessError as error:
            raise StartError(f"{error} at its start") from None

    def _exchange(self, message: bytes, limit_sec: float) -> bytearray:
        """The answer to a message; after an error the process is gone, so that its answer is not that of the next call.

        Raises:
            TimeoutError: the answer is not complete after `limit_sec` seconds; 0: no limit.
            ChildProcessError: the process ended.
        """
        assert self._process
        connection, deadline = self._process.connection, time.monotonic() + limit_sec if limit_sec else None
        try:
            _send(connection, message, deadline)
            return _receive(connection, deadline)
        except TimeoutError:
            self.close()
            raise TimeoutError(f"no complete answer within {limit_sec:g} s") from None
        except OSError:
            raise ChildProcessError(self._ending()) from None
        except BaseException:
            self.close()
            raise

    def _ending(self) -> str:
        """How a process ended that should not have."""
        assert self._process
        poll, deadline = self._process.poll, time.monotonic() + GRACE_SEC
        while (status := poll()) is None and time.monotonic() < deadline:
            time.sleep(0.001)
        if status is None:
            self.close()
            return "its process closed the connection"
        self._process.connection.close()
        self._process = None
        signals = {-number: f"by signal {number.name}" for number in signal.Signals}
        return f"its process ended {signals.get(status, f'with status {status}')}"


def _exit_status(pid: int) -> int | None:
    with contextlib.suppress(ChildProcessError):  # another part of the program has waited for it
        ended, status = os.waitpid(pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if ended else None
    return 0


def _send(connection: socket.socket, message: bytes, deadline: float | None = None) -> None:
    """Send a message with its length before it; a TimeoutError at the deadline (of `time.monotonic`)."""
    for data in (LENGTH.pack(len(message)), message):
        connection.settimeout(_remaining(deadline))
        connection.sendall(data)


def _receive(connection: socket.socket, deadline: float | None = None, size: int | None = None) -> bytearray:
    """A whole message, or `size` bytes; a TimeoutError at the deadline, a ConnectionError if they end before."""
    if size is None:
        (size,) = LENGTH.unpack(_receive(connection, deadline, LENGTH.size))
    data, count = bytearray(size), 0
    while count < size:
        connection.settimeout(_remaining(deadline))
        if not (received := connection.recv_into(memoryview(data)[count:])):
            raise ConnectionResetError
        count += received
    return data


def _remaining(deadline: float | None) -> float | None:
    seconds = None if deadline is None else deadline - time.monotonic()
    if seconds is not None and seconds <= 0:
        raise TimeoutError
    return seconds


def serve_spawned(descriptor: int, answers: int) -> None:
    """What a spawned process does: receive the function, then answer calls until the caller is gone."""
    with socket.socket(fileno=descriptor) as connection, contextlib.suppress(ConnectionError):
        ignore_stop_signals()  # of a terminal or a cluster, meant for the run: its loader processes ignore them too
        preparation, function = pickle.loads(_receive(connection))
        spawn.prepare(preparation)
        function, timeout_sec = pickle.loads(function)
        _send(connection, b"ready")
        _serve(connection, SharedAnswers(answers), function, timeout_sec)


def _serve(connection: socket.socket, answers: SharedAnswers, function: Callable[..., Any], timeout_sec: float) -> None:
    while True:
        arguments = pickle.loads(_receive(connection))  # ends with an error when the caller is gone
        _end_after(timeout_sec + GRACE_SEC if timeout_sec else 0)
        try:
            answer = answers.dumps((function(*arguments), None, ""))
        except Exception as error:
            answer = _pickled_error(answers, error)
        _send(connection, answer)
        _end_after(0)


def _pickled_error(answers: SharedAnswers, error: Exception) -> bytes:
    trace = traceback.format_exc()
    try:
        answer = answers.dumps((None, error, trace))
        answers.loads(answer)
    except Exception:  # some exceptions do not survive it
        answer = answers.dumps((None, RuntimeError(f"{type(error).__name__}: {error}"), trace))
    return answer


def _end_after(seconds: float) -> None:
    """End this process after some seconds even if it hangs in a library; 0: no more."""
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)
    elif seconds:
        faulthandler.dump_traceback_later(seconds, exit=True, file=2)
    else:
        faulthandler.cancel_dump_traceback_later()
