"""Spatial transforms against the reference numbers, and what holds for every clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file
from torch.nn.functional import interpolate

from timesformer.video.clip_spec import ClipSpec
from timesformer.video.transforms import (
    EvalTransform,
    TrainTransform,
    crop_corners,
    parse_rand_augment,
    scaled_size,
)

GOLDEN = load_file(Path(__file__).parents[1] / "data" / "transforms.safetensors")
SHAPES = ("landscape", "portrait", "square")
normalize = ClipSpec().normalize  # (x / 255 - 0.45) / 0.225, RGB
GREY_LEVEL = 1 / 255 / 0.225  # one step of uint8, after normalisation


def train_transform(**changes: Any) -> TrainTransform:
    settings: dict[str, Any] = {
        "crop_size": (28, 28),
        "jitter_scales": (32, 48),
        "crop_mode": "crop",
        "inverse_uniform": False,
        "flip": False,
        "auto_augment": "",
        "color_jitter": 0.0,
        "erase_prob": 0.0,
        "fill": [0.45, 0.45, 0.45],
    }
    return TrainTransform(**{**settings, **changes})


def make_frames(num_frames: int = 2, height: int = 40, width: int = 56, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


def still(num_frames: int = 4, height: int = 40, width: int = 56) -> np.ndarray:
    """The same picture in every frame: frames that are treated alike stay alike."""
    return np.repeat(make_frames(1, height, width), num_frames, axis=0)


def to_clips(frames: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(frames).permute(3, 0, 1, 2)[None].contiguous()


@pytest.mark.parametrize("shape", SHAPES)
def test_normalisation_matches_reference(shape: str) -> None:
    ours = normalize(to_clips(GOLDEN[f"clip_{shape}_u8"]))[0].permute(1, 2, 3, 0)
    np.testing.assert_allclose(ours.numpy(), GOLDEN[f"{shape}.tensor_normalize"], atol=1e-6)


def test_bgr_reverses_channels_once_and_leaves_the_input_alone() -> None:
    clips = to_clips(make_frames())
    before = clips.clone()
    rgb = normalize(clips)
    bgr = ClipSpec(channel_order="bgr").normalize(clips)
    assert torch.equal(rgb.flip(1), bgr) and torch.equal(clips, before)


def test_mean_and_std_belong_to_the_channels_the_model_sees() -> None:
    clips = torch.zeros(1, 3, 1, 1, 1, dtype=torch.uint8)
    out = ClipSpec(mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0), channel_order="bgr").normalize(clips)
    np.testing.assert_allclose(out.flatten(), [-0.2, -0.2, -0.15], rtol=1e-6)


@pytest.mark.parametrize("size", [24, 33])
@pytest.mark.parametrize("shape", SHAPES)
def test_three_crops_match_reference(shape: str, size: int) -> None:
    frames = GOLDEN[f"clip_{shape}_u8"]
    whole = normalize(to_clips(frames))[0].numpy()
    for i, (top, left) in enumerate(crop_corners(frames.shape[1:3], (size, size), 3)):
        expected = GOLDEN[f"{shape}.uniform_crop{size}.{i}"]
        np.testing.assert_allclose(whole[..., top : top + size, left : left + size], expected, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_test_views_match_reference(shape: str) -> None:
    transform = EvalTransform(crop_size=(32, 32), num_crops=3, crop_mode="crop")
    views = normalize(transform(GOLDEN[f"clip_{shape}_u8"])).numpy()
    for i in range(3):
        np.testing.assert_allclose(views[i], GOLDEN[f"{shape}.spatial_sampling_test32.{i}"], atol=GREY_LEVEL)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_scaling_matches_reference(shape: str, seed: int) -> None:
    expected = GOLDEN[f"{shape}.scale_jitter_32_48.seed{seed}"]
    size = expected.shape[2:]
    frames = GOLDEN[f"clip_{shape}_u8"][:1]
    assert scaled_size(frames.shape[1:3], min(size), (28, 28)) == size
    resized = EvalTransform(crop_size=size, num_crops=1, crop_mode="full")(frames)
    np.testing.assert_allclose(normalize(resized)[0], expected, atol=GREY_LEVEL)


@pytest.mark.parametrize("num_crops", [1, 3])
def test_centre_is_the_middle_of_three(num_crops: int) -> None:
    views = EvalTransform(crop_size=(32, 32), num_crops=num_crops, crop_mode="crop")(make_frames())
    centre = EvalTransform(crop_size=(32, 32), num_crops=1, crop_mode="crop")(make_frames())
    assert views.shape == (num_crops, 3, 2, 32, 32) and torch.equal(views[num_crops // 2], centre[0])


@pytest.mark.parametrize(
    ("frame", "crop", "corners"),
    [
        ((256, 340), (112, 224), [(0, 0), (28, 0), (56, 0)]),  # a wide frame, whose slack is in its height
        ((340, 256), (224, 112), [(0, 0), (0, 28), (0, 56)]),
        ((40, 40), (20, 20), [(10, 0), (10, 10), (10, 20)]),
    ],
)
def test_three_crops_are_spread_where_there_is_room(
    frame: tuple[int, int], crop: tuple[int, int], corners: list[tuple[int, int]]
) -> None:
    size = scaled_size(frame, 0 if crop[0] != crop[1] else 40, crop)
    assert crop_corners(size, crop, 3) == corners


def test_one_crop_can_be_taken_from_a_larger_frame() -> None:
    frames = make_frames()
    views = EvalTransform(crop_size=(20, 20), num_crops=1, crop_mode="crop", short_side=40)(frames)
    assert torch.equal(views, to_clips(frames)[..., 10:30, 18:38])


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    crop_size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    crop_mode=st.sampled_from(["crop", "full"]),
    seed=st.integers(0, 99),
)
def test_any_frame_gives_any_crop(
    height: int, width: int, crop_size: tuple[int, int], crop_mode: str, seed: int
) -> None:
    frames = make_frames(2, height, width)
    views = EvalTransform(crop_size=crop_size, num_crops=3, crop_mode=crop_mode)(frames)
    assert views.shape == (3 if crop_mode == "crop" else 1, 3, 2, *crop_size)
    transform = train_transform(crop_size=crop_size, crop_mode=crop_mode, flip=True)
    clip, flipped = transform(frames, np.random.default_rng(seed))
    again, flipped_again = transform(frames, np.random.default_rng(seed))
    assert clip.shape == (3, 2, *crop_size) and clip.dtype == torch.uint8 and clip.is_contiguous()
    assert torch.equal(clip, again) and flipped == flipped_again


@pytest.mark.parametrize("inverse_uniform", [False, True])
def test_train_crop_is_the_resized_frame_cropped(inverse_uniform: bool) -> None:
    frames = make_frames(1)
    transform = train_transform(inverse_uniform=inverse_uniform, jitter_scales=(32, 34))
    clip, _ = transform(frames, np.random.default_rng(3))
    nearest = 255.0
    for short_side in (32, 33, 34):
        size = scaled_size((40, 56), short_side, (28, 28))
        whole = interpolate(to_clips(frames)[0].float(), size, mode="bilinear", align_corners=False)[:, 0]
        crops = whole.unfold(1, 28, 1).unfold(2, 28, 1)  # (C, tops, lefts, h, w)
        nearest = min(nearest, (crops - clip[:, None, None, 0]).abs().amax((0, 3, 4)).min().item())
    assert nearest <= 1.0


def test_short_side_stays_in_range_and_inverse_draws_are_smaller() -> None:
    rng = np.random.default_rng(0)
    plain, inverse = (train_transform(inverse_uniform=inverse) for inverse in (False, True))
    draws = np.array([[t._draw_short_side(rng) for t in (plain, inverse)] for _ in range(2000)])
    assert draws.min() == 32 and draws.max() == 48
    means = draws.mean(axis=0)
    # of U(32, 48), and of 1/U(1/48, 1/32): 40 and ln(48/32) / (1/32 - 1/48)
    np.testing.assert_allclose(means, [40, np.log(1.5) * 96], atol=0.4)


def test_flip_is_reported_and_mirrors_the_clip() -> None:
    frames = make_frames()
    transform = train_transform(crop_mode="full", flip=True)
    outcomes = [transform(frames, np.random.default_rng(seed)) for seed in range(20)]
    straight = train_transform(crop_mode="full")(frames, np.random.default_rng(0))[0]
    assert {flipped for _, flipped in outcomes} == {True, False}
    assert all(torch.equal(clip.flip(-1) if flipped else clip, straight) for clip, flipped in outcomes)


def test_full_mode_keeps_the_whole_frame() -> None:
    frames = make_frames(height=28, width=28)
    clip, _ = train_transform(crop_mode="full")(frames, np.random.default_rng(0))
    assert torch.equal(clip, to_clips(frames)[0])


@pytest.mark.parametrize(
    "changes",
    [{"auto_augment": "rand-m9-n3-mstd0.5-inc1"}, {"color_jitter": 0.4}, {"erase_prob": 1.0}],
    ids=lambda changes: next(iter(changes)),
)
def test_augmentation_is_the_same_in_every_frame(changes: dict[str, Any]) -> None:
    transform, plain = train_transform(**changes), train_transform()
    changed = 0
    for seed in range(30):
        clip, _ = transform(still(), np.random.default_rng(seed))
        assert clip.is_contiguous() and torch.equal(clip, clip[:, :1].expand_as(clip))
        changed += not torch.equal(clip, plain(still(), np.random.default_rng(seed))[0])
    assert changed >= 25


def test_augmentation_depends_on_its_generator_alone() -> None:
    transform = train_transform(auto_augment="rand-m9-n2", color_jitter=0.4, erase_prob=0.5)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, _ = transform(make_frames(), np.random.default_rng(5))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    second, _ = transform(make_frames(), np.random.default_rng(5))
    assert torch.equal(first, second)


def test_erased_rectangle_has_the_fill_colour() -> None:
    frames = np.zeros((2, 40, 56, 3), np.uint8)
    clip, _ = train_transform(erase_prob=1.0, fill=[0.45, 0.5, 1.0])(frames, np.random.default_rng(0))
    erased = clip[0, 0] > 0
    assert 0 < erased.sum() < erased.numel()
    assert [clip[c, 1][erased].unique().tolist() for c in range(3)] == [[115], [128], [255]]


def test_rand_augment_never_flips() -> None:
    """A hidden flip would swap mirror-image classes: the bright left side stays on the left."""
    frames = np.zeros((1, 40, 40, 3), np.uint8)
    frames[:, 15:25, 2:12] = 255
    transform = train_transform(crop_mode="full", auto_augment="rand-m3-n2", fill=[0.0] * 3)
    for seed in range(50):
        clip = transform(frames, np.random.default_rng(seed))[0].float()
        spread = clip - clip.median()
        assert spread[..., :14].abs().sum() > spread[..., 14:].abs().sum()


def test_notation_of_rand_augment() -> None:
    assert parse_rand_augment("rand-m7-n4-mstd0.5-inc1") == (7.0, 4, 0.5)
    assert parse_rand_augment("rand-m9") == (9.0, 2, 0.0)
