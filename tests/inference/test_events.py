"""One event per gesture, whatever the scores between; nothing for idle."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timesformer.inference.events import EventDetector, Window, is_rejected

NAMES = ["left", "right", "idle"]


def run(detector: EventDetector, scores: list[tuple[float, float, float]], duration: float = 1.0, step: float = 0.1):
    """The events of one window per moment."""
    events = [
        detector.update(step * index, [Window(step * index - duration, step * index, np.array(row))])
        for index, row in enumerate(scores)
    ]
    events.append(detector.finish(step * len(scores)))
    return [event for event in events if event is not None]


def bump(length: int, peak: float) -> list[float]:
    return [peak * float(np.sin(np.pi * (index + 1) / (length + 1))) for index in range(length)]


def test_one_gesture_gives_one_event_at_its_best_window() -> None:
    rows = [(0.0, value, 1 - value) for value in [0.0, *bump(9, 0.95), *[0.0] * 10]]
    (event,) = run(EventDetector(NAMES, threshold=0.6), rows)
    assert (event.name, event.label) == ("right", 1)
    assert event.score == pytest.approx(0.95)
    assert (event.start, event.end) == pytest.approx((-0.5, 0.5))
    assert 0.5 < event.decided <= 1.0


def test_scores_that_swing_about_the_threshold_give_no_second_event() -> None:
    swinging = [0.7, 0.5, 0.7, 0.5, 0.7, 0.5, 0.7]  # the release is at 0.36
    assert len(run(EventDetector(NAMES, threshold=0.6), [(value, 0.0, 0.3) for value in swinging])) <= 1


def test_a_repeated_gesture_gives_a_second_event() -> None:
    rows = [(value, 0.0, 1 - value) for value in [*bump(8, 0.9), *[0.0] * 12, *bump(8, 0.9), *[0.0] * 3]]
    events = run(EventDetector(NAMES, threshold=0.6), rows)
    assert [event.name for event in events] == ["left", "left"]
    assert events[1].start >= (events[0].start + events[0].end) / 2


def test_one_high_score_alone_is_not_held_long_enough() -> None:
    rows = [(0.0, 0.0, 1.0), (0.99, 0.0, 0.01), (0.0, 0.0, 1.0)]
    assert run(EventDetector(NAMES, threshold=0.6), rows) == []
    assert len(run(EventDetector(NAMES, threshold=0.6, hold_sec=0.0), rows)) == 1


def test_a_better_class_replaces_the_first_before_the_event_is_decided() -> None:
    rows = [
        (0.65, 0.2, 0.15),
        (0.66, 0.3, 0.04),
        (0.67, 0.3, 0.03),
        (0.1, 0.9, 0.0),
        (0.0, 0.95, 0.05),
        (0.0, 0.0, 1.0),
    ]
    assert [event.name for event in run(EventDetector(NAMES, threshold=0.6), rows)] == ["right"]


def test_the_stream_may_end_within_a_gesture() -> None:
    assert len(run(EventDetector(NAMES, threshold=0.6), [(0.9, 0.0, 0.1)] * 3)) == 1


@given(st.lists(st.floats(0, 1), max_size=60))
def test_idle_is_never_an_event(values: list[float]) -> None:
    assert run(EventDetector(NAMES, threshold=0.5), [(0.0, 0.0, value) for value in values]) == []


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=80), st.floats(0.3, 0.95))
def test_events_are_in_order_above_the_threshold_and_do_not_share_half_a_window(
    values: list[tuple[float, float]], threshold: float
) -> None:
    events = run(EventDetector(NAMES, threshold=threshold), [(*pair, 0.0) for pair in values])
    assert all(event.score >= threshold and event.decided >= event.end for event in events)
    for before, after in itertools.pairwise(events):
        assert after.start >= (before.start + before.end) / 2 - 1e-9


@pytest.mark.parametrize("name", ["idle", "None", "No_Gesture", "no gesture", "Doing other things", "background"])
def test_names_of_no_gesture(name: str) -> None:
    assert is_rejected(name)


@pytest.mark.parametrize("name", ["left", "stop sign", "idle hands circle"])
def test_names_of_gestures(name: str) -> None:
    assert not is_rejected(name)
