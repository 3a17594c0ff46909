"""Draws one gesture clip of one generated person and writes it as a video file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from timesformer.datasets.gestures.curves import Form, Timing, hand_positions, smooth_noise
from timesformer.utils.random import numpy_generator

FPS = 15
# codec -> (file suffix, encoder, its options); both without B-frames, a key frame every 12 frames
ENCODERS: dict[str, tuple[str, str, dict[str, str]]] = {
    "mpeg4": (".avi", "mpeg4", {"qmin": "4", "qmax": "4"}),
    "h264": (".mp4", "libx264", {"preset": "veryfast", "crf": "20"}),
}
SUPERSAMPLING = 2  # hand picture pixels per frame pixel


@dataclass(frozen=True)
class Difficulty:
    """The parameters of easy and hard rendering."""

    hand: tuple[float, float]  # range of the hand's length, as a share of the frame's height
    scale: tuple[float, float]  # range of the gestures' extent, as a share of what fits
    contrast: float  # by how much at least the hand is brighter than the background, in grey levels
    texture: float  # largest standard deviation of the background, in grey levels
    distractors: int  # number of moving blobs


EASY = Difficulty(hand=(0.42, 0.54), scale=(0.8, 1.0), contrast=60.0, texture=6.0, distractors=0)
HARD = Difficulty(hand=(0.24, 0.32), scale=(0.6, 0.9), contrast=40.0, texture=20.0, distractors=4)


@dataclass(frozen=True)
class Person:
    """What all clips of one person have in common."""

    hand: float  # length of the hand as a share of the frame's height
    fingers: tuple[float, ...]  # how far each of the four fingers is stretched, 0 (in the fist) to 1
    thumb: int  # +1 or -1, the side of the thumb
    width: float  # of the palm relative to its usual width
    hand_colour: np.ndarray  # RGB in 0..255
    sleeve_colour: np.ndarray
    duration_sec: float  # usual length of a gesture with its rests
    scale: float  # usual extent and rotation of gestures, see `Form.sample`
    lean: float
    tremor: float  # standard deviation of the hand's noise, as a share of the frame's height

    @classmethod
    def sample(cls, generator: np.random.Generator, difficulty: Difficulty) -> Person:
        """Draw a person; left-handed and right-handed are equally likely."""
        if generator.random() < 0.7:  # skin, from dark to light
            dark, light = np.array([150.0, 105.0, 80.0]), np.array([245.0, 210.0, 185.0])
            hand_colour = dark + (light - dark) * generator.random() + generator.normal(0.0, 6.0, 3)
        else:  # glove
            hand_colour = generator.uniform(110.0, 250.0, 3)
        posture = generator.integers(0, 3)  # fist, pointing finger, open hand
        stretched = ((0, 0, 0, 0), (1, 0, 0, 0), (1, 1, 1, 1))[posture]
        return cls(
            hand=generator.uniform(*difficulty.hand),
            fingers=tuple(generator.uniform(0.8, 1.0) * finger for finger in stretched),
            thumb=int(generator.choice((-1, 1))),
            width=generator.uniform(0.85, 1.15),
            hand_colour=hand_colour,
            sleeve_colour=generator.uniform(20.0, 160.0, 3),
            duration_sec=generator.uniform(2.3, 3.7),
            scale=generator.uniform(*difficulty.scale),
            lean=generator.uniform(-0.12, 0.12),
            tremor=generator.uniform(0.005, 0.015),
        )


def render_clip(
    seed: int, split: int, number: int, label: int, *, frame_size: tuple[int, int], hard: bool
) -> np.ndarray:
    """Frames of gesture `label` made by person `number` of split 0, 1 or 2: RGB, uint8 (T, H, W, 3), T 30 to 60.

    Args:
        seed, split, number, label: all that the random choices depend on; the person on the first three.
        frame_size: (height, width) in pixels.
        hard: whether to render with clutter, little contrast and a small hand.
    """
    difficulty = HARD if hard else EASY
    person = Person.sample(numpy_generator(seed, split, number), difficulty)
    generator = numpy_generator(seed, split, number, 1 + label)
    duration_sec = np.clip(person.duration_sec + generator.normal(0.0, 0.25), 2.0, 4.0)
    num_frames = round(FPS * duration_sec)

    form = Form.sample(generator, scale=person.scale, lean=person.lean)
    positions = hand_positions(label, form, Timing.sample(generator), num_frames)
    return draw_frames(generator, person, difficulty, positions, frame_size)


def draw_frames(
    generator: np.random.Generator,
    person: Person,
    difficulty: Difficulty,
    positions: np.ndarray,
    frame_size: tuple[int, int],
    *,
    drawn: slice = slice(None),
) -> np.ndarray:
    """Frames of a person whose hand is at `positions`, in one scene: RGB, uint8 (T, H, W, 3).

    Args:
        generator: of the scene, the light and the hand's tremor.
        person, difficulty: what is drawn.
        positions: (T, 2) of the hand, x right, y down, -1..1 within the frame; y from about 3 is out of sight.
        frame_size: (height, width) in pixels.
        drawn: the frames to draw; what they show does not depend on it, but for the noise.
    """
    height, width = frame_size
    num_frames, length = len(positions), person.hand * height  # pixels
    reach = (np.array([width, height]) - 0.9 * length) / 2
    hand_xy = (np.array([width, height]) - 1) / 2 + reach * positions
    hand_xy += person.tremor * height * smooth_noise(generator, num_frames, fps=FPS, hertz=4.0)
    # The elbow is below the frame: the hand leans to the side where it is, whichever way it moves.
    turn = 0.5 * (hand_xy[:, 0] / width - 0.5) + generator.normal(0.0, 0.15)
    turn += 0.05 * smooth_noise(generator, num_frames, fps=FPS, hertz=2.0)[:, 0]

    shake_xy = generator.uniform(0.0, 0.015) * height * smooth_noise(generator, num_frames, fps=FPS, hertz=3.0)
    margin = int(0.1 * height)
    scene = _background(generator, person, difficulty, (height + 2 * margin, width + 2 * margin))
    blobs = [_distractor(generator, frame_size, num_frames) for _ in range(difficulty.distractors)]
    hand = _hand_picture(person, length)
    across, drift = _light(generator, num_frames, frame_size)
    noise = np.float32(generator.uniform(0.5, 3.0))  # grey levels

    indices = range(num_frames)[drawn]
    frames = np.empty((len(indices), height, width, 3), np.float32)
    for index, frame in zip(indices, frames, strict=True):
        shift_x, shift_y = shake_xy[index]
        shifted = np.array([[1.0, 0.0, shift_x - margin], [0.0, 1.0, shift_y - margin]])
        cv2.warpAffine(scene, shifted, (width, height), dst=frame, borderMode=cv2.BORDER_REFLECT)
        for blob_xy, radius, colour in blobs:
            _disc(frame, blob_xy[index] + shake_xy[index], radius, colour)
        layer = _hand_layer(hand, hand_xy[index] + shake_xy[index], turn[index], frame_size)
        frame *= 1.0 - cv2.cvtColor(layer[:, :, 3], cv2.COLOR_GRAY2RGB)
        frame += layer[:, :, :3]
        frame *= across * drift[index]
        frame += cv2.cvtColor(noise * generator.standard_normal((height, width), np.float32), cv2.COLOR_GRAY2RGB)
    return np.clip(frames, 0.0, 255.0, out=frames).astype(np.uint8)


def write_video(path: Path, frames: np.ndarray, codec: str) -> None:
    """Encode uint8 RGB frames (T, H, W, 3), H and W even; `path` appears only when it is complete.

    Raises:
        OSError: the file cannot be written.
    """
    suffix, encoder, options = ENCODERS[codec]
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{suffix}")
    with av.open(str(unfinished), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(encoder, rate=FPS, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.thread_count, context.gop_size, context.max_b_frames = 1, 12, 0
        context.time_base = Fraction(1, FPS)
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    unfinished.replace(path)


def _background(
    generator: np.random.Generator, person: Person, difficulty: Difficulty, size: tuple[int, int]
) -> np.ndarray:
    """A blotchy wall, float32 (H, W, 3), darker than the hand on average."""
    height, width = size
    colour = person.hand_colour
    while _brightness(person.hand_colour) - _brightness(colour) < difficulty.contrast:
        colour = generator.uniform(15.0, 200.0) + generator.normal(0.0, 12.0, 3)
    scene = np.full((height, width, 3), colour, np.float32)
    for cells, channels in ((5, 3), (16, 1)):  # coloured clouds, grey grain
        coarse = generator.normal(0.0, generator.uniform(0.3, 1.0) * difficulty.texture, (cells, cells, channels))
        scene += cv2.resize(coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC).reshape(
            height, width, channels
        )
    return scene


def _brightness(colour: np.ndarray) -> float:
    return float(colour @ (0.299, 0.587, 0.114))


def _hand_picture(person: Person, length: float) -> np.ndarray:
    """The hand pointing up, its middle in the centre: float32 (S, S, 4), colours times alpha and alpha in 0..1."""
    unit = SUPERSAMPLING * length  # pixels per hand length
    side = 2 * int(unit)
    alpha = np.zeros((side, side), np.uint8)
    sleeve = np.zeros((side, side), np.uint8)
    shade = np.zeros((side, side), np.uint8)

    def pixel(x: float, y: float) -> tuple[int, int]:
        """Fixed-point pixel (4 fractional bits) of a point in hand lengths from the middle, y down."""
        return round(16 * (side / 2 + x * unit)), round(16 * (side / 2 + y * unit))

    def stroke(mask: np.ndarray, start: tuple[float, float], end: tuple[float, float], thickness: float) -> None:
        cv2.line(mask, pixel(*start), pixel(*end), 255, max(1, round(thickness * unit)), cv2.LINE_AA, shift=4)

    palm_y = 0.15
    stroke(sleeve, (0.0, palm_y + 0.25), (0.0, palm_y + 0.7), 0.3 * person.width)
    radii = (round(16 * 0.27 * person.width * unit), round(16 * 0.29 * unit))
    cv2.ellipse(alpha, pixel(0.0, palm_y), radii, 0.0, 0.0, 360.0, 255, cv2.FILLED, cv2.LINE_AA, shift=4)
    for index, stretched in enumerate(person.fingers):
        x = (0.2 - 0.133 * index) * person.width * -person.thumb
        root, tip = (x, palm_y - 0.15), (1.25 * x, palm_y - 0.22 - 0.38 * stretched * (1.0 - 0.07 * index))
        stroke(alpha, root, tip, 0.12)
        stroke(shade, (0.8 * x, palm_y), root, 0.03)
    thumb_x = -person.thumb * person.width
    stroke(alpha, (0.15 * thumb_x, palm_y + 0.1), (0.4 * thumb_x, palm_y - 0.12), 0.13)

    covered = np.maximum(alpha, sleeve).astype(np.float32)[:, :, None] / 255
    on_hand, dark = alpha.astype(np.float32)[:, :, None] / 255, shade.astype(np.float32)[:, :, None] / 255
    colours = person.sleeve_colour + on_hand * (person.hand_colour * (1.0 - 0.3 * dark) - person.sleeve_colour)
    return np.concatenate([colours * covered, covered], axis=2).astype(np.float32)


def _hand_layer(picture: np.ndarray, xy: np.ndarray, turn: float, frame_size: tuple[int, int]) -> np.ndarray:
    """The hand picture turned by `turn` radians and put with its middle at `xy`: float32 (H, W, 4)."""
    cos, sin = np.cos(turn) / SUPERSAMPLING, np.sin(turn) / SUPERSAMPLING
    matrix = np.array([[cos, -sin, 0.0], [sin, cos, 0.0]])
    matrix[:, 2] = xy - matrix[:, :2] @ (picture.shape[1] / 2, picture.shape[0] / 2)
    return cv2.warpAffine(picture, matrix, frame_size[::-1])


def _distractor(
    generator: np.random.Generator, frame_size: tuple[int, int], num_frames: int
) -> tuple[np.ndarray, float, np.ndarray]:
    """A wandering blob: its positions (T, 2) in pixels, its radius in pixels, its colour."""
    height, width = frame_size
    home = generator.uniform(0.0, 1.0, 2) * (width, height)
    wander = generator.uniform(0.05, 0.25) * height * smooth_noise(generator, num_frames, fps=FPS, hertz=0.8)
    return home + wander, generator.uniform(0.04, 0.1) * height, generator.uniform(20.0, 240.0, 3)


def _disc(frame: np.ndarray, xy: np.ndarray, radius: float, colour: np.ndarray) -> None:
    """Draw a filled disc with fixed-point coordinates (4 fractional bits)."""
    x, y = (round(16 * value) for value in xy)
    cv2.circle(frame, (x, y), round(16 * radius), colour.tolist(), cv2.FILLED, cv2.LINE_8, shift=4)


def _light(
    generator: np.random.Generator, num_frames: int, frame_size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Gain across the frame, float32 (H, W, 3), and of every frame, float32 (T,)."""
    height, width = frame_size
    slope_x, slope_y = generator.uniform(-0.15, 0.15, 2)
    across = 1.0 + slope_x * np.linspace(-1, 1, width) + slope_y * np.linspace(-1, 1, height)[:, None]
    drift = generator.uniform(0.8, 1.1) * (1.0 + generator.uniform(-0.08, 0.08) * np.linspace(-1, 1, num_frames))
    return cv2.cvtColor(across.astype(np.float32), cv2.COLOR_GRAY2RGB), drift.astype(np.float32)
