"""Gestures of a stream: one event each, from the scores of windows that end now. Pure arithmetic, no video."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

# Classes of no gesture, without blanks, hyphens and underscores.
REJECTED_NAMES = {"idle", "none", "nogesture", "background", "nothing", "doingnothing", "doingotherthings"}


@dataclass(frozen=True)
class Window:
    """Scores (K,) of the classes over the time from `start` to `end`, in seconds."""

    start: float
    end: float
    scores: np.ndarray


@dataclass(frozen=True)
class Event:
    """A gesture that was seen: its class, the window that shows it best, and when it was decided, in seconds."""

    label: int
    name: str
    score: float
    start: float
    end: float
    decided: float


def is_rejected(name: str) -> bool:
    """Whether a class of this name means that there is no gesture."""
    return re.sub(r"[\s_-]+", "", name.casefold()) in REJECTED_NAMES


@dataclass
class EventDetector:
    """Turns scores over time into one event for each gesture.

    A score from `threshold` begins an event and the best window so far is its gesture. The event is decided when its
    score falls below `release`, or when no better window came for `patience_sec`. Then windows that begin before the
    middle of the gesture's window no longer count, and its class no longer until its score was below `release`, so
    that one gesture gives one event and a repeated one two.

    Attributes:
        class_names: of the scores; those that `is_rejected` never become events.
        threshold: a score that begins an event, 0 to 1.
        release: a score that ends it, at most `threshold`.
        patience_sec: how long to wait for a better window.
        hold_sec: how long the score has to be above the threshold before an event counts.
    """

    class_names: Sequence[str]
    threshold: float
    release: float = 0.0
    patience_sec: float = 0.5
    hold_sec: float = 0.2
    _best: tuple[Window, int] | None = None
    _above_since: float | None = None
    _armed_from: float = float("-inf")
    _spent: int = -1  # the class of the last event, until its score has fallen
    _gestures: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.release = self.release or 0.6 * self.threshold
        self._gestures = np.array([index for index, name in enumerate(self.class_names) if not is_rejected(name)])

    def update(self, now: float, windows: Sequence[Window]) -> Event | None:
        """Take the windows that end now; the event that this decides, or None."""
        if self._spent >= 0 and max((window.scores[self._spent] for window in windows), default=0.0) < self.release:
            self._spent = -1
        best, label, score = self._strongest(windows)
        if score < self.threshold:
            self._above_since = None
        elif self._above_since is None:
            self._above_since = now
        held = self._above_since is not None and now - self._above_since >= self.hold_sec - 1e-6
        if best is not None and held and (self._best is None or score > self._best_score):
            self._best = best, label
        elif self._best is not None and (score < self.release or now - self._best[0].end >= self.patience_sec):
            return self.finish(now)
        return None

    def finish(self, now: float) -> Event | None:
        """Decide the event under way, if there is one: at the end of a stream."""
        if self._best is None:
            return None
        window, label = self._best
        score = self._best_score
        self._best, self._above_since = None, None
        self._armed_from, self._spent = (window.start + window.end) / 2, label
        return Event(label, self.class_names[label], score, window.start, window.end, now)

    @property
    def _best_score(self) -> float:
        assert self._best is not None
        return float(self._best[0].scores[self._best[1]])

    def _strongest(self, windows: Sequence[Window]) -> tuple[Window | None, int, float]:
        best, label, score = None, -1, 0.0
        gestures = self._gestures[self._gestures != self._spent]
        for window in windows:
            if window.start >= self._armed_from and len(gestures):
                index = int(gestures[window.scores[gestures].argmax()])
                if window.scores[index] > score:
                    best, label, score = window, index, float(window.scores[index])
        return best, label, score
