"""What is burnt in for a viewer: an event for two seconds, else the best class in brackets."""

from __future__ import annotations

import numpy as np

from timesformer.inference.events import Event, Window
from timesformer.inference.screen import SHOWN_SEC, Screen


def test_an_event_stays_and_the_frame_is_left_as_it_is() -> None:
    got: list[tuple[float, np.ndarray]] = []
    screen = Screen(["wave", "idle"], [lambda at, picture: got.append((at, picture))])
    frame = np.full((60, 80, 3), 100, np.uint8)
    screen.frame(0.0, frame)
    assert (got[0][1] == frame).all()
    screen.moment(1.0, [])
    assert screen.text == ""
    windows = [Window(0.0, 1.0, np.array([0.6, 0.4])), Window(0.5, 1.0, np.array([0.3, 0.7]))]
    screen.moment(1.0, windows)
    assert screen.text == "(idle 0.70)"
    screen.event(Event(0, "wave", 0.9, 0.0, 1.0, decided=1.0))
    screen.moment(1.0 + SHOWN_SEC - 0.1, windows)
    assert screen.text == "wave 0.90"
    screen.frame(2.0, frame)
    assert got[1][0] == 2.0 and (got[1][1] != frame).any() and (frame == 100).all()
    screen.moment(1.0 + SHOWN_SEC, windows)
    assert screen.text == "(idle 0.70)"
