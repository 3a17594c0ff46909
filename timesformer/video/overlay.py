"""Writes a video with a line of text burnt into each frame, as mp4."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np

from timesformer.utils.errors import UserError
from timesformer.video.encode import write
from timesformer.video.readers import VideoReader

_CHUNK_BYTES = 2**26  # of frames that are read at a time


def write_overlay(reader: VideoReader, path: Path, caption: Callable[[float], str]) -> None:
    """Write the frames of an open video with text; `path` appears only when it is complete.

    Args:
        reader: of the video.
        path: ends in .mp4; its folder is made.
        caption: the text at a time in seconds.

    Raises:
        VideoReadError: a frame cannot be decoded.
        UserError: the file cannot be written.
    """
    info = reader.info
    step = max(1, _CHUNK_BYTES // (info.height * info.width * 3))

    def pictures() -> Iterator[np.ndarray]:
        for start in range(0, info.num_frames, step):
            for number, frame in enumerate(reader.read(range(start, min(start + step, info.num_frames))), start):
                yield with_text(frame, caption(number / info.fps))

    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            write(file, pictures(), info.fps, size=(info.height, info.width))
        unfinished.replace(path)
    except (OSError, av.error.FFmpegError) as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        unfinished.unlink(missing_ok=True)


def with_text(frame: np.ndarray, text: str) -> np.ndarray:
    """A copy of the frame with the text in white on a dark bar at its top, as large as fits the width."""
    picture, font = np.array(frame, order="C"), cv2.FONT_HERSHEY_SIMPLEX
    if not text:
        return picture
    text = text.encode("ascii", "replace").decode()  # OpenCV has no other letters
    (width, height), below = cv2.getTextSize(text, font, 1.0, 2)
    scale = min(0.95 * picture.shape[1] / max(width, 1), 0.12 * picture.shape[0] / height, 1.5)
    bar = round(1.3 * scale * (height + below)) + 2
    picture[:bar] //= 3
    origin = (round(0.02 * picture.shape[1]), round(scale * height) + 2)
    cv2.putText(picture, text, origin, font, scale, (255, 255, 255), max(1, round(2 * scale)), cv2.LINE_AA)
    return picture
