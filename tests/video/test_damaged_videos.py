"""Damaged videos: the same frames whatever was read before, as a plain decode gives them, and a word about it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from tests.datasets.media import decode_all, read_number, write_video
from timesformer.utils.errors import VideoReadError
from timesformer.video import pyav_reader
from timesformer.video.pyav_reader import PyAVReader
from timesformer.video.readers import open_video


def test_where_a_seek_lands_late_the_packets_before_it_are_read_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyav_reader, "_decode_from_start", lambda path: pytest.fail("decoded it all"))
    path = write_video(tmp_path / "a.ts", num_frames=60, gop=15, bframes=2)
    first, second = (PyAVReader(str(path)).read([3, 20, 50]) for _ in range(2))
    assert np.array_equal(first, second) and [read_number(frame) for frame in first] == [3, 20, 50]


def noisy(path: Path, seed: int, *, size: int = 8) -> Path:
    """Overwrite some bytes in the later half of the pictures' part of a file."""
    generator, data = np.random.default_rng(seed), bytearray(path.read_bytes())
    start = int(generator.integers(len(data) // 3, len(data) * 3 // 4))
    data[start : start + size] = generator.bytes(size)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.avi", "mpeg4"), ("a.mkv", "libx264")])
def test_damaged_frames_are_reported_and_as_in_a_plain_decode_however_often_the_file_was_opened(
    tmp_path: Path, name: str, codec: str
) -> None:
    num_reported = 0
    for seed in range(12):
        path = noisy(write_video(tmp_path / f"{seed}{name}", num_frames=60, gop=15, codec=codec), seed)
        try:
            expected, damage = decode_all(path)
        except av.error.FFmpegError:
            continue
        if damage or len(expected) != 60:
            continue
        pyav_reader._surveys.clear()
        found = []
        for _ in range(3):
            with open_video(str(path), backend="pyav") as reader:
                found.append((reader.read(range(0, 60, 7)), reader.info.warnings))
        assert all(np.array_equal(frames, np.stack(expected[::7])) for frames, _ in found)
        assert len({warnings for _, warnings in found}) == 1
        num_reported += any("damaged frames" in warning for warning in found[0][1])
    assert num_reported


def test_whatever_a_parser_raises_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", num_frames=5)
    monkeypatch.setattr(pyav_reader._Scan, "read", lambda *_, **__: [][0])
    with pytest.raises(VideoReadError, match="its decoder fails: IndexError"):
        PyAVReader(str(path)).read([0])
    monkeypatch.undo()
    monkeypatch.setattr(PyAVReader, "_read_by_seeking", lambda *_: [][0])
    with pytest.raises(VideoReadError, match="its decoder fails: IndexError"):
        PyAVReader(str(path)).read([0])


@pytest.mark.parametrize("tag", ["00:0x:00", "::", "00:00:nan", "aa:bb:cc"])
def test_an_odd_duration_tag_is_no_duration(tag: str) -> None:
    stream = SimpleNamespace(metadata={"DURATION": tag}, container=SimpleNamespace(streams=[1, 2]))
    assert pyav_reader._promised_sec(stream) == 0  # type: ignore[arg-type]
