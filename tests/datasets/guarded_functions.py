"""What the tests of guarded calls run in other processes: a light module, as a spawned process imports it."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

from timesformer.datasets import guarded
from timesformer.utils.errors import VideoReadError


def double(value: Any) -> Any:
    return 2 * value


def number_of_process() -> int:
    return os.getpid()


def nap(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def fail() -> None:
    raise VideoReadError("a.mp4", "is empty")


class BadError(Exception):
    """One that cannot be unpickled."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


def fail_badly() -> None:
    raise BadError("this", "that")


def give_what_cannot_be_pickled() -> Any:
    return lambda: 0


def signal_itself(number: int) -> None:
    os.kill(os.getpid(), number)


def leave() -> None:
    os._exit(3)


def hang_up() -> None:
    """Close every connection, and live on."""
    os.closerange(3, 100)
    time.sleep(60)


def signal_itself_in_its_answer(number: int) -> bytes:
    """Send half of the answer, then the signal to itself."""

    def send_half(connection: socket.socket, message: bytes, deadline: float | None = None) -> None:
        connection.sendall(guarded.LENGTH.pack(len(message)) + message[: len(message) // 2])
        os.kill(os.getpid(), number)

    guarded._send = send_half
    return bytes(1000)


class SlowToStart:
    """A function that takes a minute to unpickle."""

    def __call__(self) -> None:
        """Never called."""

    def __reduce__(self) -> tuple[Any, ...]:
        return nap, (60,)


def call(function: Any, *arguments: Any) -> Any:
    """The result of a guarded function."""
    return function(*arguments)
