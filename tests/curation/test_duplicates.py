"""Copies are found though encoded, resized and trimmed otherwise, and gestures that look alike are none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.curation.clips import copy_of, gestures
from timesformer.curation.duplicates import NUM_FRAMES, SIMILAR, exact_copies, find_candidates, groups, similarity
from timesformer.curation.findings import ERROR, WARNING, Finding, Listed
from timesformer.curation.small_videos import SmallVideo, read_small_video
from timesformer.curation.video_checks import copy_findings
from timesformer.datasets.records import VideoRecord
from timesformer.video.video_info import VideoInfo


def find(*splits: Sequence[VideoRecord]) -> list[Finding]:
    listed = [
        Listed(split, record) for split, records in zip(("train", "test"), splits, strict=False) for record in records
    ]
    videos = {i: read_small_video(each.record, NUM_FRAMES, "pyav", True) for i, each in enumerate(listed)}
    return copy_findings(listed, videos, [f"G{label + 1}" for label in range(12)], num_processes=1)


def names(finding: Finding) -> list[str]:
    return [Path(each.record.path).name for each in finding.videos]


def test_copies_within_a_list_across_lists_and_with_other_labels(tmp_path: Path) -> None:
    clips = gestures(tmp_path, 24, seed=31)
    first = copy_of(clips[2], tmp_path / "copy_a", 0)
    other_label = copy_of(clips[5], tmp_path / "copy_b", 1)
    other_label = VideoRecord(other_label.path, 7, other_label.source)
    in_test = copy_of(clips[9], tmp_path / "copy_c", 2, trim=(0.2, 0.15))
    found = find([*clips, first, other_label], [in_test])
    assert {finding.check: (finding.severity, *names(finding)) for finding in found} == {
        "near copies": (WARNING, "copy_a.mp4", "0002.avi"),
        "near copies, different labels": (ERROR, "copy_b.avi", "0005.avi"),
        "near copies in two lists": (ERROR, "0009.avi", "copy_c.webm"),
    }
    removed = {finding.check: [Path(each.record.path).name for each in finding.remove] for finding in found}
    assert removed == {
        "near copies": ["copy_a.mp4"],  # the longer one stays
        "near copies, different labels": [],  # somebody has to look at them
        "near copies in two lists": ["0009.avi"],  # the list that is tested stays
    }
    assert all(SIMILAR <= (finding.likeness or 0) <= 1 for finding in found)


def test_the_same_bytes_are_exact_copies_and_parts_of_one_file_are_none(tmp_path: Path) -> None:
    (clip,) = gestures(tmp_path, 1, seed=32)
    twin = tmp_path / "twin.avi"
    twin.write_bytes(Path(clip.path).read_bytes())
    (found,) = find([clip, VideoRecord(str(twin), 0, "list.csv:2")])
    assert found.check == "exact copies" and names(found) == ["twin.avi", "0000.avi"]
    video = SmallVideo(VideoInfo(9, 30.0, 8, 8), np.zeros(1), np.zeros((1, 16, 16)), "digest")
    assert exact_copies({0: video, 1: video}, {0: (0.0, 1.0), 1: (1.0, 2.0)}) == []


def test_groups_are_what_pairs_connect() -> None:
    assert groups([(1, 2), (5, 4), (2, 3), (3, 1)]) == [[1, 2, 3], [4, 5]]


def moving(num_frames: int, fps: float, *, start_sec: float = 0.0, gain: float = 1.0, seed: int = 0) -> SmallVideo:
    """A blob whose place depends on the time."""
    times = np.arange(num_frames) / fps
    phase = 2 * np.pi * np.random.default_rng(seed).uniform(size=2)
    at = 8 + 5 * np.sin(3 * (times + start_sec)[:, None] + phase)  # (T, 2)
    y, x = np.mgrid[:16, :16]
    distance = (x - at[:, 0, None, None]) ** 2 + (y - at[:, 1, None, None]) ** 2
    return SmallVideo(VideoInfo(num_frames, fps, 16, 16), times, 90 + gain * 100 * np.exp(-distance / 8))


def test_similarity_finds_the_shift_whatever_the_rate_and_the_brightness() -> None:
    longer = moving(60, 30.0)
    assert similarity(moving(40, 30.0, start_sec=0.4), longer) > 0.99
    assert similarity(moving(20, 15.0, start_sec=0.4, gain=0.7), longer) > 0.98
    assert similarity(moving(40, 30.0, seed=1), longer) < 0.5


def test_videos_that_hardly_move_and_much_shorter_ones_are_not_compared() -> None:
    still = SmallVideo(VideoInfo(30, 30.0, 16, 16), np.arange(30) / 30, np.full((30, 16, 16), 9.0))
    assert find_candidates({3: moving(60, 30.0), 4: moving(60, 30.0), 5: still, 6: still, 7: moving(25, 30.0)}) == [
        (3, 4)
    ]


@pytest.mark.slow
def test_ten_copies_among_500_clips_are_found_with_at_most_two_false_alarms(tmp_path: Path) -> None:
    clips, draw = gestures(tmp_path, 490, seed=3003), np.random.default_rng(3003)
    planted = {}
    for variant, index in enumerate(draw.choice(len(clips), 10, replace=False).tolist()):
        copy = copy_of(clips[index], tmp_path / f"copy_{variant}", variant, trim=tuple(draw.uniform(0, 0.2, 2)))
        planted[Path(copy.path).name] = (copy, Path(clips[index].path).name)
    found = [{*names(finding)} for finding in find([*clips, *(copy for copy, _ in planted.values())])]
    true = [pair for name, (_, original) in planted.items() if (pair := {name, original}) in found]
    assert len(true) == 10 and len(found) - len(true) <= 2
