"""Chooses which frames of a video a clip is made of: index arithmetic, no decoding.

A frame sampler is called with (number of frames in the video, its frame rate, generator) and gives int64
indices of shape (num_clips, num_frames), each in [0, num_video_frames). Two families:

    span      a window of fixed duration, at a random place (training) or at evenly spaced places (test)
    segment   the whole video cut into `num_frames` equal parts, one frame from each

    |--------------------- video ---------------------|
       [x     x     x     x]                              span, one clip
    |     x     |     x     |     x     |      x      |   segments, one clip

"Uniform" samplers are deterministic and take no generator; "random" ones draw everything from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.random import Generator

FrameSampler = Callable[[int, float, "Generator | None"], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Random changes of when a clip shows what.

    Attributes:
        trim: largest part that is cut off at the start, and at the end, of a clip that spans the whole video.
        speed: largest slow change of speed: within a clip of the whole video, or of a clip of fixed span as a whole.
    """

    trim: float = 0.0
    speed: float = 0.0

    def moments(self, edges: np.ndarray, generator: Generator) -> np.ndarray:
        """Moments of the video, 0 to 1, that `edges` of equal parts of the clip, 0 to 1, are moved to; in order."""
        start, end, bend = generator.uniform([0, 0, -self.speed], [self.trim, self.trim, self.speed])
        warped = edges + bend * edges * (1 - edges)  # speed from 1 + bend at the start to 1 - bend at the end
        return start + (1 - start - end) * warped

    def stretch(self, generator: Generator) -> float:
        """Factor of the span of a clip of fixed duration."""
        return math.exp(generator.uniform(-self.speed, self.speed))


@dataclass(frozen=True)
class RandomSpanSampler:
    """One clip of fixed duration, started anywhere in the video: the published recipe for training."""

    num_frames: int
    sampling_rate: float
    target_fps: float
    timing: Timing = field(default_factory=Timing)

    def __call__(self, num_video_frames: int, fps: float, generator: Generator | None) -> np.ndarray:
        """Indices, (1, num_frames)."""
        assert generator is not None
        span = clip_span_sec(self.num_frames, self.sampling_rate, self.target_fps) * fps
        if self.timing.speed:
            span *= self.timing.stretch(generator)
        start = generator.uniform(0, max(num_video_frames - span, 0))
        return span_indices(start, span, self.num_frames, num_video_frames)[None]


@dataclass(frozen=True)
class UniformSpanSampler:
    """Clips of fixed duration at evenly spaced starts: the published recipe for testing.

    Clip i of n begins at i / n of the room that the span leaves, so a single clip begins at frame 0. With
    "auto" the clips follow one another and are as many as cover the video; the last one ends with it.
    """

    num_frames: int
    sampling_rate: float
    target_fps: float
    num_clips: int | Literal["auto"] = 1

    def __call__(self, num_video_frames: int, fps: float, generator: Generator | None = None) -> np.ndarray:
        """Indices, (num_clips, num_frames)."""
        span = clip_span_sec(self.num_frames, self.sampling_rate, self.target_fps) * fps
        room = max(num_video_frames - span, 0)
        if self.num_clips == "auto":
            starts = [min(clip * span, room) for clip in range(max(math.ceil(num_video_frames / span), 1))]
        else:
            starts = [room * clip / self.num_clips for clip in range(self.num_clips)]
        return np.stack([span_indices(start, span, self.num_frames, num_video_frames) for start in starts])


@dataclass(frozen=True)
class RandomSegmentSampler:
    """One frame drawn from each of `num_frames` equal parts of the video (TSN, Wang et al. 2016, 3.1)."""

    num_frames: int
    timing: Timing = field(default_factory=Timing)

    def __call__(self, num_video_frames: int, fps: float, generator: Generator | None) -> np.ndarray:
        """Indices, (1, num_frames)."""
        assert generator is not None
        edges = segment_edges(num_video_frames, self.num_frames)
        if self.timing != Timing():
            moments = self.timing.moments(np.linspace(0, 1, self.num_frames + 1), generator)
            edges = np.rint(moments * (num_video_frames - 1)).astype(np.int64)
        return generator.integers(edges[:-1], edges[1:], endpoint=True)[None]


@dataclass(frozen=True)
class UniformSegmentSampler:
    """The middle frame of each of `num_frames` equal parts; several clips share each part out among them."""

    num_frames: int
    num_clips: int = 1

    def __call__(self, num_video_frames: int, fps: float, generator: Generator | None = None) -> np.ndarray:
        """Indices, (num_clips, num_frames)."""
        edges = segment_edges(num_video_frames, self.num_frames)
        clip = np.arange(self.num_clips)[:, None]
        return edges[:-1] + np.diff(edges) * (2 * clip + 1) // (2 * self.num_clips)


@dataclass(frozen=True)
class ShuffledFrames:
    """A control experiment: the frames of another sampler in random order, so that no order can be learnt."""

    sampler: FrameSampler

    def __call__(self, num_video_frames: int, fps: float, generator: Generator | None) -> np.ndarray:
        """Indices, (num_clips, num_frames)."""
        assert generator is not None
        return generator.permuted(self.sampler(num_video_frames, fps, generator), axis=1)


def clip_span_sec(num_frames: int, sampling_rate: float, target_fps: float) -> float:
    """The duration that a clip covers, in seconds, whatever the frame rate of the video."""
    return sampling_rate * num_frames / target_fps


def span_indices(start: float, span: float, num_frames: int, num_video_frames: int) -> np.ndarray:
    """Frames at `num_frames` moments spread evenly from `start` to `start + span - 1` (in frames, inclusive).

    The real stride is therefore (span - 1) / (num_frames - 1): 8 frames over 256 are 36.4 apart, not 32. The
    moments are float32 and cut to whole frames; those past the end of the video become its last frame.
    Trained weights rely on each of these. Shape (num_frames,).
    """
    moments = _moments(start, start + span - 1, num_frames)
    return moments.clip(0, num_video_frames - 1).astype(np.int64)


def _moments(first: float, last: float, number: int) -> np.ndarray:
    """The float32 numbers that `torch.linspace(first, last, number)` gives, without torch.

    The step is rounded to float32; the first half is counted from `first`, the other from `last`; each is rounded once.
    """
    steps, ends = np.arange(number), np.array([first, last], np.float32)
    step = np.float64((ends[1] - ends[0]) / np.float32(max(number - 1, 1)))
    from_first, from_last = ends[0] + step * steps, ends[1] - step * (number - 1 - steps)
    return np.where(steps < max(number // 2, 1), from_first, from_last).astype(np.float32)


def segment_edges(num_video_frames: int, num_frames: int) -> np.ndarray:
    """First and last frames, shared by neighbours, of equal parts of a video. Shape (num_frames + 1,)."""
    return np.rint(np.arange(num_frames + 1) * ((num_video_frames - 1) / num_frames)).astype(np.int64)


def distinct_frames(indices: np.ndarray) -> np.ndarray:
    """How many different frames each clip has. Fewer than it has places means that frames are repeated.

    Args:
        indices: (num_clips, num_frames).

    Returns:
        (num_clips,) int64.
    """
    return 1 + np.count_nonzero(np.diff(np.sort(indices, axis=1), axis=1), axis=1)
