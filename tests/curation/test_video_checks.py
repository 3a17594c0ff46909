"""Unreadable and constant videos and clips that do not fit their length are findings."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.datasets.media import picture, write_video
from timesformer.curation.findings import ERROR, Listed
from timesformer.curation.small_videos import SmallVideo, read_small_video
from timesformer.curation.video_checks import (
    constant_findings,
    length_findings,
    same_size,
    unreadable_findings,
)
from timesformer.datasets.records import Failure, VideoRecord
from timesformer.video.clip_spec import ClipSpec
from timesformer.video.video_info import VideoInfo


def test_black_frozen_and_single_pictures_are_constant_and_a_small_movement_is_not(tmp_path: Path) -> None:
    scene = picture(5)
    moving = [scene.copy() for _ in range(20)]
    for number, frame in enumerate(moving):
        frame[20:28, 2 * number : 2 * number + 8] = 255
    pictures = {
        "black": [np.zeros_like(scene)] * 20,
        "frozen": [scene] * 20,
        "one": [scene],
        "moving": moving,
    }
    listed, videos = [], {}
    for index, (name, frames) in enumerate(pictures.items()):
        path = write_video(tmp_path / f"{name}.mp4", frames=frames, options={"crf": "30"})
        listed.append(Listed("train", VideoRecord(str(path), 0, "")))
        videos[index] = read_small_video(listed[-1].record, 16, "pyav", False)
    found = constant_findings(listed, videos)
    assert [(Path(each.remove[0].record.path).stem, each.what) for each in found] == [
        ("black", "black"),
        ("frozen", "the picture never changes"),
        ("one", "a single frame"),
    ]


def test_unreadable_videos_are_errors_and_remarks_of_the_decoder_warnings() -> None:
    listed = [Listed("val", VideoRecord(f"{name}.mp4", 0, f"val.csv:{i}")) for i, name in enumerate("abc")]
    info = VideoInfo(9, 30.0, 8, 8)
    fine, odd = (
        SmallVideo(i, np.zeros(1), np.zeros((1, 16, 16))) for i in (info, VideoInfo(9, 30.0, 8, 8, ("damaged",)))
    )
    bad, remark = unreadable_findings(listed, [Failure(0, "a.mp4", "val.csv:0", "it is cut off"), fine, odd])
    assert (bad.severity, bad.what, bad.remove) == (ERROR, "it is cut off", [listed[0]])
    assert (remark.check, remark.what, remark.videos) == ("odd files", "damaged", [listed[2]])


def test_only_files_of_one_size_can_have_the_same_content(tmp_path: Path) -> None:
    for name, content in {"a": "xx", "b": "y", "c": "zz"}.items():
        (tmp_path / name).write_text(content)
    records = [VideoRecord(str(tmp_path / name), 0, "") for name in ("a", "b", "c", "missing")]
    assert same_size(records) == {0, 2}


def lengths(seconds: float, num_clips: int | str = 1, **spec: object) -> list[str]:
    listed = [Listed("train", VideoRecord(f"{i}.mp4", 0, "")) for i in range(4)]
    video = SmallVideo(VideoInfo(round(30 * seconds), 30.0, 8, 8), np.zeros(1), np.zeros((1, 16, 16)))
    settings = {"num_frames": 8, "sampling_rate": 8, "target_fps": 30, **spec}
    found = length_findings(listed, dict.fromkeys(range(4), video), ClipSpec(**settings), num_clips=num_clips)  # type: ignore[arg-type]
    return [f"{each.check} {dict(each.settings)}" for each in found]


def test_clips_longer_than_the_videos_and_clips_that_miss_most_of_them() -> None:
    auto = {"DATA.SAMPLING_RATE": "auto"}  # a clip of the spec spans 2.1 s
    assert lengths(1.0) == [f"clips that repeat frames {auto}"]
    assert lengths(3.0) == []
    assert lengths(10.0) == [f"clips that miss most of the video {auto}"]
    assert lengths(10.0, num_clips=5) == lengths(10.0, num_clips="auto") == lengths(10.0, sampling_rate="auto") == []
