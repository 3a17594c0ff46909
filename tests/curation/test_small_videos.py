"""Every video becomes small frames, or a named failure, whatever it does to the process that reads it."""

from __future__ import annotations

from multiprocessing import spawn
from pathlib import Path

import numpy as np
import pytest

from tests.curation.clips import OddFrames, gestures
from tests.datasets.media import truncate, write_video
from timesformer.curation.small_videos import SIDE, SmallVideo, read_small_video, read_small_videos
from timesformer.datasets.records import Failure, VideoRecord
from timesformer.utils.errors import UserError


def test_videos_that_cannot_be_read_hang_or_crash_are_named_and_the_others_are_read(tmp_path: Path) -> None:
    (good,) = gestures(tmp_path, 1, seed=1)
    broken = VideoRecord(str(truncate(write_video(tmp_path / "broken.mp4"), 0.3)), 0, "train.csv:2")
    hanging, crashing = (VideoRecord(f"{fault}.mp4", 0, "", frames=OddFrames(fault)) for fault in ("hangs", "crashes"))
    records = [good, broken, hanging, crashing, VideoRecord("none.mp4", 0, "train.csv:5"), good]
    read = read_small_videos(records, num_frames=4, title="videos", digests={0}, timeout_sec=1.0, num_processes=1)
    videos = [video for video in read if isinstance(video, SmallVideo)]
    assert [video.frames.shape for video in videos] == [(4, SIDE, SIDE)] * 2
    assert len(videos[0].digest) == 16 and videos[1].digest == ""
    failures = [video for video in read if isinstance(video, Failure)]
    assert [(failure.index, Path(failure.path).name, failure.source) for failure in failures][0::3] == [
        (1, "broken.mp4", "train.csv:2"),
        (4, "none.mp4", "train.csv:5"),
    ]
    assert failures[1].cause == "it hangs: nothing came within 1 s"
    assert failures[2].cause == "it crashes the decoder: its process ended with status 3"


def test_frames_are_spread_over_the_part_that_is_used_from_its_first_to_its_last(tmp_path: Path) -> None:
    pictures = [np.full((32, 48, 3), 4 * number, np.uint8) for number in range(60)]
    path = write_video(tmp_path / "grey.mp4", frames=pictures, fps=30, options={"crf": "5"})
    whole = read_small_video(VideoRecord(str(path), 0, ""), 4, "pyav", False)
    np.testing.assert_allclose(whole.frames.mean(axis=(1, 2)), [0, 80, 156, 236], atol=3)
    part = read_small_video(VideoRecord(str(path), 0, "", start_sec=1.0, end_sec=1.5), 100, "pyav", False)
    assert len(part.frames) == 15 and abs(part.duration_sec - 0.5) < 1e-9
    np.testing.assert_allclose(part.times_sec, np.arange(15) / 30)
    assert abs(float(part.frames[0].mean()) - 120) < 3


def test_processes_that_do_not_start_are_no_fault_of_the_videos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawn, "get_executable", lambda: "/bin/false")
    with pytest.raises(UserError, match="videos cannot be read in processes: its process ended with status 1"):
        read_small_videos([VideoRecord("a.mp4", 0, "")], num_frames=4, title="videos")
