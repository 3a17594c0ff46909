"""Frames of a camera, a network stream or a file as they come, the newest first in line; old ones are dropped."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import av
import numpy as np

from timesformer.utils.errors import VideoReadError

OPEN_SEC = 10.0  # to wait for a camera or a server
CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("dshow", "video={}")}


class Source:
    """An open source of frames.

    Attributes:
        name: what the user typed: the number of a camera, a file, or an address.
        is_live: whether frames come in their own time, so that a slow reader misses some.
        fps: frames per second, as far as the source says so.
        seen: called with the time and the picture of every frame, in the thread that reads; set it before.
    """

    def __init__(self, name: str) -> None:
        """Open `name`.

        Raises:
            VideoReadError: there is no such source, or nothing of it is video.
        """
        self.name = name
        self.is_live = name.isdigit() or "://" in name
        form, path = CAMERAS.get(sys.platform, CAMERAS["linux"]) if name.isdigit() else (None, "{}")
        try:
            self._container: Any = av.open(path.format(name), format=form, timeout=OPEN_SEC)
        except Exception as error:  # of many types
            hint = "cameras here: see /dev/video*" if name.isdigit() else "give a camera's number, a file or rtsp://..."
            raise VideoReadError(name, f"cannot be opened ({error}); {hint}") from error
        if not self._container.streams.video:
            self._container.close()
            raise VideoReadError(name, "holds no video")
        self.fps = float(self._container.streams.video[0].average_rate or 30)
        self.seen: Callable[[float, np.ndarray], None] | None = None

    def frames(self) -> Iterator[tuple[float, np.ndarray]]:
        """(seconds since the first frame, uint8 RGB (H, W, 3)) of every frame, in order of display.

        Raises:
            VideoReadError: the source breaks off; its end is no error.
        """
        stream = self._container.streams.video[0]
        stream.thread_type = "AUTO"
        first, last = None, 0.0
        try:
            for index, frame in enumerate(self._container.decode(stream)):
                at = index / self.fps if frame.time is None else float(frame.time)
                first = at if first is None else first
                last = max(last, at - first)
                picture = frame.to_ndarray(format="rgb24")
                if self.seen is not None:
                    self.seen(last, picture)
                yield last, picture
        except av.error.EOFError:
            return
        except (av.error.FFmpegError, ValueError, OSError) as error:
            raise VideoReadError(self.name, f"broke off after {last:.1f} s ({error})") from error
        finally:
            self._container.close()


class FrameRing:
    """The last seconds of a stream: (time, frame) in order, of bounded length."""

    def __init__(self, seconds: float, max_frames: int = 2000) -> None:
        """Keep frames of the last `seconds`, `max_frames` at most."""
        self.seconds = seconds
        self.frames: deque[tuple[float, np.ndarray]] = deque(maxlen=max_frames)

    def add(self, at: float, frame: np.ndarray) -> None:
        """Append a frame; those that are too old leave."""
        self.frames.append((at, frame))
        while self.frames[0][0] < at - self.seconds - 1e-6:
            self.frames.popleft()

    def at(self, moments: np.ndarray) -> np.ndarray:
        """For each moment the newest frame that is not later, the first one for earlier moments: (T, H, W, 3)."""
        times = np.array([at for at, _ in self.frames])
        indices = np.clip(np.searchsorted(times, moments + 1e-6, side="right") - 1, 0, None)
        return np.stack([self.frames[index][1] for index in indices])


class Capture:
    """Reads a source in a thread of its own and hands out what came since the last call.

    Frames that nobody took before `max_frames` newer ones came are dropped and counted, so that a slow reader never
    falls behind.
    """

    def __init__(
        self,
        source: Source,
        *,
        paced: bool,
        max_frames: int = 64,
        prepare: Callable[[np.ndarray], np.ndarray] = lambda frame: frame,
    ) -> None:
        """Start to read.

        Args:
            source: of the frames.
            paced: hand out the frames of a file in their own time, as a camera does.
            max_frames: frames that wait at most.
            prepare: makes of a frame what is kept of it, in the thread.
        """
        self.dropped = self.received = 0
        self._waiting: deque[tuple[float, float, np.ndarray]] = deque()
        self._changed = threading.Condition()
        self._done = False
        self._error: BaseException | None = None
        self._source, self._paced, self._max, self._prepare = source, paced, max_frames, prepare
        threading.Thread(target=self._read, daemon=True, name="capture").start()

    def take(self, timeout_sec: float) -> list[tuple[float, float, np.ndarray]] | None:
        """(time in the stream, moment of arrival on `time.monotonic`, frame) of what came; None at the end.

        Raises:
            VideoReadError: the source broke off, or nothing came for `timeout_sec`.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting or self._done, timeout_sec):
                raise VideoReadError(self._source.name, f"gave no frame for {timeout_sec:g} s")
            frames = list(self._waiting)
            self._waiting.clear()
            if not frames and self._error is not None:
                raise self._error
            return frames or None

    def _read(self) -> None:
        start = time.monotonic()
        try:
            for at, frame in self._source.frames():
                if self._paced and (wait := start + at - time.monotonic()) > 0:
                    time.sleep(wait)
                kept = self._prepare(frame)
                with self._changed:
                    if self._done:
                        return
                    self.received += 1
                    self._waiting.append((at, time.monotonic(), kept))
                    if len(self._waiting) > self._max:
                        self._waiting.popleft()
                        self.dropped += 1
                    self._changed.notify()
        except BaseException as error:  # handed to the reader
            self._error = error
        finally:
            with self._changed:
                self._done = True
                self._changed.notify()

    def close(self) -> None:
        """Stop reading."""
        with self._changed:
            self._done = True
            self._waiting.clear()
