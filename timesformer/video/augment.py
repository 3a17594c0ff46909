"""Augmentation that keeps the subject in view: geometry, light and colours, the same for a whole clip.

Each part is drawn once a clip, so that all its frames change alike, and changes nothing at its default.

Letters: T frames, C channels, H W pixels of a frame, h w pixels of a clip.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

Size = tuple[int, int]  # height, width


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Random shift, zoom, rotation and perspective of the whole clip; what lies beyond a frame repeats its edge.

    Attributes:
        shift: largest shift in each direction, as a fraction of the clip's side.
        zoom: range of the scale, drawn uniformly in its logarithm; below 1 the frame gets smaller.
        rotation: largest rotation in degrees, to either side.
        perspective: largest shift of each corner on its own, as a fraction of the clip's side.
    """

    shift: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)
    rotation: float = 0.0
    perspective: float = 0.0

    def __bool__(self) -> bool:
        return self != Geometry()

    def draw(self, view: tuple[float, float, float, float], size: Size, generator: Generator) -> np.ndarray:
        """The homography (3, 3) from pixels of a frame to those of the clip.

        Args:
            view: (top, left, height, width) of the frame's part that fills the clip when nothing is drawn.
            size: (height, width) of the clip.
        """
        sides = np.array(size[::-1], np.float64)  # x before y from here on
        scale = math.exp(generator.uniform(*np.log(self.zoom)))
        angle = math.radians(generator.uniform(-self.rotation, self.rotation))
        shift = generator.uniform(-self.shift, self.shift, 2) * sides
        corner_shifts = generator.uniform(-self.perspective, self.perspective, (4, 2)) * sides
        unit = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)
        turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        corners = (unit - 0.5) * sides @ turn.T + 0.5 * sides + shift + corner_shifts
        top, left, height, width = view
        in_frame = [left, top] + unit * [width, height]
        half_pixel = 0.5  # edges of a picture lie half a pixel beyond the centres of its first and last pixels
        return cv2.getPerspectiveTransform(
            (in_frame - half_pixel).astype(np.float32), (corners - half_pixel).astype(np.float32)
        )


@dataclass(frozen=True, kw_only=True)
class Appearance:
    """Random changes of what a clip looks like.

    Attributes:
        gamma: largest change of the exponent of brightness, in its logarithm.
        gray_prob: probability that a clip loses its colours.
        blur: largest standard deviation of a Gaussian blur in pixels; half of the clips stay sharp.
        noise: largest standard deviation of Gaussian noise, of pixel values in 0..1; half of the clips stay clean.
        jpeg_quality: lowest quality of JPEG compression, for half of the clips; 100: none.
    """

    gamma: float = 0.0
    gray_prob: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    jpeg_quality: int = 100

    def __bool__(self) -> bool:
        return self != Appearance()

    def transforms(self) -> list[Callable[[Tensor], Tensor]]:
        """Functions from a clip (T, C, h, w) uint8 to the same; they draw from torch's global generator."""
        from torchvision.transforms import v2  # seconds: not at import of this file
        from torchvision.transforms.v2 import functional

        def half_of(transform: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
            return lambda clip: transform(clip) if torch.rand(()) < 0.5 else clip

        def gamma(clip: Tensor) -> Tensor:
            return functional.adjust_gamma(clip, math.exp(_uniform(-self.gamma, self.gamma)))

        def noise(clip: Tensor) -> Tensor:
            noisy = functional.gaussian_noise(clip / 255, 0.0, _uniform(0, self.noise))  # torchvision 0.21: floats only
            return noisy.mul_(255).round_().to(torch.uint8)

        parts: list[tuple[bool, Callable[[Tensor], Tensor]]] = [
            (self.gamma > 0, gamma),
            (self.gray_prob > 0, v2.RandomGrayscale(self.gray_prob)),
            (self.blur > 0, half_of(v2.GaussianBlur(2 * math.ceil(2 * self.blur) + 1, (0.01, max(self.blur, 0.01))))),
            (self.noise > 0, half_of(noise)),
            (self.jpeg_quality < 100, half_of(lambda clip: compress(clip, round(_uniform(self.jpeg_quality, 100))))),
        ]
        return [transform for is_on, transform in parts if is_on]


def warp(frames: np.ndarray, matrix: np.ndarray, size: Size) -> Tensor:
    """Frames (T, H, W, 3) through one homography: a clip (3, T, h, w) uint8; beyond a frame its edge is repeated."""
    clip = np.empty((3, len(frames), *size), np.uint8)
    for t, frame in enumerate(frames):
        warped = cv2.warpPerspective(frame, matrix, size[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        cv2.split(warped, [clip[0, t], clip[1, t], clip[2, t]])
    return torch.from_numpy(clip)


def compress(clip: Tensor, quality: int) -> Tensor:
    """Each frame of a clip (T, C, h, w) uint8 through JPEG. (torchvision's own is to be removed, since 0.29.)"""
    frames = np.ascontiguousarray(clip.permute(0, 2, 3, 1).numpy())
    encoded = (cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1] for frame in frames)
    decoded = np.stack([np.asarray(cv2.imdecode(each, cv2.IMREAD_UNCHANGED)) for each in encoded])
    return torch.from_numpy(decoded).permute(0, 3, 1, 2).contiguous()


def _uniform(low: float, high: float) -> float:
    return float(torch.empty(()).uniform_(low, high))
