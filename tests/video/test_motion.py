"""Motion images, and what a spec makes of a clip whose model sees them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from timesformer.video.clip_spec import ClipSpec
from timesformer.video.frame_samplers import RandomSegmentSampler, UniformSpanSampler
from timesformer.video.motion import motion_images


def moving_square(gain: float = 1.0, level: float = 30.0) -> torch.Tensor:
    """(1, 3, 9, 16, 32): a square that moves by two pixels a frame to the right over a picture that stands still."""
    scene = torch.linspace(0, 50, 16 * 32).view(16, 32)
    frames = torch.stack([scene] * 9)
    for t in range(9):
        frames[t, 6:10, 4 + 2 * t : 8 + 2 * t] = 90.0
    return (level + gain * frames).expand(1, 3, -1, -1, -1).contiguous()


def test_motion_is_where_and_when_something_moved() -> None:
    images = motion_images(moving_square(), 4)
    assert images.shape == (1, 1, 4, 16, 32)
    columns = images[0, 0].amax(dim=1)  # (4, 32)
    for part in range(4):
        first, last = 4 + 4 * part, 8 + 4 * part + 4  # columns that the square covers or leaves in two steps
        moved = columns[part] > columns[part].mean() + columns[part].std() / 2
        assert moved.nonzero().min() >= first and moved.nonzero().max() < last


def test_light_hardly_matters_and_scale_and_mean_never() -> None:
    images = motion_images(moving_square(), 4)
    assert images.mean().item() == pytest.approx(0, abs=1e-5) and images.std().item() == pytest.approx(1, abs=0.02)
    other = motion_images(moving_square(gain=2.0, level=5.0), 4)
    assert torch.corrcoef(torch.stack([images.flatten(), other.flatten()]))[0, 1] > 0.99
    torch.testing.assert_close(images, motion_images(moving_square(level=100.0), 4), atol=1e-3, rtol=1e-3)


def test_a_clip_that_stands_still_is_zero() -> None:
    assert motion_images(torch.full((2, 3, 9, 4, 4), 77.0), 2).abs().max() == 0


@given(st.integers(1, 6), st.integers(1, 5), st.sampled_from(["rgb", "difference", "rgb+difference"]))
def test_the_shapes_of_a_spec_are_those_of_its_input(frames: int, each: int, kind: str) -> None:
    spec = ClipSpec(num_frames=frames, difference_frames=each, input=kind, size=(8, 12), sampling_rate="auto")
    indices = spec.frame_sampler()(200, 30.0, None)
    assert indices.shape == (1, frames if kind == "rgb" else frames * each + 1) == (1, spec.sampled_frames)
    clips = torch.randint(0, 256, (2, 3, spec.sampled_frames, 8, 12), dtype=torch.uint8)
    inputs = spec.normalize(clips)
    assert inputs.shape == (2, *spec.input_shape) and inputs.dtype == torch.float32
    shown = spec.shown(clips)
    assert shown.dtype == torch.uint8 and shown.shape[2] == frames * (2 if kind == "rgb+difference" else 1)
    again = ClipSpec.from_dict(spec.to_dict())
    assert again == spec


def test_both_inputs_are_the_last_pixels_of_each_part_and_its_motion() -> None:
    spec = ClipSpec(num_frames=3, difference_frames=2, input="rgb+difference", size=(8, 8))
    clips = torch.randint(0, 256, (2, 3, 7, 8, 8), dtype=torch.uint8)
    both = spec.normalize(clips)
    pixels = ClipSpec(num_frames=3, size=(8, 8)).normalize(clips[:, :, 2::2])
    assert torch.equal(both[:, :3], pixels)
    torch.testing.assert_close(both[:, 3:], motion_images(clips.float(), 3))


def test_more_frames_span_the_same_time() -> None:
    plain = ClipSpec(num_frames=8, sampling_rate=16).frame_sampler()(1000, 30.0, None)[0]
    dense = ClipSpec(num_frames=8, sampling_rate=16, input="difference").frame_sampler()(1000, 30.0, None)[0]
    assert len(dense) == 33 and dense[0] == plain[0] == 0 and dense[-1] == plain[-1] == 127
    drawn = ClipSpec(num_frames=8, sampling_rate=16, input="difference").frame_sampler(training=True)
    assert np.ptp(drawn(1000, 30.0, np.random.default_rng(0))) == 127
    assert isinstance(ClipSpec(sampling_rate="auto").frame_sampler(training=True), RandomSegmentSampler)
    assert isinstance(ClipSpec().frame_sampler(), UniformSpanSampler)


def test_weights_that_see_something_else_are_named() -> None:
    known = ClipSpec(input="difference").to_dict()
    found = ClipSpec().differences(known, frames=False)
    assert ("DATA.INPUT", "difference", "rgb") in found
