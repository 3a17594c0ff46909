"""Records a stream while it comes, as mp4."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from timesformer.utils.errors import UserError
from timesformer.video.encode import write

MAX_WAITING = 16  # frames that are not encoded yet
RATES = (1.0, 60.0)  # that are taken as a source states them; else 30


class Recorder:
    """Encodes frames in a thread of its own, at a constant rate: each moment shows the frame that is nearest before."""

    def __init__(self, path: Path, fps: float, *, waits: bool) -> None:
        """Begin the file.

        Args:
            path: ends in .mp4; its folder is made, and it is complete after `close` only.
            fps: of the file; about that of the stream.
            waits: hold the stream up when the encoder is behind; else leave frames out.

        Raises:
            UserError: it cannot be written.
        """
        if path.suffix.lower() != ".mp4":
            raise UserError(f"{path}: name a file that ends in .mp4")
        self._path, self._waits = path, waits
        self._fps = fps if RATES[0] <= fps <= RATES[1] else 30.0
        self._error: OSError | None = None
        self._waiting: queue.Queue[tuple[float, np.ndarray] | None] = queue.Queue(MAX_WAITING)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("wb")
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror}") from error
        self._thread = threading.Thread(target=self._encode, daemon=True, name="recorder")
        self._thread.start()

    def __call__(self, at: float, frame: np.ndarray) -> None:
        """Take a frame, uint8 RGB (H, W, 3), of the time `at` in seconds."""
        if self._waits or not self._waiting.full():
            self._waiting.put((at, frame))

    def close(self) -> None:
        """End the file.

        Raises:
            UserError: it could not be written.
        """
        self._waiting.put(None)
        self._thread.join()
        if self._error is not None:
            raise UserError(f"{self._path} cannot be written: {self._error.strerror}") from self._error

    def _encode(self) -> None:
        frames = self._frames()
        try:
            with self._file:
                if (first := next(frames, None)) is not None:
                    write(self._file, itertools.chain([first], frames), self._fps, size=first.shape[:2])
        except (OSError, av.error.FFmpegError) as error:  # reported by `close`
            self._error = OSError(error.errno, error.strerror)
            while self._waiting.get() is not None:  # so that nobody waits
                pass

    def _frames(self) -> Iterator[np.ndarray]:
        """What each moment of the file shows."""
        shown, number = None, 0
        while (item := self._waiting.get()) is not None:
            at, frame = item
            while shown is not None and (number + 0.5) / self._fps < at:
                yield shown
                number += 1
            shown = frame
        if shown is not None:
            yield shown
