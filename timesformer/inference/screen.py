"""What a viewer of `live` sees: the stream with the newest answer burnt in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from timesformer.inference.events import Event, Window
from timesformer.video.overlay import with_text

SHOWN_SEC = 2.0  # of an event


@dataclass
class Screen:
    """Hands every frame of a stream on with a text: an event for two seconds, else the best class in brackets.

    Attributes:
        class_names: of the scores.
        outputs: take the time in seconds and the picture, uint8 (H, W, 3).
        text: that is burnt in now.
    """

    class_names: Sequence[str]
    outputs: Sequence[Callable[[float, np.ndarray], None]]
    text: str = ""
    _until: float = float("-inf")

    def frame(self, at: float, frame: np.ndarray) -> None:
        """A frame has come."""
        picture = with_text(frame, self.text)
        for output in self.outputs:
            output(at, picture)

    def moment(self, now: float, windows: Sequence[Window]) -> None:
        """Windows that end now have scores."""
        if now >= self._until:
            best = max((window.scores for window in windows), key=max, default=np.zeros(0))
            self.text = f"({self.class_names[int(best.argmax())]} {best.max():.2f})" if len(best) else ""

    def event(self, event: Event) -> None:
        """A gesture is decided."""
        self.text, self._until = f"{event.name} {event.score:.2f}", event.decided + SHOWN_SEC
