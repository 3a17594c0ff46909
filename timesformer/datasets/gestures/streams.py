"""Long videos of generated people: gestures, and between them a hand that rests, wanders or is out of sight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from timesformer.datasets.gestures.curves import Form, Timing, hand_positions, smooth_noise
from timesformer.datasets.gestures.rendering import EASY, FPS, HARD, Person, draw_frames
from timesformer.utils.random import numpy_generator

GAP_SEC = (1.0, 3.0)  # range of the time between two gestures
OUT_OF_SIGHT = 3.5  # of `Form`'s y: below the frame
MAX_OVERLAP = 0.6  # of a gesture that an idle clip may show
STREAM_KEY, IDLE_KEY = 1000, 2000  # keep their random numbers apart from those of the clips


class Event(NamedTuple):
    """One gesture of a stream: frames `start` to `end`, without the latter."""

    label: int
    start: int
    end: int


def render_stream(
    seed: int,
    split: int,
    number: int,
    labels: Sequence[int],
    *,
    frame_size: tuple[int, int],
    hard: bool,
    gap_sec: tuple[float, float] = GAP_SEC,
) -> tuple[np.ndarray, list[Event]]:
    """A video in which person `number` of split 0, 1 or 2 makes the gestures `labels`: RGB, uint8 (T, H, W, 3)."""
    difficulty = HARD if hard else EASY
    person = Person.sample(numpy_generator(seed, split, number), difficulty)
    generator = numpy_generator(seed, split, number, STREAM_KEY)
    positions, events = plan(generator, person, labels, gap_sec)
    return draw_frames(generator, person, difficulty, positions, frame_size), events


def render_idle(
    seed: int, split: int, number: int, take: int, *, frame_size: tuple[int, int], hard: bool
) -> np.ndarray:
    """A clip of person `number` with no gesture, or a part of one: RGB, uint8 (T, H, W, 3), T 30 to 60."""
    difficulty = HARD if hard else EASY
    person = Person.sample(numpy_generator(seed, split, number), difficulty)
    generator = numpy_generator(seed, split, number, IDLE_KEY + take)
    positions, events = plan(generator, person, generator.integers(0, 12, 2).tolist())
    num_frames = round(FPS * float(np.clip(person.duration_sec * generator.uniform(0.8, 1.2), 2.0, 4.0)))
    shown = [
        max(_overlap(start, start + num_frames, event) for event in events)
        for start in range(len(positions) - num_frames + 1)
    ]
    starts = [start for start, share in enumerate(shown) if share <= MAX_OVERLAP]
    start = int(generator.choice(starts)) if starts else int(np.argmin(shown))
    window = slice(start, start + num_frames)
    return draw_frames(generator, person, difficulty, positions[window], frame_size)


def _overlap(start: int, end: int, event: Event) -> float:
    """Share of the event within the frames `start` to `end`."""
    return max(0, min(end, event.end) - max(start, event.start)) / (event.end - event.start)


def plan(
    generator: np.random.Generator, person: Person, labels: Sequence[int], gap_sec: tuple[float, float] = GAP_SEC
) -> tuple[np.ndarray, list[Event]]:
    """Positions (T, 2) of the hand over a stream, see `Form`, and where in it the gestures are."""
    parts, events, num_frames = [], [], 0
    here = np.array([generator.uniform(-0.5, 0.5), OUT_OF_SIGHT])
    for label in [*labels, None]:
        curve = np.empty((0, 2))
        if label is not None:
            form, timing = Form.sample(generator, scale=person.scale, lean=person.lean), Timing.sample(generator)
            seconds = float(np.clip(person.duration_sec + generator.normal(0.0, 0.25), 2.0, 4.0))
            seconds *= 1.0 - timing.rest_before - timing.rest_after
            still = Timing(0.0, 0.0, timing.ease, timing.skew)  # the gaps are the rests
            curve = hand_positions(label, form, still, round(FPS * seconds))
        there = curve[0] if len(curve) else np.array([0.0, OUT_OF_SIGHT])
        parts += [gap(generator, here, there, gap_sec), curve]
        if label is not None:
            start = num_frames + len(parts[-2])
            events.append(Event(label, start, start + len(curve)))
            here = curve[-1]
        num_frames += len(parts[-2]) + len(curve)
    return np.concatenate(parts), events


def gap(
    generator: np.random.Generator, here: np.ndarray, there: np.ndarray, gap_sec: tuple[float, float]
) -> np.ndarray:
    """The way of the hand from one gesture to the next: a rest on the way, wandering, or out of sight: (T, 2)."""
    num_frames = round(FPS * generator.uniform(*gap_sec))
    kind = generator.choice(("rest", "wander", "leave"))
    middle = (here + there) / 2 + generator.normal(0.0, 0.2, 2)
    if kind == "leave":
        middle[1] = OUT_OF_SIGHT
    elif kind == "rest":  # where the last gesture ended, or where the next begins
        middle = (here, there)[generator.integers(2)].copy()
    points = np.stack([here, here, middle, middle, there, there])
    moves = generator.uniform(0.2, 0.35, 2)  # shares of the time; the rest is divided among three rests
    rests = generator.dirichlet(np.ones(3)) * (1.0 - moves.sum())
    times = np.concatenate([[0.0], np.cumsum([rests[0], moves[0], rests[1], moves[1], rests[2]])])
    time = np.linspace(0.0, 1.0, num_frames)
    index = np.clip(np.searchsorted(times, time, side="right") - 1, 0, len(points) - 2)
    share = (time - times[index]) / np.maximum(times[index + 1] - times[index], 1e-9)
    share = (share * share * (3.0 - 2.0 * share))[:, None]  # starts and stops gently
    path = points[index] + share * (points[index + 1] - points[index])
    if kind == "wander":
        strength = generator.uniform(0.05, 0.25) * np.sin(np.pi * time)[:, None]
        path += strength * smooth_noise(generator, num_frames, fps=FPS, hertz=0.8)
    return path
