"""Augmentation: nothing at its defaults, the same for all frames, the subject in view, and no other draws."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.video.test_transforms import make_frames, still, train_transform
from timesformer.video.augment import Appearance, Geometry, warp
from timesformer.video.frame_samplers import RandomSegmentSampler, RandomSpanSampler, Timing

ALL_GEOMETRY: dict[str, Any] = {"shift": 0.2, "zoom": (0.7, 1.4), "rotation": 15.0, "perspective": 0.1}
APPEARANCES: dict[str, Any] = {
    "gamma": 0.5,
    "gray_prob": 1.0,
    "blur": 2.0,
    "noise": 0.1,
    "jpeg_quality": 20,
}


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def smooth_frames(num_frames: int = 2, height: int = 48, width: int = 64) -> np.ndarray:
    """Pictures without edges, which interpolation changes little."""
    coarse = make_frames(num_frames, 4, 5)
    return np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_CUBIC) for frame in coarse])


def ball(size: tuple[int, int], centre: tuple[float, float]) -> np.ndarray:
    """A white ball on black, (H, W, 3)."""
    frame = np.zeros((*size, 3), np.uint8)
    return cv2.circle(frame, (round(centre[0]), round(centre[1])), 4, (255, 255, 255), -1)


def centre_of_mass(picture: np.ndarray) -> np.ndarray:
    """(x, y) of a grey picture."""
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    return np.array([(x * picture).sum(), (y * picture).sum()]) / picture.sum()


@pytest.mark.parametrize("crop_mode", ["crop", "full"])
@pytest.mark.parametrize("flip", [False, True])
def test_the_warp_without_draws_is_the_resize(crop_mode: str, flip: bool) -> None:
    """A geometry too small to see takes the way of the warp, and gives what resize, crop and flip give."""
    transform = train_transform(crop_mode=crop_mode, flip=flip)
    nothing = train_transform(crop_mode=crop_mode, flip=flip, geometry=Geometry(rotation=1e-6))
    for seed in range(6):
        frames = smooth_frames(height=30, width=41)
        (plain, flipped), (warped, also) = (each(frames, generator(seed)) for each in (transform, nothing))
        assert flipped == also
        difference = (plain.int() - warped.int()).abs()[:, :, 1:-1, 1:-1]  # the long side of a crop is rounded down
        assert difference.max() <= (6 if crop_mode == "crop" else 2)


@pytest.mark.parametrize("name", ALL_GEOMETRY)
@pytest.mark.parametrize("crop_mode", ["crop", "full"])
def test_each_geometry_changes_all_frames_alike(name: str, crop_mode: str) -> None:
    transform = train_transform(crop_mode=crop_mode, geometry=Geometry(**{name: ALL_GEOMETRY[name]}))
    clips = [transform(still(), generator(seed))[0] for seed in (1, 1, 2)]
    assert torch.equal(clips[0], clips[1]) and not torch.equal(clips[0], clips[2])
    assert all(torch.equal(clips[0][:, 0], clips[0][:, t]) for t in range(4))
    assert clips[0].shape == (3, 4, 28, 28) and clips[0].dtype == torch.uint8


def test_shift_and_zoom_move_the_subject_as_far_as_they_say() -> None:
    size, centre = (60, 80), (40.0, 30.0)
    frames = ball(size, centre)[None]
    offsets, sizes = [], []
    for seed in range(200):
        matrix = Geometry(shift=0.2, zoom=(0.5, 2.0)).draw((0, 0, *size), size, generator(seed))
        grey = warp(frames, matrix, size)[0, 0].numpy().astype(float)
        offsets.append((centre_of_mass(grey) - centre) / (80, 60))
        sizes.append(np.sqrt((grey > 127).sum() / (frames[0, ..., 0] > 127).sum()))
    assert np.abs(offsets).max() <= 0.22 and np.abs(offsets).max(axis=0).min() > 0.18
    assert 0.4 < min(sizes) < 0.6 and 1.8 < max(sizes) < 2.2
    assert np.median(sizes) == pytest.approx(1.0, abs=0.15)  # as often smaller as larger


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.3, 0.7), st.floats(0.3, 0.7))
def test_what_is_near_the_middle_stays_in_view(seed: int, x: float, y: float) -> None:
    """Half a shift of 0.15, a zoom of 1.3 and 10 degrees leave the middle part of a frame inside the clip."""
    geometry, size = Geometry(shift=0.15, zoom=(0.75, 1.3), rotation=10.0, perspective=0.05), (64, 80)
    matrix = geometry.draw((0, 0, 120, 160), size, generator(seed))
    x, y, w = matrix @ [160 * x, 120 * y, 1]
    assert 0 < x / w < 80 and 0 < y / w < 64


def test_a_straight_line_stays_straight_and_edges_are_repeated() -> None:
    frames = np.full((1, 40, 50, 3), 200, np.uint8)
    for seed in range(20):
        clip = train_transform(crop_mode="full", geometry=Geometry(**ALL_GEOMETRY))(frames, generator(seed))[0]
        assert clip.min() == clip.max() == 200  # beyond a frame is what is at its edge, not a colour of its own


@pytest.mark.parametrize("name", APPEARANCES)
def test_each_appearance_changes_some_clips_and_depends_on_the_draws_alone(name: str) -> None:
    frames = smooth_frames(4)
    transform = train_transform(appearance=Appearance(**{name: APPEARANCES[name]}))
    plain = train_transform()
    changed = 0
    for seed in range(8):
        clip, again = (transform(frames, generator(seed))[0] for _ in range(2))
        assert torch.equal(clip, again) and clip.dtype == torch.uint8
        changed += not torch.equal(clip, plain(frames, generator(seed))[0])
    assert 1 <= changed < 8 if name in ("blur", "noise", "jpeg_quality") else changed >= 6
    if name == "gray_prob":
        assert torch.equal(clip[0], clip[1]) and torch.equal(clip[1], clip[2])


@pytest.mark.parametrize("name", sorted(APPEARANCES.keys() - {"noise"}))
def test_appearance_treats_all_frames_alike(name: str) -> None:
    transform = train_transform(appearance=Appearance(**{name: APPEARANCES[name]}))
    for seed in range(6):
        clip = transform(still(), generator(seed))[0]
        assert all(torch.equal(clip[:, 0], clip[:, t]) for t in range(4))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.integers(1, 32), st.floats(0, 0.45), st.floats(0, 1), st.integers(0, 1000))
def test_trimmed_and_warped_clips_are_frames_in_order(
    video: int, frames: int, trim: float, speed: float, seed: int
) -> None:
    indices = RandomSegmentSampler(frames, Timing(trim=trim, speed=speed))(video, 30.0, generator(seed))
    assert indices.shape == (1, frames) and indices.min() >= 0 and indices.max() < video
    assert (np.diff(indices[0]) >= 0).all()


def test_trim_and_speed_move_the_moments_as_far_as_they_say() -> None:
    edges = np.linspace(0, 1, 9)
    trimmed = np.array([Timing(trim=0.2).moments(edges, generator(seed)) for seed in range(300)])
    assert 0 <= trimmed[:, 0].min() < 0.01 < 0.19 < trimmed[:, 0].max() <= 0.2
    assert 0.8 <= trimmed[:, -1].min() < 0.81 < 0.99 < trimmed[:, -1].max() <= 1.0
    assert np.allclose(np.diff(trimmed), np.diff(trimmed)[:, :1])  # evenly
    bent = np.array([Timing(speed=0.5).moments(edges, generator(seed)) for seed in range(300)])
    assert np.allclose(bent[:, [0, -1]], [0, 1])
    ratio = np.diff(bent)[:, 0] / np.diff(edges)[0]
    assert 0.5 < ratio.min() < 0.6 and 1.4 < ratio.max() < 1.5
    plain = RandomSpanSampler(8, 4, 30.0)(300, 30.0, generator())
    spans = [np.ptp(RandomSpanSampler(8, 4, 30.0, Timing(speed=0.5))(300, 30.0, generator(s))) for s in range(200)]
    assert (
        np.ptp(plain) == 31
        and min(spans) == pytest.approx(31 / 1.65, abs=2)
        and max(spans) == pytest.approx(31 * 1.65, abs=3)
    )
