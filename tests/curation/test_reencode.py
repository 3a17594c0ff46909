"""Copies of videos: the short side, the frames and their rate; whole or not at all, and never twice."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from tests.datasets.media import picture, read_number, write_video
from timesformer.curation.facts import Facts, measure
from timesformer.curation.reencode import copy_name, reencode
from timesformer.datasets.records import VideoRecord
from timesformer.video.readers import open_video


def copy(records: list[VideoRecord], targets: list[Path], *, processes: int = 1) -> dict[str, str]:
    paths = [str(path) for path in targets]
    return reencode(records, paths, short_side=32, processes=processes, show_progress=False)


@pytest.mark.parametrize(("size", "height_width"), [((96, 64), (32, 48)), ((48, 80), (54, 32)), ((24, 16), (16, 24))])
def test_the_short_side_and_every_frame(tmp_path: Path, size: tuple[int, int], height_width: tuple[int, int]) -> None:
    source = write_video(tmp_path / "a.avi", num_frames=70, size=size, fps=15, codec="mpeg4")
    assert copy([VideoRecord(str(source), -1, "")], [tmp_path / "out/x/a.mp4"]) == {}
    with open_video(str(tmp_path / "out/x/a.mp4")) as reader:
        info = reader.info
        assert (info.height, info.width) == height_width and (info.num_frames, info.fps) == (70, 15.0)
        numbers = [read_number(frame) for frame in reader.read(range(70))]
    assert numbers == [*range(70)] or size == (24, 16)  # too small to show them
    assert [path.name for path in (tmp_path / "out/x").iterdir()] == ["a.mp4"]


def test_what_is_there_is_kept_and_what_cannot_be_read_leaves_nothing(tmp_path: Path) -> None:
    good = write_video(tmp_path / "good.mp4", num_frames=4)
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    (tmp_path / "done.mp4").write_text("of an interrupted run")
    records = [VideoRecord(str(path), -1, "") for path in (good, tmp_path / "bad.mp4", good)]
    targets = [tmp_path / "out/good.mp4", tmp_path / "out/bad.mp4", tmp_path / "done.mp4"]
    failures = copy(records, targets, processes=2)
    assert [*failures] == [str(targets[1])] and "bad.mp4" not in failures[str(targets[1])]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.mp4"]
    assert (tmp_path / "done.mp4").read_text() == "of an interrupted run"


def test_frame_folders_become_files(tmp_path: Path) -> None:
    frames = []
    for i in range(6):
        frames.append(str(tmp_path / f"{i}.png"))
        cv2.imwrite(frames[-1], picture(i, (96, 64))[..., ::-1])
    copy([VideoRecord(str(tmp_path), -1, "", tuple(frames))], [tmp_path / "out.mp4"])
    with open_video(str(tmp_path / "out.mp4")) as reader:
        assert [read_number(frame) for frame in reader.read(range(6))] == [*range(6)]


def test_no_two_copies_have_one_name() -> None:
    names = ["a/1.mp4", "a/1.avi", "a/1", "/other/disk/1.mp4"]
    copies = ["a/1.mp4", "a/1.avi.mp4", "a/1.frames.mp4", "other/disk/1.mp4"]
    assert [copy_name(name) for name in names] == copies


def test_facts_and_why_there_are_none(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", num_frames=45, size=(64, 48), fps=15)
    (tmp_path / "copy.mp4").write_bytes(video.read_bytes())
    (tmp_path / "empty.mp4").touch()
    paths = [str(tmp_path / name) for name in ("a.mp4", "copy.mp4", "empty.mp4", "gone.mp4")]
    first, second, empty, gone = measure([VideoRecord(path, -1, "") for path in paths], show_progress=False)
    assert isinstance(first, Facts) and first == second and first[:4] == (3.0, 15.0, 45, "64x48")
    assert len(first.hash) == 16 and isinstance(empty, str) and isinstance(gone, str)
