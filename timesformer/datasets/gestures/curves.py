"""Where a hand is at each moment of a gesture: pure arithmetic, no pictures.

Each pair of mirrored gestures (a circle in both directions, a V from the left and from the right, ...) is
one curve, run forwards by one class and backwards by the other. Every curve is its own mirror image and
timing has the same distribution in both directions of time, so a set of frames without their order does not
distinguish the two: an order-blind model is right at most 7 times in 12.

Positions are (x right, y down), both in -1..1 for a gesture that fills the frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CLASS_NAMES = (
    "G1 up-down",
    "G2 left-right",
    "G3 circle clockwise",
    "G4 circle counter-clockwise",
    "G5 V from the left",
    "G6 V from the right",
    "G7 caret from the left",
    "G8 caret from the right",
    "G9 snake from the left",
    "G10 snake from the right",
    "G11 arc from right to left",
    "G12 arc from left to right",
)
# Labels that a left-right flip swaps. G1 and G2 flip into themselves: G2 may start on either side.
MIRROR_PAIRS = ((2, 3), (4, 5), (6, 7), (8, 9), (10, 11))
BACKWARDS = frozenset({3, 5, 7, 9, 10})  # the labels that run their curve from the right, or counter-clockwise


@dataclass(frozen=True)
class Timing:
    """How a gesture proceeds in its clip; ``ease + abs(skew) < 1``."""

    rest_before: float  # shares of the clip in which the hand rests, each in 0..0.5
    rest_after: float
    ease: float  # 0 moves at constant speed, towards 1 slows down at both ends
    skew: float  # above 0 is faster in the first half, below 0 in the second

    @classmethod
    def sample(cls, generator: np.random.Generator) -> Timing:
        """Draw a timing; a timing and its reversal are equally likely."""
        rest_before, rest_after = generator.uniform(0.0, 0.2, 2)
        return cls(rest_before, rest_after, generator.uniform(0.0, 0.6), generator.uniform(-0.3, 0.3))

    def progress(self, num_frames: int) -> np.ndarray:
        """Share of the curve that is drawn at each frame, from 0 to 1, never falling: float64 (T,)."""
        clip_time = np.linspace(0.0, 1.0, num_frames)
        time = np.clip((clip_time - self.rest_before) / (1.0 - self.rest_before - self.rest_after), 0.0, 1.0)
        return time - self.ease * np.sin(2 * np.pi * time) / (2 * np.pi) + self.skew * time * (1.0 - time)


@dataclass(frozen=True)
class Form:
    """How a person draws a curve in one clip."""

    side: int  # +1 or -1, where left-right starts
    round_trips: int  # how often up-down and left-right go there and back
    phase: float  # where on the circle the gesture begins and ends, in radians from the top
    turns: float  # how much of the circle is drawn, about 1
    width: float  # half-extents of the curve, as shares of the frame's reach
    height: float
    tilt: float  # rotation of the curve in radians, clockwise
    centre_x: float  # the curve's middle
    centre_y: float

    @classmethod
    def sample(cls, generator: np.random.Generator, *, scale: float, lean: float) -> Form:
        """Draw a form about a person's usual `scale` (largest half-extent) and `lean` (radians).

        A form and its mirror image are equally likely over people whose leans are.
        """
        width, height = scale * generator.uniform(0.75, 1.0, 2)
        return cls(
            side=int(generator.choice((-1, 1))),
            round_trips=int(generator.integers(1, 3)),
            phase=generator.uniform(-0.6, 0.6),
            turns=generator.uniform(0.95, 1.2),
            width=width,
            height=height,
            tilt=lean + generator.uniform(-0.12, 0.12),
            centre_x=(1.0 - width) * generator.uniform(-0.8, 0.8),
            centre_y=(1.0 - height) * generator.uniform(-0.8, 0.8),
        )


def hand_positions(label: int, form: Form, timing: Timing, num_frames: int) -> np.ndarray:
    """Positions of the hand in a clip of gesture `label`: float64 (T, 2)."""
    progress = timing.progress(num_frames)
    if label in BACKWARDS:
        progress = 1.0 - progress
    points = _curve(label, form, progress) * (form.width, form.height)
    cos, sin = np.cos(form.tilt), np.sin(form.tilt)
    return points @ np.array([[cos, sin], [-sin, cos]]) + (form.centre_x, form.centre_y)


def _curve(label: int, form: Form, progress: np.ndarray) -> np.ndarray:
    """Points (T, 2) of the gesture's curve in the square -1..1, run from the left or clockwise."""
    x = 2.0 * progress - 1.0
    swing = np.cos(2 * np.pi * form.round_trips * progress)
    if label == 0:  # starts at the bottom
        return np.stack([0.0 * x, swing], axis=1)
    if label == 1:
        return np.stack([form.side * swing, 0.0 * x], axis=1)
    if label in (2, 3):
        angle = form.phase + np.pi * (1.0 + form.turns * x)  # from the top, clockwise
        return np.stack([np.sin(angle), -np.cos(angle)], axis=1)
    if label in (4, 5):
        return np.stack([0.8 * x, 1.0 - 2.0 * np.abs(x)], axis=1)
    if label in (6, 7):
        return np.stack([0.8 * x, 2.0 * np.abs(x) - 1.0], axis=1)
    if label in (8, 9):  # one and a half waves: up, down, up
        return np.stack([x, 0.7 * np.cos(1.5 * np.pi * x)], axis=1)
    return np.stack([np.sin(0.5 * np.pi * x), 0.5 - np.cos(0.5 * np.pi * x)], axis=1)  # a half circle over the top


def smooth_noise(generator: np.random.Generator, num_frames: int, *, fps: float, hertz: float) -> np.ndarray:
    """Noise of unit variance, frequencies up to `hertz`, alike in both directions of time: float64 (T, 2)."""
    seconds = np.arange(num_frames)[:, None, None] / fps
    frequency = generator.uniform(0.2 * hertz, hertz, (1, 3, 2))
    phase = generator.uniform(0.0, 2 * np.pi, (1, 3, 2))
    return np.sqrt(2.0 / 3.0) * np.sin(2 * np.pi * frequency * seconds + phase).sum(axis=1)
