"""Frames of one wide gesture, drawn when they are read: any hand, in front of anything, draws a class's path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from timesformer.datasets.gestures import hands
from timesformer.datasets.gestures.curves import smooth_noise
from timesformer.datasets.gestures.scenes import background, colour
from timesformer.datasets.gestures.strokes import STROKES, Drawing
from timesformer.utils.random import numpy_generator

NUM_FRAMES, FPS = 24, 12
EDGE = 0.05  # share of the frame that the fingertip keeps away from its borders,
NEAR_EDGE = 0.14  # and from the border where the arm comes from, so that some of the hand is seen
MARGIN = 0.15  # share of the frame by which the background is larger on each side, for the camera to move
MAX_BEND = 0.9  # of the wrist, in radians
CALM = 0.4  # share of the clips without clutter, other movement or changes of light; a model learns from them first
GENERATOR_KEY = 2  # keeps these random numbers apart from those of the dataset `gestures`


class Motion(NamedTuple):
    """Where everything is in each frame, in pixels and radians; float64 arrays over T frames."""

    pose: str  # of the hand
    tip: np.ndarray  # (T, 2) the highest point of the hand, which draws
    wrist: np.ndarray  # (T, 2)
    hand_turn: np.ndarray  # (T,) from pointing up, clockwise
    arm_turn: np.ndarray  # (T,) of the forearm, from lying straight below the wrist
    length: np.ndarray  # (T,) of the hand
    left_handed: bool
    camera: np.ndarray  # (T, 4) of the background: shift x and y, zoom, turn


@dataclass(frozen=True)
class WideClip:
    """A clip as an array of frames, uint8 RGB (T, H, W, 3), of which only those that are indexed are drawn.

    The frames depend on the fields alone.
    """

    seed: int
    split: int  # 0, 1 or 2
    index: int  # in the split
    frame_size: tuple[int, int]  # (height, width) in pixels

    @property
    def label(self) -> int:
        """The class; each as often as another."""
        return self.index % len(STROKES)

    @property
    def calm(self) -> bool:
        """Whether nothing but the hand moves, in front of one surface."""
        return bool(self._generator(2).random() < CALM)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(T, H, W, 3)."""
        return (NUM_FRAMES, *self.frame_size, 3)

    def __len__(self) -> int:
        return NUM_FRAMES

    def motion(self) -> Motion:
        """Where hand and camera are in each frame."""
        return _motion(self._generator(0), self.label, self.frame_size, calm=self.calm)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """The frames of these `indices`, int64 (N,): uint8 (N, H, W, 3)."""
        generator, motion = self._generator(1), self.motion()
        draw = _Drawer(generator, motion, self.frame_size, calm=self.calm)
        return np.stack([draw(int(index)) for index in np.arange(NUM_FRAMES)[indices]])

    def _generator(self, part: int) -> np.random.Generator:
        return numpy_generator(self.seed, GENERATOR_KEY, self.split, self.index, part)


def _motion(generator: np.random.Generator, label: int, frame_size: tuple[int, int], *, calm: bool) -> Motion:
    height, width = frame_size
    frame = np.array([width, height], np.float64)
    drawing = Drawing.sample(generator, label)
    drawn = drawing.positions(label, NUM_FRAMES)
    tremor, shake, slow = (smooth_noise(generator, NUM_FRAMES, fps=FPS, hertz=hertz) for hertz in (3.0, 3.0, 0.8))
    shake *= 0.0 if calm else generator.choice([0.002, 0.005, 0.015])
    elbow, left_handed = _elbow(generator, frame)
    tip = _into_frame(generator, drawn[:, :2] + generator.uniform(0.0, 0.006) * tremor + 0.5 * shake, elbow / frame)
    tip *= frame
    middle = tip.mean(axis=0)

    length = height * generator.uniform(0.28, 0.68) * 2.0 ** (0.6 * drawn[:, 2] + 0.06 * slow[:, 0])
    length *= 1.0 + generator.uniform(-0.3, 0.6) * (tip[:, 1] - middle[1]) / height  # nearer where it is lower
    reach = np.linalg.norm(elbow - middle)
    elbow = middle + (elbow - middle) * max(1.0, 3.0 * length.max() / reach)  # a forearm is longer than a hand
    late = np.stack([np.convolve(np.pad(axis, (4, 0), "edge"), np.full(5, 0.2), "valid") for axis in tip.T], axis=1)
    elbow = elbow + generator.uniform(0.1, 0.5) * (late - middle)
    tip = tip + _entrance(generator, drawing, tip, elbow, height)

    towards = tip - elbow
    arm = np.unwrap(np.arctan2(towards[:, 0], -towards[:, 1]))  # of the whole arm, from pointing up
    upright = abs(arm.mean()) < 1.3  # an arm from below: the hand is bent at the wrist to point up
    follow = generator.uniform(-0.1, 0.5) if upright else generator.uniform(0.7, 1.0)
    turn = follow * arm.mean() + generator.normal(0.0, 0.15) + generator.uniform(0.1, 0.5) * (arm - arm.mean())
    turn += 0.05 * slow[:, 1] + generator.normal(0.0, 0.25) * (tip[:, 0] - middle[0]) / width
    turn = np.clip(turn, arm - MAX_BEND, arm + MAX_BEND)
    pose = str(generator.choice([*hands.POSES], p=[*hands.POSES.values()]))
    top = hands.KNUCKLES if pose == "fist" else hands.FINGERTIP
    side = np.array([-1.0 if left_handed else 1.0, 1.0])
    wrist = tip + length[:, None] * _turned((hands.WRIST - top) * side, turn)
    below = elbow - wrist

    drift = np.linspace(-0.5, 0.5, NUM_FRAMES)[:, None] * generator.normal(0.0, (0.04, 0.04, 0.04, 0.03))
    camera = drift * generator.choice([0.2, 1.0, 2.0]) + np.column_stack([shake, 0.01 * slow])
    camera *= 0.0 if calm else [width, height, 1.0, 1.0]
    return Motion(pose, tip, wrist, turn, np.arctan2(-below[:, 0], below[:, 1]), length, left_handed, camera)


def _into_frame(generator: np.random.Generator, drawn: np.ndarray, elbow: np.ndarray) -> np.ndarray:
    """`drawn` (T, 2) at a random place in the frame, smaller where it does not fit; all in shares of the frame."""
    first = np.where(elbow < 0.0, NEAR_EDGE, EDGE)
    room = 1.0 - first - np.where(elbow > 1.0, NEAR_EDGE, EDGE)
    low, extent = drawn.min(axis=0), np.ptp(drawn, axis=0)
    fit = np.minimum(1.0, room / (extent + 1e-9))
    return np.asarray((drawn - low) * fit + first + (room - extent * fit) * generator.beta(1.5, 1.5, 2))


def _elbow(generator: np.random.Generator, frame: np.ndarray) -> tuple[np.ndarray, bool]:
    """Where the arm comes from, in pixels outside the frame, and whether it is a left one."""
    kind = generator.random()
    if kind < 0.8:  # below, to the right
        share = generator.uniform((0.6, 1.3), (1.5, 2.1))
    elif kind < 0.9:  # from the right
        share = generator.uniform((1.4, 0.3), (1.9, 1.2))
    else:  # from anywhere: somebody else's, or a camera that lies differently
        angle = generator.uniform(0.0, 2 * np.pi)
        share = 0.5 + 1.2 * np.array([np.cos(angle), np.sin(angle)])
    left_handed = generator.random() < 0.35
    if left_handed:
        share[0] = 1.0 - share[0]
    return share * frame, left_handed


def _entrance(
    generator: np.random.Generator, drawing: Drawing, tip: np.ndarray, elbow: np.ndarray, height: int
) -> np.ndarray:
    """How far the hand is from its path before and after it draws, when it comes from and goes out of the frame."""
    time, timing = np.linspace(0.0, 1.0, NUM_FRAMES), drawing.timing
    comes, goes = generator.random(2) < 0.2
    away = np.zeros(NUM_FRAMES)
    if comes:
        away += np.clip(1.0 - time / max(timing.rest_before, 1e-9), 0.0, 1.0) ** 2
    if goes:
        away += np.clip(1.0 - (1.0 - time) / max(timing.rest_after, 1e-9), 0.0, 1.0) ** 2
    out = elbow - tip
    return np.asarray(1.2 * height * away[:, None] * out / np.linalg.norm(out, axis=1, keepdims=True))


def _turned(vector: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """`vector` (2,) turned clockwise on the screen by each of `turn` (T,): (T, 2)."""
    cos, sin = np.cos(turn), np.sin(turn)
    return np.stack([cos * vector[0] - sin * vector[1], sin * vector[0] + cos * vector[1]], axis=1)


class _Drawer:
    """Draws single frames of one clip."""

    def __init__(
        self, generator: np.random.Generator, motion: Motion, frame_size: tuple[int, int], *, calm: bool
    ) -> None:
        height, width = self.size = frame_size
        self.motion = motion
        scene_size = round(height * (1 + 2 * MARGIN)), round(width * (1 + 2 * MARGIN))
        self.scene = background(generator, scene_size, calm=calm)
        person = hands.Person.sample(generator, motion.pose)
        if generator.random() < 0.15:  # against the light
            person.skin[:] *= generator.uniform(0.15, 0.6)
        self.pixels = max(16, round(1.1 * float(np.median(motion.length))))
        self.hand = hands.hand_picture(generator, person, self.pixels)
        self.arm_pixels = max(8, self.pixels // 2)  # it is smoother
        self.arm = hands.arm_picture(generator, person, self.arm_pixels)
        self.shutter = generator.uniform(0.0, 0.8) * (generator.random() < 0.5)  # share of a frame's time
        self.shadow = generator.uniform(0.15, 0.6) * (generator.random() < 0.25)  # of the hand on the wall
        self.shadow_shift = generator.normal(0.0, 0.12, 2) * height
        self.passer = self._passer(generator) if not calm and generator.random() < 0.2 else None
        self.gain, self.tone = self._gain(generator, calm=calm), generator.uniform(0.75, 1.35)

    def __call__(self, index: int) -> np.ndarray:
        """Frame `index`: uint8 (H, W, 3)."""
        height, width = self.size
        frame = cv2.warpAffine(self.scene, self._camera(index), (width, height), borderMode=cv2.BORDER_REFLECT)
        if self.passer:
            path, axes, tone = self.passer
            cv2.ellipse(frame, (16 * path[index]).astype(int).tolist(), axes, 0, 0, 360, tone, -1, cv2.LINE_AA, shift=4)
        layer = self._hand_and_arm(index)
        if self.shutter:
            layer = self._blurred(layer, index)
        alpha = layer[:, :, 3]
        if self.shadow:
            shifted = np.array([[1.0, 0.0, self.shadow_shift[0]], [0.0, 1.0, self.shadow_shift[1]]])
            dark = cv2.blur(cv2.warpAffine(alpha, shifted, (width, height)), (7, 7))
            frame = _dimmed(frame, cv2.convertScaleAbs(dark, alpha=self.shadow))
        frame = cv2.add(_dimmed(frame, alpha), layer[:, :, :3])
        levels = np.arange(256)[:, None] / 255.0
        table = np.clip(255.0 * self.gain[index] * levels**self.tone, 0.0, 255.0).astype(np.uint8)
        return np.asarray(cv2.LUT(frame, table[None]))

    def _camera(self, index: int) -> np.ndarray:
        """From the background's pixels to the frame's."""
        height, width = self.size
        shift_x, shift_y, zoom, turn = self.motion.camera[index]
        cos, sin = (1.0 + zoom) * np.cos(turn), (1.0 + zoom) * np.sin(turn)
        matrix = np.array([[cos, -sin, 0.0], [sin, cos, 0.0]])
        middle = np.array([self.scene.shape[1], self.scene.shape[0]]) / 2
        matrix[:, 2] = np.array([width / 2 + shift_x, height / 2 + shift_y]) - matrix[:, :2] @ middle
        return matrix

    def _hand_and_arm(self, index: int) -> np.ndarray:
        """Both on a transparent frame, uint8 (H, W, 4), colours times alpha."""
        height, width = self.size
        motion, end_of_arm = self.motion, np.array([hands.ARM_SIZE[0] / 2, hands.ARM_OVERLAP])
        arm = self._place(self.arm_pixels * end_of_arm, index, motion.arm_turn[index], self.arm_pixels)
        hand = self._place(self.pixels * hands.WRIST, index, motion.hand_turn[index], self.pixels)
        layer = cv2.warpAffine(self.arm, arm, (width, height))
        above = cv2.warpAffine(self.hand, hand, (width, height))
        return cv2.add(cv2.multiply(layer, 255 - cv2.merge([above[:, :, 3]] * 4), scale=1 / 255), above)

    def _place(self, point: np.ndarray, index: int, turn: float, pixels: int) -> np.ndarray:
        """Puts `point` of a picture with `pixels` to a hand at the wrist; mirrored for a left hand."""
        scale = self.motion.length[index] / pixels
        cos, sin = scale * np.cos(turn), scale * np.sin(turn)
        matrix = np.array([[cos, -sin, 0.0], [sin, cos, 0.0]])
        if self.motion.left_handed:
            matrix[:, 0] *= -1.0
        matrix[:, 2] = self.motion.wrist[index] - matrix[:, :2] @ point
        return matrix

    def _blurred(self, layer: np.ndarray, index: int) -> np.ndarray:
        """Blurred along the way that the hand moves while the shutter is open."""
        tip = self.motion.tip
        step = self.shutter * (tip[min(index + 1, NUM_FRAMES - 1)] - tip[max(index - 1, 0)]) / 2
        reach = int(min(np.hypot(*step), 16.0)) // 2
        if not reach:
            return layer
        x, y = np.round(reach * step / np.hypot(*step)).astype(int).tolist()
        kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
        cv2.line(kernel, (reach - x, reach - y), (reach + x, reach + y), 1.0)
        return cv2.filter2D(layer, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)

    def _passer(self, generator: np.random.Generator) -> tuple[np.ndarray, list[int], list[float]]:
        """Something else that moves: its path (T, 2), its half axes in sixteenths of a pixel, its colour."""
        height, width = self.size
        ends = generator.uniform(-0.2, 1.2, (2, 2)) * (width, height)
        path = np.linspace(ends[0], ends[1], NUM_FRAMES)
        path += 0.08 * height * smooth_noise(generator, NUM_FRAMES, fps=FPS, hertz=1.0)
        axes = (16 * height * generator.uniform(0.03, 0.25, 2)).astype(int).tolist()
        tone = hands.skin_colour(generator) if generator.random() < 0.4 else colour(generator)
        return path, axes, tone.tolist()

    def _gain(self, generator: np.random.Generator, *, calm: bool) -> np.ndarray:
        """What each frame and channel is multiplied with: float64 (T, 3)."""
        dark, bright = generator.random(2) < (0.1, 0.12)
        level = generator.uniform(0.2, 0.55) if dark else generator.uniform(1.2, 1.8) if bright else 1.0
        level = max(level, min(1.0, 30.0 / (self.scene.mean() + 1.0)))  # something is seen of a dark scene
        time = np.linspace(-0.5, 0.5, NUM_FRAMES)[:, None]
        gain = np.tile(level * generator.normal(1.0, 0.06, 3), (NUM_FRAMES, 1))
        if calm:
            return gain
        gain *= 1.0 + generator.normal(0.0, 0.12) * time
        if generator.random() < 0.1:  # the camera corrects its exposure or its white balance
            gain = gain * np.where(time > generator.uniform(-0.4, 0.4), generator.uniform(0.7, 1.3, 3), 1.0)
        if generator.random() < 0.15:  # flicker
            gain = gain * generator.normal(1.0, 0.06, (NUM_FRAMES, 1))
        return gain


def _dimmed(frame: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """What `alpha`, uint8 (H, W), leaves of the frame."""
    return np.asarray(cv2.multiply(frame, cv2.cvtColor(255 - alpha, cv2.COLOR_GRAY2BGR), scale=1 / 255))
