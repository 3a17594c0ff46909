"""The report on videos: what they are, which are unreadable, and what sampling rate would suit them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.datasets.media import truncate, write_video
from timesformer.datasets.inspect import inspect_videos, quick_look, span_advice
from timesformer.datasets.records import VideoRecord
from timesformer.video.clip_spec import ClipSpec
from timesformer.video.frame_samplers import ShuffledFrames, UniformSegmentSampler, UniformSpanSampler
from timesformer.video.pyav_reader import PyAVReader

KINETICS_HABIT = UniformSpanSampler(8, 32, 30.0)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[VideoRecord]:
    """Six videos of 2 to 4.5 s at 15 frames a second, one of them wider."""
    folder = tmp_path_factory.mktemp("videos")
    paths = [
        write_video(folder / f"{i}.mp4", num_frames=30 + round(7.5 * i), fps=15, size=(96 if i == 2 else 64, 48))
        for i in range(6)
    ]
    return [VideoRecord(str(path), i % 2, f"train.csv:{i + 1}") for i, path in enumerate(paths)]


def test_a_report_says_what_the_videos_are(videos: list[VideoRecord]) -> None:
    report = inspect_videos(videos, frame_sampler=KINETICS_HABIT)
    assert report.num_records == 6 and report.num_frames == 8
    assert report.durations_sec == pytest.approx([frames / 15 for frames in (30, 38, 45, 52, 60, 68)])
    assert report.fps == pytest.approx([15] * 6) and report.sizes[2] == (48, 96)
    assert report.distinct_frames[2] == 4  # 0 18 36 44 44 44 44 44
    assert (report.failures, report.warnings, report.repeating_fraction) == ([], [], 1.0)
    text = str(report)
    assert "6 of 6 videos inspected, 0 unreadable" in text and "64x48 (5), 96x48 (1)" in text
    assert ["duration", "(s)", "2.0", "3.2", "4.5"] in [line.split() for line in text.splitlines()]


def test_unreadable_files_are_listed_with_their_cause(videos: list[VideoRecord], tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    cut = truncate(write_video(tmp_path / "cut.avi", num_frames=60, codec="mpeg4"), 0.8)
    broken = [
        VideoRecord(str(tmp_path / "text.mp4"), 0, "train.csv:7"),
        VideoRecord(str(tmp_path / "gone.mp4"), 0, "train.csv:8"),
        VideoRecord(str(cut), 0, "train.csv:9"),
    ]
    report = inspect_videos([*videos, *broken], frame_sampler=UniformSegmentSampler(8), num_threads=2)
    assert [(failure.index, failure.source) for failure in report.failures] == [
        (6, "train.csv:7"),
        (7, "train.csv:8"),
    ]
    assert all(str(cut) in warning for warning in report.warnings) and report.warnings
    text = str(report)
    assert "9 of 9 videos inspected, 2 unreadable" in text
    assert f"unreadable: {tmp_path / 'gone.mp4'} (train.csv:8): {report.failures[1].cause}" in text


def test_a_report_of_nothing_readable_can_be_printed(tmp_path: Path) -> None:
    report = quick_look([VideoRecord(str(tmp_path / "gone.mp4"), 0, "a.csv:1")], frame_sampler=KINETICS_HABIT)
    assert str(report).startswith("1 of 1 videos inspected, 1 unreadable\nunreadable: ")
    assert span_advice(report, sampling_rate=32, target_fps=30.0) is None


def test_a_sample_is_spread_over_the_list_and_always_the_same(videos: list[VideoRecord]) -> None:
    reports = [inspect_videos(videos, frame_sampler=KINETICS_HABIT, max_videos=3) for _ in range(2)]
    assert reports[0] == reports[1]
    assert reports[0].durations_sec == pytest.approx([30 / 15, 45 / 15, 68 / 15])
    everything = inspect_videos(videos, frame_sampler=KINETICS_HABIT, max_videos=None)
    assert len(everything.fps) == 6


def test_a_quick_look_reports_the_same_without_reading(
    videos: list[VideoRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = inspect_videos(videos, frame_sampler=KINETICS_HABIT)
    monkeypatch.setattr(PyAVReader, "read", None)
    assert quick_look(videos, frame_sampler=KINETICS_HABIT) == full
    quick_look(videos, frame_sampler=ShuffledFrames(KINETICS_HABIT))


def test_only_the_part_that_counts_is_measured(videos: list[VideoRecord]) -> None:
    part = VideoRecord(videos[5].path, 0, "a.csv:1", start_sec=1.0, end_sec=2.0)
    rest = VideoRecord(videos[5].path, 0, "a.csv:2", start_sec=4.0)
    report = quick_look([part, rest], frame_sampler=KINETICS_HABIT)
    assert report.durations_sec == pytest.approx([1.0, 68 / 15 - 4])


def test_defect_12_a_span_longer_than_the_videos_is_reported_with_what_to_set(videos: list[VideoRecord]) -> None:
    report = quick_look(videos, frame_sampler=KINETICS_HABIT)
    advice = span_advice(report, sampling_rate=32, target_fps=30.0)
    assert advice == (
        "clip span 8.5 s against a median video of 3.2 s: 100% of the videos would repeat frames. "
        "Set DATA.SAMPLING_RATE auto (each clip spans the whole video) or at most 7"
    )
    as_advised = quick_look(videos, frame_sampler=UniformSpanSampler(8, 7, 30.0))
    assert span_advice(as_advised, sampling_rate=7, target_fps=30.0) is None


def test_videos_shorter_than_a_clip_are_reported_when_clips_span_the_whole_video(
    videos: list[VideoRecord],
) -> None:
    report = quick_look(videos, frame_sampler=UniformSegmentSampler(40))
    assert span_advice(report, sampling_rate="auto", target_fps=30.0) == (
        "33% of the videos would repeat frames: too short for DATA.NUM_FRAMES 40, the shortest has 30 frames"
    )
    fitting = quick_look(videos, frame_sampler=UniformSegmentSampler(16))
    assert span_advice(fitting, sampling_rate="auto", target_fps=30.0) is None


def test_motion_images_of_short_videos_take_fewer_differences(videos: list[VideoRecord]) -> None:
    spec = ClipSpec(num_frames=2, difference_frames=40, input="difference", sampling_rate="auto")
    report = quick_look(videos, frame_sampler=spec.frame_sampler())
    shortest = round(min(np.multiply(report.durations_sec, report.fps)))
    advice = span_advice(report, sampling_rate="auto", target_fps=1.0, num_frames=2) or ""
    assert "too short for DATA.NUM_FRAMES 2 (81 with DATA.DIFFERENCE_FRAMES)" in advice
    assert advice.endswith(f"the shortest has {shortest} frames. Type DATA.DIFFERENCE_FRAMES {(shortest - 1) // 2}")


def test_a_few_short_videos_are_no_reason_for_advice(videos: list[VideoRecord]) -> None:
    report = quick_look(videos, frame_sampler=UniformSpanSampler(8, 8, 30.0))
    report.distinct_frames = [8.0] * 95 + [6.0] * 5
    assert span_advice(report, sampling_rate=8, target_fps=30.0) is None
    report.distinct_frames = [8.0] * 90 + [6.0] * 10
    assert "10% of the videos" in (span_advice(report, sampling_rate=8, target_fps=30.0) or "")
