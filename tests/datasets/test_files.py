"""Names of files as people and systems give them: picture series, junk, what is left out."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.datasets.media import picture
from timesformer.datasets.files import LeftOut, RealPaths, is_system_file, list_pictures, picture_series
from timesformer.datasets.video_dataset import as_record, open_record
from timesformer.utils.errors import VideoReadError

THREE = range(3)
SERIES = {
    "one": ([f"img_{i}.jpg" for i in THREE], [""]),
    "without numbers": (["a.jpg", "b.jpg"], [""]),
    "two numbers": ([f"f{i}_t{i}.5.jpg" for i in THREE], [""]),
    "out of nine": ([f"f{i}_of_9.jpg" for i in THREE], [""]),
    "clock": (["10_00_58.jpg", "10_00_59.jpg", "10_01_00.jpg", "10_01_01.jpg"], [""]),
    "first without number": (["frame.jpg", "frame1.jpg", "frame2.jpg"], [""]),
    "in two parts": ([f"a_{i}.jpg" for i in THREE] + [f"b_{i + 3}.jpg" for i in THREE], [""]),
    "types in turn": (["1.jpg", "2.jpeg", "3.JPG"], [""]),
    "flow": ([f"{s}_{i}.jpg" for s in ("img", "flow_x") for i in THREE], ["img_*.jpg", "flow_x_*.jpg"]),
    "eyes": ([f"{s}{i}.png" for s in ("left", "right") for i in THREE], ["left*.png", "right*.png"]),
    "types": ([f"{i}.{kind}" for kind in ("jpg", "png") for i in THREE], ["*.jpg", "*.png"]),
    "cameras": ([f"cam{c}_{i}.jpg" for c in (1, 2) for i in THREE], ["cam1_*.jpg", "cam2_*.jpg"]),
}


@pytest.mark.parametrize(("names", "patterns"), SERIES.values(), ids=SERIES)
def test_picture_series(names: list[str], patterns: list[str]) -> None:
    series = picture_series(names)
    assert [*series] == patterns and sum(map(len, series.values())) == len(names)


def test_a_cover_is_no_frame_and_a_folder_of_two_series_no_video(tmp_path: Path) -> None:
    for name in ("1.jpg", "2.jpg", "thumb.jpg", "._1.jpg"):
        (tmp_path / name).touch()
    assert [Path(p).name for p in list_pictures(str(tmp_path))] == ["1.jpg", "2.jpg"]
    (tmp_path / "1.png").touch()
    (tmp_path / "2.png").touch()
    with pytest.raises(VideoReadError, match=r"2 picture series in one folder: \*.jpg \(2\), \*.png \(2\)"):
        as_record(tmp_path)


def test_pictures_in_a_folder_whose_name_is_not_utf8(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), picture(7)[..., ::-1])
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    os.mkdir(folder)
    os.rename(tmp_path / "0.png", f"{folder}/0.png")
    with open_record(as_record(folder), backend="pyav") as reader:
        assert np.array_equal(reader.read([0])[0], picture(7))
    Path(folder, "0.png").write_bytes(b"")
    with pytest.raises(VideoReadError, match="not a picture"):
        open_record(as_record(folder), backend="pyav")


@pytest.mark.parametrize("path", ["a/._b.mp4", "__MACOSX/b.mp4", "x\\__MACOSX\\b.mp4", "a/Thumbs.db", "@eaDir/b.mp4"])
def test_files_of_systems(path: str) -> None:
    assert is_system_file(path) and not is_system_file("data/b.mp4")


def test_what_is_left_out_is_one_line_a_reason() -> None:
    left_out = LeftOut()
    left_out.add("files of other types", ".gif", ".txt", ".gif")
    left_out.add("links")
    left_out.add("folders", *"abcdefg")
    assert left_out.lines("data") == [
        "data: left out: 3 files of other types: .gif (2), .txt",
        "data: left out: 7 folders: a, b, c, d, e, ...",
    ]


def test_real_paths_follow_links_of_files_and_of_folders(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.mp4").touch()
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "c.mp4").symlink_to("b/x.mp4")
    real_path = RealPaths()
    names = ("a/x.mp4", "./a/x.mp4", "b/x.mp4", "c.mp4", "b/../a/x.mp4")
    assert {real_path(f"{tmp_path}/{name}") for name in names} == {os.path.realpath(tmp_path / "a/x.mp4")}
    assert real_path(f"{tmp_path}/a/none.mp4") == os.path.realpath(tmp_path / "a/none.mp4")
