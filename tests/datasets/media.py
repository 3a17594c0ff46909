"""Small media files for tests, rendered on the spot, and a plain decode to compare with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

_BITS = 8  # width of the frame number that each picture shows as black and white bars


def picture(number: int, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    """A picture that moves with `number` and shows it as bars in its upper half: uint8 RGB (H, W, 3)."""
    width, height = size
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    channels = [4 * x + 9 * number, 4 * y - 5 * number, (x - 2 * number) * (y + number) // 8]
    image = (np.stack(channels, axis=-1) % 160 + 40).astype(np.uint8)
    bars = (number >> (x[: height // 2] * _BITS // width)) & 1
    image[: height // 2] = 255 * bars[..., None]
    return image


def read_number(image: np.ndarray) -> int:
    """The number (below 256) that a `picture` shows, after compression too."""
    upper = image[: image.shape[0] // 2].mean(axis=(0, 2))
    bars = upper.reshape(_BITS, -1).mean(axis=1)
    return int(((bars > 128) << np.arange(_BITS)).sum())


def write_video(
    path: str | Path,
    *,
    num_frames: int = 30,
    size: tuple[int, int] = (64, 48),
    fps: int = 30,
    codec: str = "libx264",
    gop: int = 12,
    bframes: int = 0,
    pts: Sequence[int] | None = None,
    ticks_per_frame: int = 1,
    rotation: int = 0,
    options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
    frames: Sequence[np.ndarray] | None = None,
) -> Path:
    """Renders a video file; the ending of `path` chooses the container.

    Args:
        size: width and height; the width a multiple of 8, both even.
        pts: when each picture is shown, in units of 1 / (fps * ticks_per_frame) s; 0, 1, 2, ... if None.
        rotation: degrees counter-clockwise, written as a display matrix.
        options: further options of the encoder, such as {"x264-params": "open-gop=1"}.
        frames: uint8 RGB pictures to use instead of `picture(0)`, `picture(1)`, ...
    """
    images = [picture(i, size) for i in range(num_frames)] if frames is None else frames
    with av.open(str(path), "w", options=dict(container_options or {})) as container:
        stream = container.add_stream(codec, rate=fps, options={"threads": "1", **(options or {})})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.gop_size = gop
        stream.codec_context.time_base = Fraction(1, fps * ticks_per_frame)
        if not codec.startswith("libvpx"):
            stream.codec_context.max_b_frames = bframes
        if rotation:
            stream.set_display_rotation(rotation)
        for i, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.time_base = Fraction(1, fps * ticks_per_frame)
            frame.pts = i * ticks_per_frame if pts is None else pts[i]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return Path(path)


def write_audio(path: str | Path, *, duration_sec: float = 0.5) -> Path:
    """Writes a media file that holds sound and no pictures."""
    rate = 16000
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        for start in range(0, int(duration_sec * rate), 1024):
            wave = np.sin(np.arange(start, start + 1024, dtype=np.float32) / 20)[None]
            frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return Path(path)


def truncate(path: str | Path, keep: float) -> Path:
    """Cuts a file to its first part, as an interrupted copy does."""
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: int(len(data) * keep)])
    return Path(path)


def decode_all(path: str | Path) -> tuple[list[np.ndarray], str | None]:
    """All frames of the first video stream, uint8 RGB, upright; and what ended the decode, if an error."""
    frames = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1  # what stands in for missing parts of a picture depends on it
        try:
            for frame in container.decode(stream):
                frames.append(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90))
        except av.error.FFmpegError as error:
            return frames, str(error)
    return frames, None
