"""What a fingertip draws in the wide gestures: the classes, and how one clip draws its class. No pictures.

A class is a path: a shape together with where it begins and which way it is drawn. Its mirror image and the same
shape drawn from the other end are other classes. A path is an array (POINTS, 3) of points at equal distances: x
right and y down, both in -1..1, and nearness (0, or -1 and 1 at the ends of a push towards the camera).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, combinations
from typing import NamedTuple

import numpy as np

from timesformer.datasets.gestures.curves import Timing

POINTS = 64  # of a path
SLOW_CORNER = 8  # points of the path over which a hand slows down and rounds a corner, at most


class Stroke(NamedTuple):
    """One class."""

    name: str
    path: np.ndarray  # float64 (POINTS, 3)
    turn: float = 0.25  # largest rotation in a clip, in radians either way


def _line(*points: tuple[float, float]) -> np.ndarray:
    return np.array(points, np.float64)


def _arc(start: float, sweep: float, *, x: float = 0.0, y: float = 0.0, radius: float = 1.0) -> np.ndarray:
    """Points of a circle's arc; angles in degrees, from the right, clockwise on the screen."""
    angle = np.radians(start + sweep * np.linspace(0.0, 1.0, 2 + int(abs(sweep) / 8)))
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)


def _wave(cycles: float) -> np.ndarray:
    x = np.linspace(-1.0, 1.0, 80)
    return np.stack([x, 0.55 * np.sin(np.pi * cycles * (x + 1.0))], axis=1)


def _spiral(turns: float) -> np.ndarray:
    angle = np.linspace(0.0, 2 * np.pi * turns, 120)
    radius = 0.1 + 0.9 * angle / angle[-1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _figure_eight() -> np.ndarray:
    angle = np.linspace(0.0, 2 * np.pi, 90)
    return np.stack([np.sin(angle), 0.55 * np.sin(2 * angle)], axis=1)


def _star() -> np.ndarray:
    angle = np.radians(126.0 + 144.0 * np.arange(6))  # from the lower left to the top
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _join(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate(parts)


# name, path, and which of its images are classes too: m mirrored (left-right), f upside down, r from the other end
_SHAPES: tuple[tuple[str, np.ndarray, str], ...] = (
    ("right", _line((-1, 0), (1, 0)), ""),
    ("left", _line((1, 0), (-1, 0)), ""),
    ("up", _line((0, 1), (0, -1)), ""),
    ("down", _line((0, -1), (0, 1)), ""),
    ("diagonal", _line((-1, 1), (1, -1)), "mf"),
    ("there and back", _line((-1, 0), (1, 0), (-1, 0)), "m"),
    ("up and back", _line((0, 1), (0, -1), (0, 1)), "f"),
    ("circle", _arc(-90, 400), "m"),
    ("bow over", _arc(-180, 180, y=0.5), "mf"),
    ("bow beside", _arc(90, -180, x=-0.5), "mf"),
    ("caret", _line((-0.8, 1), (0, -1), (0.8, 1)), "mf"),
    ("angle", _line((-1, -0.8), (1, 0), (-1, 0.8)), "mf"),
    ("tick", _line((-1, 0.1), (-0.4, 1), (1, -1)), "mr"),
    ("corner", _line((-1, -1), (-1, 1), (1, 1)), "mfr"),
    ("triangle", _line((0, -1), (1, 1), (-1, 1), (0, -1)), "m"),
    ("nabla", _line((-1, -1), (1, -1), (0, 1), (-1, -1)), "mr"),
    ("square", _line((-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)), "mr"),
    ("star", _star(), "mr"),
    ("gate", _line((-1, 1), (-1, -1), (1, -1), (1, 1)), "mf"),
    ("bracket", _line((1, -1), (-1, -1), (-1, 1), (1, 1)), "mf"),
    ("zed", _line((-1, -1), (1, -1), (-1, 1), (1, 1)), "mr"),
    ("en", _line((-1, 1), (-1, -1), (1, 1), (1, -1)), "mr"),
    ("em", _line((-1, 1), (-0.6, -1), (0, 0.7), (0.6, -1), (1, 1)), "mf"),
    ("ess", _join(_arc(-30, -240, y=-0.5, radius=0.5), _arc(-90, 240, y=0.5, radius=0.5)), "mr"),
    ("wave", _wave(1.5), "mf"),
    ("spiral", _spiral(2.0), "mr"),
    ("loop", _join(_line((-1, 0.8), (0, 0.8)), _arc(90, -360, y=0.0, radius=0.8), _line((0, 0.8), (1, 0.8))), "mf"),
    ("eight", _figure_eight(), "mf"),
)
_IMAGES = {"m": (" mirrored", (-1.0, 1.0)), "f": (" upside down", (1.0, -1.0)), "r": (" reversed", (1.0, 1.0))}


def _strokes() -> tuple[Stroke, ...]:
    strokes = []
    for name, points, operations in _SHAPES:
        turn = np.pi if name in ("circle", "spiral") else 0.25  # a circle may begin anywhere
        images = chain.from_iterable(combinations(operations, count) for count in range(len(operations) + 1))
        for image in images:
            moved = points * np.prod([_IMAGES[each][1] for each in image], axis=0)
            path = _equal_distances(moved[::-1] if "r" in image else moved)
            strokes.append(Stroke(name + "".join(_IMAGES[each][0] for each in image), path, turn))
    still, away = np.zeros((POINTS, 3)), np.linspace(1.0, -1.0, POINTS)[:, None] * (0.0, 0.0, 1.0)
    return (*strokes, Stroke("push", -away), Stroke("pull", away), Stroke("hold still", still))


def _equal_distances(points: np.ndarray) -> np.ndarray:
    """POINTS points on the polyline `points` (N, 2), at equal distances, with nearness 0."""
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    at = np.linspace(0.0, along[-1], POINTS)
    return np.stack([*(np.interp(at, along, points[:, axis]) for axis in (0, 1)), np.zeros(POINTS)], axis=1)


STROKES = _strokes()
CLASS_NAMES = tuple(stroke.name for stroke in STROKES)


def _turning(path: np.ndarray) -> np.ndarray:
    """How sharply the path turns about each point, in radians: float64 (POINTS,)."""
    step = np.diff(path[:, 0] + 1j * path[:, 1])
    turn = np.zeros(POINTS)
    turn[1:-1] = np.abs(np.angle(step[1:] * step[:-1].conj()))
    return np.convolve(turn, np.hanning(SLOW_CORNER + 1), mode="same")


_TURNING = tuple(_turning(stroke.path) for stroke in STROKES)


@dataclass(frozen=True)
class Drawing:
    """How one clip draws its class."""

    timing: Timing
    corner_time: float  # how much longer the hand takes about corners, 0 none
    round_corners: int  # points over which corners are rounded
    size: np.ndarray  # half-extents (x, y), as shares of the frame
    turn: float  # rotation in radians
    slant: float  # shear
    wobble: np.ndarray  # (2, 3) amplitudes of slow sines along the path, as shares of its size
    phase: np.ndarray  # (2, 3) of them, in radians

    @classmethod
    def sample(cls, generator: np.random.Generator, label: int) -> Drawing:
        """Draw how a clip of class `label` is drawn."""
        return cls(
            timing=Timing.sample(generator),
            corner_time=generator.uniform(0.0, 2.5),
            round_corners=int(generator.integers(1, SLOW_CORNER)),
            size=generator.uniform(0.17, 0.4) * generator.uniform(0.75, 1.25, 2),
            turn=STROKES[label].turn * generator.uniform(-1.0, 1.0),
            slant=generator.uniform(-0.2, 0.2),
            wobble=generator.normal(0.0, 0.05, (2, 3)),
            phase=generator.uniform(0.0, 2 * np.pi, (2, 3)),
        )

    def positions(self, label: int, num_frames: int) -> np.ndarray:
        """Where the fingertip is in each frame: float64 (T, 3).

        x and y are shares of the frame's width and height from the drawing's middle, the third is nearness.
        """
        path = STROKES[label].path
        if self.round_corners > 1:
            window = np.hanning(self.round_corners + 2)[1:-1]
            padded = np.pad(path, ((self.round_corners // 2, (self.round_corners - 1) // 2), (0, 0)), mode="edge")
            path = np.stack([np.convolve(axis, window / window.sum(), mode="valid") for axis in padded.T], axis=1)
        # the share of the time at which each point is reached
        seconds = np.cumsum(1.0 + self.corner_time * _TURNING[label])
        reached = (seconds - seconds[0]) / (seconds[-1] - seconds[0])
        along = np.interp(self.timing.progress(num_frames), reached, np.linspace(0.0, 1.0, POINTS))
        drawn = np.stack([np.interp(along, np.linspace(0.0, 1.0, POINTS), axis) for axis in path.T], axis=1)
        cycles = np.arange(1, 4) * np.pi
        drawn[:, :2] += (self.wobble * np.sin(cycles * along[:, None, None] + self.phase)).sum(axis=2)
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        drawn[:, :2] @= np.array([[cos, sin], [-sin, cos]]) @ np.array([[1.0, 0.0], [self.slant, 1.0]])
        drawn[:, :2] *= self.size
        return drawn
