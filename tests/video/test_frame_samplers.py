"""Frame samplers: recorded index lists, and what holds for every video."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from timesformer.video.frame_samplers import (
    FrameSampler,
    RandomSegmentSampler,
    RandomSpanSampler,
    ShuffledFrames,
    UniformSegmentSampler,
    UniformSpanSampler,
    clip_span_sec,
    distinct_frames,
    segment_edges,
    span_indices,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "data/samplers.json").read_text())

SAMPLERS: dict[str, tuple[FrameSampler, int]] = {  # with the number of clips each gives
    "random span": (RandomSpanSampler(8, 32, 30), 1),
    "uniform span": (UniformSpanSampler(8, 4, 30, num_clips=5), 5),
    "random segment": (RandomSegmentSampler(16), 1),
    "uniform segment": (UniformSegmentSampler(16, num_clips=3), 3),
    "shuffled": (ShuffledFrames(RandomSegmentSampler(8)), 1),
}


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_uniform_spans_match_the_recorded_rows() -> None:
    for video, frames, rate, fps, target, clip, clips, *_, expected in GOLDEN["uniform"]["rows"]:
        indices = UniformSpanSampler(frames, rate, target, num_clips=clips)(video, fps)
        assert indices[clip].tolist() == expected, (video, frames, rate, fps, clip, clips)


def test_span_arithmetic_matches_the_recorded_random_rows() -> None:
    for _, video, frames, rate, fps, target, start, end, expected in GOLDEN["random"]["rows"]:
        span = clip_span_sec(frames, rate, target) * fps
        assert start + span - 1 == pytest.approx(end)
        assert span_indices(start, span, frames, video).tolist() == expected


def test_uniform_segments_match_the_recorded_rows() -> None:
    for row in GOLDEN["ssv2"]["rows"]:
        if row["mode"] == "test":
            indices = UniformSegmentSampler(row["num_frames"])(row["n"], 30.0)
            assert indices.tolist() == [row["idx"]], row


def test_recorded_random_rows_and_ours_lie_in_the_same_segments() -> None:
    for row in GOLDEN["ssv2"]["rows"]:
        edges = segment_edges(row["n"], row["num_frames"])
        ours = RandomSegmentSampler(row["num_frames"])(row["n"], 30.0, generator(row["n"]))[0]
        for indices in (ours, np.array(row["idx"])):
            assert (edges[:-1] <= indices).all() and (indices <= edges[1:]).all()


def test_random_segments_reach_both_ends_of_the_video() -> None:
    drawn = np.concatenate([RandomSegmentSampler(4)(12, 30.0, generator(seed)) for seed in range(200)])
    assert set(drawn.ravel()) == set(range(12))


@pytest.mark.parametrize("name", SAMPLERS)
@given(num_video_frames=st.integers(1, 2000), fps=st.floats(1, 120), seed=st.integers(0, 9))
def test_every_sampler_gives_ordered_indices_of_the_video(
    name: str, num_video_frames: int, fps: float, seed: int
) -> None:
    sampler, num_clips = SAMPLERS[name]
    indices = sampler(num_video_frames, fps, generator(seed))
    assert indices.dtype == np.int64 and indices.shape[0] == num_clips
    assert indices.min() >= 0 and indices.max() < num_video_frames
    if name != "shuffled":
        assert (np.diff(indices, axis=1) >= 0).all()
    assert np.array_equal(indices, sampler(num_video_frames, fps, generator(seed)))


@given(num_video_frames=st.integers(1, 5000), fps=st.sampled_from([15.0, 24.0, 29.97, 30.0, 60.0]))
def test_auto_spans_follow_one_another_and_cover_the_video(num_video_frames: int, fps: float) -> None:
    clips = UniformSpanSampler(8, 32, 30, num_clips="auto")(num_video_frames, fps)
    span = clip_span_sec(8, 32, 30) * fps
    assert len(clips) == max(np.ceil(num_video_frames / span), 1)
    assert clips[0, 0] == 0
    assert clips[-1, -1] >= num_video_frames - 2
    assert (clips[1:, 0] - clips[:-1, -1] <= 2).all()


@given(num_frames=st.integers(1, 40), extra=st.integers(1, 500))
def test_whole_video_sampling_repeats_no_frame_of_a_long_enough_video(num_frames: int, extra: int) -> None:
    indices = UniformSegmentSampler(num_frames)(num_frames + extra, 30.0)
    assert distinct_frames(indices).tolist() == [num_frames]


@given(num_frames=st.integers(1, 20), num_clips=st.integers(2, 5), seed=st.integers(0, 300))
def test_staggered_clips_share_no_frame_of_a_long_video(num_frames: int, num_clips: int, seed: int) -> None:
    num_video_frames = num_frames * (num_clips + 1) + 1 + seed
    indices = UniformSegmentSampler(num_frames, num_clips)(num_video_frames, 30.0)
    assert len(np.unique(indices)) == num_frames * num_clips


def test_defect_12_repeated_frames_of_a_short_video_are_counted() -> None:
    indices = UniformSpanSampler(8, 32, 30)(45, 15.0)
    assert indices.tolist() == [[0, 18, 36, 44, 44, 44, 44, 44]]
    assert distinct_frames(indices).tolist() == [4]
    assert distinct_frames(UniformSegmentSampler(8)(45, 15.0)).tolist() == [8]


def test_a_video_of_one_frame_gives_that_frame() -> None:
    for sampler, _ in SAMPLERS.values():
        assert not sampler(1, 30.0, generator()).any()


def test_shuffling_changes_the_order_and_nothing_else() -> None:
    plain = UniformSegmentSampler(16, num_clips=3)
    shuffled = ShuffledFrames(plain)(100, 30.0, generator())
    assert not np.array_equal(shuffled, plain(100, 30.0))
    assert np.array_equal(np.sort(shuffled, axis=1), plain(100, 30.0))


def test_moments_are_those_of_torch() -> None:
    """Trained weights rely on the frames of `torch.linspace`; some processors round twice there, once in 10,000."""
    generator, others = np.random.default_rng(0), 0
    for case in range(3000):
        number = int(generator.integers(1, 97))
        span = float(generator.integers(1, 300)) if case % 2 else generator.uniform(1, 300)
        start = 0.0 if case % 3 else generator.uniform(0, 500)
        expected = torch.linspace(start, start + span - 1, number).clamp(0, 399).long().numpy()
        difference = np.abs(span_indices(start, span, number, 400) - expected)
        assert difference.max() <= 1, (start, span, number)
        others += int(difference.any())
    assert others <= 3
