"""Passes the results of one process to another: arrays through memory that both map, the rest as a message.

The memory is a Linux memfd. It has no name and takes nothing of /dev/shm, so a container's small /dev/shm does not
limit it, and the system frees it with its two processes, however they end. Other systems send arrays in the message.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import pickle
from typing import Any

import numpy as np


class SharedAnswers:
    """One process's side of the memory. Pass `descriptor` to the other process, which makes its side of it."""

    def __init__(self, descriptor: int | None = None) -> None:
        """Map the memory behind `descriptor`, -1 where there is none; without `descriptor`, new memory."""
        if descriptor is None:
            descriptor = os.memfd_create("timesformer-clips") if hasattr(os, "memfd_create") else -1
        self._file = io.FileIO(descriptor, "r+") if descriptor >= 0 else None  # closes it at the end
        self._mapped: np.ndarray = np.empty(0, np.uint8)

    @property
    def descriptor(self) -> int:
        """Of the memory in this process; -1: none."""
        return self._file.fileno() if self._file else -1

    def dumps(self, answer: Any) -> bytes:
        """Pickle `answer`, and write its arrays over those of the last answer."""
        arrays: list[pickle.PickleBuffer] = []
        if self._file:
            body = pickle.dumps(answer, protocol=5, buffer_callback=arrays.append)
            pieces = [np.frombuffer(array.raw(), np.uint8) for array in arrays]
            sizes = [piece.nbytes for piece in pieces]
            with contextlib.suppress(OSError):  # no memory is left: as a message it may still come through
                if pieces:
                    np.concatenate(pieces, out=self._memory(sum(sizes)))
                return pickle.dumps((sizes, body))
        return pickle.dumps(([], pickle.dumps(answer, protocol=5)))

    def loads(self, message: bytes | bytearray) -> Any:
        """The answer, whose arrays are this process's own."""
        sizes, body = pickle.loads(message)
        pieces = np.split(self._memory(sum(sizes)), np.cumsum(sizes)[:-1]) if sizes else []
        return pickle.loads(body, buffers=[piece.copy() for piece in pieces])

    def _memory(self, size: int) -> np.ndarray:
        """The first `size` bytes; the memory grows to the largest answer.

        Raises:
            OSError: there is no memory left. (Writing into pages that cannot be had would end the process.)
        """
        assert self._file
        if len(self._mapped) < size:
            if os.fstat(self.descriptor).st_size < size:
                os.posix_fallocate(self.descriptor, 0, size)
            self._mapped = np.frombuffer(mmap.mmap(self.descriptor, 0), np.uint8)
        return self._mapped[:size]
