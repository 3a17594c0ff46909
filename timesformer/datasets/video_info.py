"""What is known of a video before any frame of it is wanted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class VideoInfo:
    """Facts of one video.

    Attributes:
        num_frames: frames that can be asked for, in display order.
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
