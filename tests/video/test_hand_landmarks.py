"""Hand landmarks: what mediapipe finds becomes an array; what to install is said. Mediapipe itself is a stand-in."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from timesformer.utils.errors import UserError
from timesformer.video.hand_landmarks import HandFinder


class Hands:
    """Finds a hand in frames that are not black, at the frame's first value."""

    closed = 0

    def __init__(self, **settings: Any) -> None:
        assert settings["static_image_mode"] and settings["max_num_hands"] == 1

    def process(self, frame: np.ndarray) -> SimpleNamespace:
        assert frame.flags.c_contiguous
        hand = SimpleNamespace(landmark=[SimpleNamespace(x=frame[0, 0, 0] / 100, y=i / 21) for i in range(21)])
        return SimpleNamespace(multi_hand_landmarks=[hand] if frame.any() else None)

    def close(self) -> None:
        Hands.closed += 1


def install(monkeypatch: pytest.MonkeyPatch, **attributes: object) -> None:
    module = ModuleType("mediapipe")
    vars(module).update(attributes)
    monkeypatch.setitem(sys.modules, "mediapipe", module)


def test_frames_without_a_hand_are_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, solutions=SimpleNamespace(hands=SimpleNamespace(Hands=Hands)))
    frames = np.zeros((3, 8, 10, 3), np.uint8)
    frames[1] = 50
    with HandFinder() as find:
        landmarks = find(frames[:, :, ::-1])
    assert landmarks.shape == (3, 21, 2) and landmarks.dtype == np.float32 and Hands.closed == 1
    assert np.isnan(landmarks[[0, 2]]).all()
    np.testing.assert_allclose(landmarks[1], [(0.5, i / 21) for i in range(21)], atol=1e-6)


def test_without_mediapipe_or_its_model_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(UserError, match=r"need mediapipe .*Type pip install \"mediapipe==0\.10\.14\""):
        HandFinder()
    install(monkeypatch, __version__="1.2.3")
    with pytest.raises(UserError, match=r"mediapipe 1\.2\.3 comes without a hand model\. Type pip install"):
        HandFinder()
