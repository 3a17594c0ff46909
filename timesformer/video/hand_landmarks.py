"""Hand landmarks of frames, found by mediapipe (the extra `[hands]`)."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from timesformer.utils.errors import UserError

NUM_LANDMARKS = 21  # of a hand; the first is the wrist
INSTALL = 'pip install "mediapipe==0.10.14" (Python 3.10 to 3.12), or the extra [hands] of this package'


class HandFinder:
    """Finds the clearest hand of each frame, with the model that is part of mediapipe 0.10; a context manager.

    Args:
        min_confidence: of the detector. It is low, so that blurred and dark hands are found as well.

    Raises:
        UserError: mediapipe is not installed, or is a version without a model.
    """

    def __init__(self, *, min_confidence: float = 0.1) -> None:
        self._hands = mediapipe_hands().Hands(
            static_image_mode=True, max_num_hands=1, min_detection_confidence=min_confidence
        )

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Landmarks of each frame.

        Args:
            frames: uint8 RGB (T, H, W, 3).

        Returns:
            float32 (T, 21, 2): x and y, from 0 to 1 within the frame; NaN in frames without a hand.
        """
        landmarks = np.full((len(frames), NUM_LANDMARKS, 2), np.nan, np.float32)
        for row, frame in zip(landmarks, frames, strict=True):
            if found := self._hands.process(np.ascontiguousarray(frame)).multi_hand_landmarks:
                row[:] = [(point.x, point.y) for point in found[0].landmark]
        return landmarks

    def __enter__(self) -> HandFinder:
        return self

    def __exit__(self, *exc: object) -> None:
        self._hands.close()


def mediapipe_hands() -> Any:
    """The module `mediapipe.solutions.hands`, whose model comes with the package.

    Raises:
        UserError: it cannot be imported; the message says what to install.
    """
    os.environ.setdefault("GLOG_minloglevel", "2")  # errors only
    try:
        import mediapipe
    except ImportError as error:
        raise UserError(f"hand landmarks need mediapipe ({error}). Type {INSTALL}") from error
    if not hasattr(mediapipe, "solutions"):
        version = getattr(mediapipe, "__version__", "this version")
        raise UserError(f"mediapipe {version} comes without a hand model. Type {INSTALL}")
    return mediapipe.solutions.hands
