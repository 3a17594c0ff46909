"""Frames made small: to compare videos with, and to show many of them."""

from __future__ import annotations

import cv2
import numpy as np


def grey_thumbnail(frame: np.ndarray, side: int) -> np.ndarray:
    """The grey levels of an RGB frame (H, W, 3), squeezed to a square by means over areas: float32 (side, side)."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA)


def shrunk(frames: np.ndarray, height: int) -> np.ndarray:
    """RGB frames (T, H, W, 3) at most `height` pixels high, of the same shape."""
    if frames.shape[1] <= height:
        return frames
    width = max(1, round(frames.shape[2] * height / frames.shape[1]))
    return np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in frames])
