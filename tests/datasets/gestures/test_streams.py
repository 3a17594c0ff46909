"""Streams of gestures with gaps, and clips without a gesture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timesformer.datasets.gestures import streams
from timesformer.datasets.gestures.dataset import CLASS_NAMES, Settings
from timesformer.datasets.gestures.rendering import EASY, FPS, Person
from timesformer.utils.random import numpy_generator

SIZE = (32, 40)


@given(st.integers(0, 10_000), st.lists(st.integers(0, 11), max_size=6))
@settings(max_examples=40, deadline=None)
def test_gestures_in_order_with_gaps_between(seed: int, labels: list[int]) -> None:
    person = Person.sample(numpy_generator(seed, 0), EASY)
    positions, events = streams.plan(numpy_generator(seed, 1), person, labels)
    assert [event.label for event in events] == labels
    edges = [0, *(frame for event in events for frame in (event.start, event.end)), len(positions)]
    assert edges == sorted(edges)
    gaps = np.diff(edges)[::2] / FPS
    assert gaps.min() >= streams.GAP_SEC[0] - 1 / FPS
    assert gaps.max() <= streams.GAP_SEC[1] + 1 / FPS
    assert np.isfinite(positions).all()
    assert np.abs(np.diff(positions, axis=0)).max(initial=0) < 2.5  # the hand never jumps


def test_the_hand_is_where_the_gesture_is() -> None:
    frames, events = streams.render_stream(0, 2, 0, [3, 3], frame_size=SIZE, hard=False)
    again, _ = streams.render_stream(0, 2, 0, [3, 3], frame_size=SIZE, hard=False)
    assert np.array_equal(frames, again)
    assert frames.shape[1:] == (*SIZE, 3)
    movement = np.abs(np.diff(frames.astype(int), axis=0)).mean(axis=(1, 2, 3))
    during = np.concatenate([movement[event.start : event.end - 1] for event in events])
    assert during.mean() > 1.5 * movement[: events[0].start // 2].mean()  # at first nothing is in sight


def test_idle_clips_show_a_part_of_a_gesture_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []

    def draw(generator: object, person: object, difficulty: object, positions: np.ndarray, size: object) -> np.ndarray:
        shown.append(positions)
        return np.zeros((len(positions), 2, 2, 3), np.uint8)

    monkeypatch.setattr(streams, "draw_frames", draw)
    for take in range(20):
        person = Person.sample(numpy_generator(0, 0, 1), EASY)
        generator = numpy_generator(0, 0, 1, streams.IDLE_KEY + take)
        positions, events = streams.plan(generator, person, generator.integers(0, 12, 2).tolist())
        clip = streams.render_idle(0, 0, 1, take, frame_size=SIZE, hard=False)
        assert 30 <= len(clip) <= 60
        start = next(at for at in range(len(positions)) if np.array_equal(positions[at : at + len(clip)], shown[-1]))
        for event in events:
            overlap = min(start + len(clip), event.end) - max(start, event.start)
            assert overlap <= streams.MAX_OVERLAP * (event.end - event.start)


def test_idle_clips_are_a_class_of_their_own() -> None:
    plain, with_idle = Settings(num_subjects=(2, 1, 1)), Settings(num_subjects=(2, 1, 1), idle=3)
    assert plain.class_names == list(CLASS_NAMES)
    assert with_idle.class_names == [*CLASS_NAMES, "idle"]
    clips = list(with_idle.clips(0))
    assert [clip.label for clip in clips].count(12) == 6
    assert len({clip.path for clip in clips}) == len(clips) == 2 * 15
    assert "idle" not in plain.manifest()  # folders of before there were such clips are still known
    assert plain.fingerprint() != with_idle.fingerprint()
