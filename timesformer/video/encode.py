"""Frames to a video that browsers play."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import IO

import av
import numpy as np

# Media type, container, encoder, pixel format, options; the first whose encoder exists is taken, and GIF's always does.
FORMATS: tuple[tuple[str, str, str, str, dict[str, str]], ...] = (
    ("video/mp4", "mp4", "libx264", "yuv420p", {"preset": "veryfast", "crf": "26"}),
    ("image/gif", "gif", "gif", "rgb8", {}),
)


def encode(frames: Sequence[np.ndarray] | np.ndarray, fps: float) -> tuple[str, bytes]:
    """The media type ("video/mp4", H.264; "image/gif" where FFmpeg is built without it) and the file's content.

    Args:
        frames: uint8 RGB (T, H, W, 3); the last row and column are left out where H or W is odd.
        fps: frames per second.
    """
    buffer = io.BytesIO()
    media_type = write(buffer, frames, fps, size=frames[0].shape[:2])
    return media_type, buffer.getvalue()


def can_encode() -> bool:
    """Whether there is the encoder of H.264."""
    return _exists(FORMATS[0][2])


def write(
    out: IO[bytes], frames: Iterable[np.ndarray], fps: float, *, size: tuple[int, ...], quality: int | None = None
) -> str:
    """`encode` frames of `size` (height, width) as they come into an open file; returns the media type.

    `quality` is H.264's constant rate factor, smaller for better; None: 26.
    """
    media_type, container_format, encoder, pixels, options = next(each for each in FORMATS if _exists(each[2]))
    if quality is not None and "crf" in options:
        options = options | {"crf": str(quality)}
    height, width = (side // 2 * 2 for side in size)
    with av.open(out, "w", format=container_format) as container:
        stream = container.add_stream(encoder, rate=Fraction(fps).limit_denominator(1001), options=options)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = height, width, pixels
        stream.codec_context.thread_count = 1
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return media_type


def _exists(encoder: str) -> bool:
    try:
        av.Codec(encoder, "w")
    except ValueError:  # av.codec.codec.UnknownCodecError
        return False
    return True
