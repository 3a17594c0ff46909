"""What is known of a video before any frame of it is wanted."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

MIN_FPS, MAX_FPS, ASSUMED_FPS = 0.1, 1000.0, 30.0


@dataclass(frozen=True)
class VideoInfo:
    """Facts of one video.

    Attributes:
        num_frames: frames that can be requested, in display order.
        fps: frames per second, the average where the rate varies.
        height: in pixels, after the rotation that the file asks for.
        width: likewise.
        warnings: what the user should hear about this file, a line each.
    """

    num_frames: int
    fps: float
    height: int
    width: int
    warnings: tuple[str, ...] = ()

    @property
    def duration_sec(self) -> float:
        """The time that the frames fill, in seconds."""
        return self.num_frames / self.fps


def usable_fps(*rates: Fraction | float | None) -> tuple[float, list[str]]:
    """The first of `rates` that a video can have; when there is none, an assumed one and a warning."""
    for rate in rates:
        if rate and MIN_FPS <= float(rate) <= MAX_FPS:
            return float(rate), []
    missing = "its frame rate" if not any(rates) else f"a frame rate from {MIN_FPS:g} to {MAX_FPS:g}"
    return ASSUMED_FPS, [f"the file does not say {missing}; {ASSUMED_FPS:g} frames a second are assumed"]
