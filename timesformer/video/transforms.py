"""Spatial transforms: uint8 frames of a video to uint8 clips.

Frames arrive as (T, H, W, 3) RGB. Everything stays uint8 until `ClipSpec.normalize`, which runs on the device of
the model. Frames are resized by OpenCV: bilinear, no antialias, pixel centres at half-integers, the long side
rounded down, so that released weights see what they were trained on (at most one grey level apart).

Letters: V views of one video, B clips, C channels, T frames, H W pixels of a frame, h w pixels of a crop.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from torch import Tensor

from timesformer.utils.random import torch_seed
from timesformer.video.augment import Appearance, Geometry, Size, warp

cv2.setNumThreads(1)  # loader processes are the parallelism; OpenCV's own threads do not survive a fork

_MAGNITUDES = 31  # torchvision's number of RandAugment strengths; the last is magnitude 10


@dataclass(kw_only=True)
class TrainTransform:
    """Random crop, flip and colours of one training clip, the same for all its frames."""

    crop_size: Size  # of the result, in pixels
    jitter_scales: tuple[int, int]  # range of the short side before the crop, which the frame always covers
    crop_mode: str  # "crop" scales and crops; "full" resizes the whole frame to the crop size, cutting nothing
    inverse_uniform: bool  # draw the short side uniformly in 1/size, as the SSv2 recipes do
    flip: bool  # left-right in half of the calls
    auto_augment: str  # RandAugment in timm's notation (see `parse_rand_augment`); empty: none
    color_jitter: float  # strength of brightness, contrast and saturation jitter; 0: none
    erase_prob: float  # probability that one rectangle is painted over in all frames (Zhong et al., 2020)
    fill: Sequence[float]  # colour of erased and uncovered pixels, RGB in 0..1: the mean that normalisation subtracts
    geometry: Geometry = field(default_factory=Geometry)
    appearance: Appearance = field(default_factory=Appearance)

    def __post_init__(self) -> None:
        self.fill = [float(round(value * 255)) for value in self.fill]
        self.rand_augment = parse_rand_augment(self.auto_augment) if self.auto_augment else None
        self.colors: list[Callable[[Tensor], Tensor]] = []
        if self.appearance:
            self.colors += self.appearance.transforms()
        if self.auto_augment or self.color_jitter > 0 or self.erase_prob > 0:
            from torchvision.transforms import v2  # seconds: not at import of this file

            if self.color_jitter > 0:
                self.colors.append(v2.ColorJitter(self.color_jitter, self.color_jitter, self.color_jitter))
            if self.erase_prob > 0:
                self.colors.append(v2.RandomErasing(p=self.erase_prob, value=self.fill, inplace=True))

    def __call__(
        self, frames: np.ndarray, generator: np.random.Generator, *, may_flip: bool = True
    ) -> tuple[Tensor, bool]:
        """Frames (T, H, W, 3) uint8 to a clip (C, T, h, w) uint8, and whether it was flipped.

        Without `may_flip` the clip is that of the same random numbers, not flipped.
        """
        resized, top, left = self.crop_size, 0, 0
        if self.crop_mode == "crop":
            resized = scaled_size(frames.shape[1:3], self._draw_short_side(generator), self.crop_size)
            slack = np.subtract(resized, self.crop_size)
            top, left = generator.integers(0, slack, endpoint=True).tolist()
        flipped = self.flip and bool(generator.random() < 0.5) and may_flip
        if self.geometry:
            clip = self._warp(frames, resized, (top, left), flipped, generator)
        else:
            clip = _resize_and_crop(frames, resized, self.crop_size, [(top, left)], flipped)[0]
        if self.rand_augment or self.colors:
            clip = self._augment(clip, generator)
        return clip, flipped

    def _warp(
        self, frames: np.ndarray, resized: Size, corner: tuple[int, int], flipped: bool, generator: np.random.Generator
    ) -> Tensor:
        """Resize, crop, flip and random geometry as one warp of each frame."""
        scale = np.array(frames.shape[1:3]) / resized
        view = (*(scale * corner), *(scale * self.crop_size))
        matrix = self.geometry.draw(view, self.crop_size, generator)
        if flipped:
            matrix = np.array([[-1, 0, self.crop_size[1] - 1], [0, 1, 0], [0, 0, 1]]) @ matrix
        return warp(frames, matrix, self.crop_size)

    def _draw_short_side(self, generator: np.random.Generator) -> int:
        low, high = self.jitter_scales
        if self.inverse_uniform:
            return round(1 / generator.uniform(1 / high, 1 / low))
        return round(generator.uniform(low, high))

    def _augment(self, clip: Tensor, generator: np.random.Generator) -> Tensor:
        """Change the clip (C, T, h, w) by torchvision, which draws from torch's global generator."""
        transforms = self._draw_rand_augment(generator) + self.colors
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(generator))
            video = clip.transpose(0, 1).contiguous()  # (T, C, h, w), the layout torchvision takes
            for transform in transforms:
                video = transform(video)
        return video.transpose(0, 1).contiguous()

    def _draw_rand_augment(self, generator: np.random.Generator) -> list[Callable[[Tensor], Tensor]]:
        """The clip's RandAugment operations (Cubuk et al., 2020), each with a magnitude of its own."""
        if self.rand_augment is None:
            return []
        from torchvision.transforms import v2  # imported already, with the first of these transforms

        magnitude, num_ops, std = self.rand_augment
        drawn = np.clip(generator.normal(magnitude, std, num_ops), 0, 10)
        levels = np.rint(drawn / 10 * (_MAGNITUDES - 1)).astype(int).tolist()
        how = {"interpolation": v2.InterpolationMode.BILINEAR, "fill": self.fill}
        return [v2.RandAugment(1, level, _MAGNITUDES, **how) for level in levels]


@dataclass(kw_only=True)
class EvalTransform:
    """The fixed views of a validation or test clip."""

    crop_size: Size  # of the result, in pixels
    num_crops: int  # 1 (centre) or 3 (left, centre, right where there is more to spare in width; else top to bottom)
    crop_mode: str  # "crop" scales the frame to just cover the crop, then crops; "full" resizes it: one view
    # The frame is scaled to this short side where that covers the crop. (The original scales to its smallest jitter
    # scale when it takes one crop, to the crop size when it takes three.)
    short_side: int = 0

    def __post_init__(self) -> None:
        self.num_crops = self.num_crops if self.crop_mode == "crop" else 1

    def __call__(self, frames: np.ndarray) -> Tensor:
        """Frames (T, H, W, 3) uint8 to views (V, C, T, h, w) uint8, V = `num_crops`."""
        resized = self.crop_size
        if self.crop_mode == "crop":
            resized = scaled_size(frames.shape[1:3], self.short_side, self.crop_size)
        corners = crop_corners(resized, self.crop_size, self.num_crops)
        return _resize_and_crop(frames, resized, self.crop_size, corners, flipped=False)


def parse_rand_augment(notation: str) -> tuple[float, int, float]:
    """Magnitude, operations per clip and spread of the magnitude in timm's notation, ``rand-m7-n2-mstd0.5-inc1``.

    inc1, a larger magnitude means more change in every operation, is always so in torchvision.
    """
    found = dict(re.findall(r"-(m|n|mstd)([\d.]+)(?=-|$)", notation))
    return float(found["m"]), int(found.get("n", 2)), float(found.get("mstd", 0))


def scaled_size(frame_size: Sequence[int], short_side: int, crop_size: Size) -> Size:
    """Size of the frame scaled to `short_side` or, if that is too small, to just cover the crop; aspect kept.

    The side that the scale was not chosen for is rounded down.
    """
    height, width = frame_size
    shortest = min(height, width)
    scaled = height * short_side // shortest, width * short_side // shortest
    if scaled[0] >= crop_size[0] and scaled[1] >= crop_size[1]:
        return scaled
    if crop_size[0] * width >= crop_size[1] * height:
        return crop_size[0], width * crop_size[0] // height
    return height * crop_size[1] // width, crop_size[1]


def crop_corners(frame_size: Size, crop_size: Size, num_crops: int) -> list[tuple[int, int]]:
    """(top, left) of 1 centre crop, or of 3 spread along the side with more to spare (the width on a draw).

    Half pixels of the centre are rounded up.
    """
    height, width = frame_size
    slack_y, slack_x = height - crop_size[0], width - crop_size[1]
    centre = ((slack_y + 1) // 2, (slack_x + 1) // 2)
    if num_crops == 1:
        return [centre]
    if slack_y > slack_x:
        return [(0, centre[1]), centre, (slack_y, centre[1])]
    return [(centre[0], 0), centre, (centre[0], slack_x)]


def _resize_and_crop(
    frames: np.ndarray, resized: Size, crop_size: Size, corners: list[tuple[int, int]], flipped: bool
) -> Tensor:
    """Resize every frame once and cut each crop from it: (V, C, T, h, w) uint8, one view per corner.

    Whole frames are resized, since that is exact and was no slower than warping only the crop's pixels.
    """
    views = np.empty((len(corners), 3, len(frames), *crop_size), np.uint8)
    for t, frame in enumerate(frames):
        if frame.shape[:2] != resized:
            frame = cv2.resize(frame, resized[::-1], interpolation=cv2.INTER_LINEAR)
        for view, (top, left) in zip(views, corners, strict=True):
            crop = frame[top : top + crop_size[0], left : left + crop_size[1]]
            crop = cv2.flip(crop, 1) if flipped else crop
            cv2.split(crop, [view[0, t], view[1, t], view[2, t]])  # into place: interleaved pixels to planes
    return torch.from_numpy(views)
