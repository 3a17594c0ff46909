"""Draws a hand and a forearm as pictures that a clip then moves: shaded, RGB times alpha and alpha, uint8."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

# Lengths are in hands: from the fingertip to the wrist of a pointing hand. The hand points up; its picture
# is HAND_SIZE hands wide and high, with these parts at these points (x right, y down).
HAND_SIZE = (1.0, 1.3)
FINGERTIP = np.array([0.42, 0.12])
KNUCKLES = np.array([0.6, 0.46])
WRIST = np.array([0.68, 1.07])
# The forearm lies below the wrist, which is in the middle of its upper end, ARM_OVERLAP from the edge.
ARM_SIZE = (1.0, 4.5)
ARM_OVERLAP = 0.12

# Outline of the fist of a right hand, seen from its back, clockwise from the index finger's root.
_FIST = np.array(
    [(0.4, 0.57), (0.52, 0.47), (0.64, 0.46), (0.75, 0.51), (0.83, 0.6), (0.85, 0.75), (0.82, 0.95),
     (0.84, 1.4), (0.52, 1.4), (0.46, 0.98), (0.39, 0.8)]
)  # fmt: skip
_OTHER_FINGERS = ((0.55, 0.54, 0.57, 0.17), (0.67, 0.55, 0.69, 0.22), (0.77, 0.63, 0.85, 0.38))  # root, tip
POSES = {"point": 0.76, "two": 0.08, "open": 0.09, "fist": 0.07}  # and how often each is seen


@dataclass(frozen=True)
class Person:
    """The look of one hand and its arm."""

    pose: str  # a key of POSES
    skin: np.ndarray  # float64 (3,) RGB in 0..255
    width: float  # of hand and arm, relative to the usual
    finger: float  # thickness of fingers, in hands
    bend: np.ndarray  # float64 (4, 2) how far each fingertip is from its usual place, in hands
    outline: np.ndarray  # the same for the points of the fist
    light: np.ndarray  # unit vector (x, y, z) towards the light
    contrast: float  # 0 flat, 1 strongly shaded

    @classmethod
    def sample(cls, generator: np.random.Generator, pose: str) -> Person:
        """Draw a person who holds the hand in `pose`: skin of every shade, sometimes a glove."""
        x, y = generator.normal(0.0, 0.5, 2)
        light = np.array([x, y - 0.3, 1.0])
        return cls(
            pose=pose,
            skin=skin_colour(generator) if generator.random() < 0.92 else generator.uniform(10.0, 250.0, 3),
            width=generator.uniform(0.8, 1.2),
            finger=generator.uniform(0.11, 0.165),
            bend=generator.normal(0.0, 0.035, (4, 2)),
            outline=generator.normal(0.0, 0.018, _FIST.shape),
            light=light / np.linalg.norm(light),
            contrast=generator.uniform(0.25, 0.8),
        )


def skin_colour(generator: np.random.Generator) -> np.ndarray:
    """Skin of any shade, RGB in 0..255, under light that is more or less neutral."""
    shades = np.array([(62, 38, 28), (110, 70, 48), (160, 108, 78), (205, 155, 122), (238, 200, 175)], np.float64)
    shade = generator.uniform(0.0, len(shades) - 1.0)
    colour = [np.interp(shade, range(len(shades)), channel) for channel in shades.T]
    return np.array(colour * generator.normal(1.0, 0.06, 3))


def hand_picture(generator: np.random.Generator, person: Person, pixels: int) -> np.ndarray:
    """A right hand that points up, `pixels` to a hand: uint8 (1.3 * pixels, pixels, 4)."""
    width, height = (round(side * pixels) for side in HAND_SIZE)
    mask, detail = np.zeros((height, width), np.uint8), np.zeros((height, width), np.uint8)
    middle = WRIST[0]

    def at(point: Sequence[float] | np.ndarray) -> tuple[int, int]:
        """Fixed-point pixel (4 fractional bits)."""
        x = middle + (point[0] - middle) * person.width
        return round(16 * pixels * x), round(16 * pixels * point[1])

    def stroke(picture: np.ndarray, points: Sequence[Sequence[float] | np.ndarray], thickness: float) -> None:
        size = max(1, round(pixels * thickness))
        for start, end in pairwise(points):
            cv2.line(picture, at(start), at(end), 255, size, cv2.LINE_AA, shift=4)

    outline = np.array([at(point) for point in _smooth(_FIST + person.outline)], np.int32)
    cv2.fillPoly(mask, [outline], 255, cv2.LINE_AA, shift=4)
    tip = FINGERTIP + np.array([0.0, person.finger / 2])
    if person.pose != "fist":
        joint = np.array([0.43, 0.36]) + person.bend[0] / 2
        stroke(mask, [(0.49, 0.62), joint], 1.15 * person.finger)
        stroke(mask, [joint, tip], 0.9 * person.finger)
        stroke(detail, [tip, tip + np.array([0.0, 0.03])], 0.4 * person.finger)  # the nail, or a highlight
    stretched = {"two": 1, "open": 3}.get(person.pose, 0)
    for index, (root_x, root_y, x, y) in enumerate(_OTHER_FINGERS):
        end = np.array([x, y]) + person.bend[index + 1]
        if index < stretched:
            stroke(mask, [(root_x, root_y + 0.1), end], person.finger)
        else:  # folded: a knuckle
            cv2.circle(mask, at((root_x, root_y)), round(16 * pixels * 0.085), 255, -1, cv2.LINE_AA, shift=4)
    thumb = (
        [(0.47, 0.98), (0.3, 0.8), (0.18, 0.68)] if person.pose == "open" else [(0.48, 0.9), (0.4, 0.76), (0.5, 0.64)]
    )
    stroke(mask, [point + person.bend[3] for point in np.array(thumb)], person.finger)

    shade = _relief(person, mask, 0.09 * pixels)
    creases = np.zeros_like(mask)
    for root_x, root_y, x, _ in _OTHER_FINGERS[stretched:]:
        stroke(creases, [(root_x - 0.06, root_y - 0.04), (0.5 * (root_x + x) - 0.07, root_y + 0.1)], 0.02)
    stroke(creases, [(0.49, 0.6), (0.5, 0.72)], 0.025)
    shade -= generator.uniform(0.0, 0.35) * cv2.blur(creases, (3, 3)).astype(np.float32) / 255
    shade += 0.12 * detail.astype(np.float32) / 255
    fade = np.clip((WRIST[1] + 0.13 - np.arange(height) / pixels) * 8.0, 0.0, 1.0)  # into the forearm
    return _coloured(generator, person.skin, shade, (cv2.blur(mask, (3, 3)) * fade[:, None]).astype(np.uint8))


def arm_picture(generator: np.random.Generator, person: Person, pixels: int) -> np.ndarray:
    """A forearm that goes down from the wrist, bare or in a sleeve: uint8 (4.5 * pixels, pixels, 4)."""
    width, height = (round(side * pixels) for side in ARM_SIZE)
    y = np.linspace(0.0, 1.0, height, dtype=np.float32)[:, None] * ARM_SIZE[1] - ARM_OVERLAP  # from the wrist
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None] * ARM_SIZE[0]
    half = person.width * (0.16 + generator.uniform(0.05, 0.2) * np.clip(y / 1.2, 0.0, 1.4))
    sleeved = generator.random() < 0.4
    cuff = generator.uniform(0.0, 1.2) if sleeved else 9.0
    half = half + np.where(y > cuff, generator.uniform(0.02, 0.1), 0.0)
    across = np.clip(x / half, -1.0, 1.0)
    mask = np.clip((half - np.abs(x)) * pixels, 0.0, 1.0) * np.clip((y + ARM_OVERLAP) * 10.0, 0.0, 1.0)
    round_shade = person.light[0] * across + person.light[2] * np.sqrt(1.0 - across**2)
    shade = (1.0 - person.contrast) + person.contrast * round_shade
    picture = _coloured(generator, person.skin, shade, (255 * mask).astype(np.uint8))
    if sleeved:
        cloth = generator.uniform(0.0, 1.0, 3) * generator.uniform(30.0, 250.0)
        pattern = np.zeros_like(shade)
        kind = generator.integers(0, 4)  # plain, rings, checks, folds
        if kind:
            rings = np.sin(y * generator.uniform(20.0, 60.0) + 2.0 * x)
            lengthwise = np.sin(x * generator.uniform(20.0, 60.0))
            pattern = (rings, rings + lengthwise, np.sin(8.0 * y + 6.0 * x * x))[kind - 1] * generator.uniform(0.1, 0.5)
        sleeve = _coloured(generator, cloth, shade * (1.0 + pattern), picture[:, :, 3])
        rows = slice(int(np.searchsorted(y[:, 0], cuff)), None)
        picture[rows] = sleeve[rows]
        picture[rows.start : rows.start + 2, :, :3] //= 2
    elif generator.random() < 0.2:  # a bracelet or a watch
        top = round((ARM_OVERLAP + generator.uniform(0.0, 0.3)) * pixels)
        band = picture[top : top + max(2, round(generator.uniform(0.03, 0.12) * pixels))]
        band[:, :, :3] = (generator.uniform(0.1, 1.0, 3) * band[:, :, 3:]).astype(np.uint8)
    return picture


def _smooth(points: np.ndarray) -> np.ndarray:
    """The closed outline with its corners cut twice (Chaikin)."""
    for _ in range(2):
        after = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * after, 0.25 * points + 0.75 * after], axis=1).reshape(-1, 2)
    return points


def _relief(person: Person, mask: np.ndarray, radius: float) -> np.ndarray:
    """Brightness of a body with this outline and edges rounded over `radius` pixels: float32, about 1."""
    inside = np.minimum(cv2.distanceTransform((mask > 127).astype(np.uint8), cv2.DIST_L2, 3), radius)
    depth = np.sqrt(np.maximum(radius**2 - (radius - inside) ** 2, 0.0))
    depth = cv2.GaussianBlur(depth, (0, 0), radius / 4)
    slope_x, slope_y = cv2.Sobel(depth, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(depth, cv2.CV_32F, 0, 1, scale=1 / 8)
    x, y, z = person.light
    lit = (z - x * slope_x - y * slope_y) / np.sqrt(1.0 + slope_x**2 + slope_y**2)
    return np.asarray((1.0 - person.contrast) + person.contrast * lit, np.float32)


def _coloured(generator: np.random.Generator, colour: np.ndarray, shade: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Colour times brightness times alpha, and alpha; dark parts are redder, and the surface is a little uneven."""
    height, width = mask.shape
    uneven = generator.normal(1.0, 0.07, (max(2, height // 12), max(2, width // 12))).astype(np.float32)
    shade = np.clip(shade, 0.08, 1.3).astype(np.float32) * cv2.resize(uneven, (width, height))
    alpha = mask.astype(np.float32) * np.float32(1 / 255)
    power = (0.9, 1.05, 1.1)  # of red, green, blue
    channels = [np.minimum(cv2.pow(shade, power[index]) * colour[index], 255.0) * alpha for index in range(3)]
    return cv2.merge([*(channel.astype(np.uint8) for channel in channels), mask])
