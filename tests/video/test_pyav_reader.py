"""The reader seeks to what is wanted, in each codec."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from tests.datasets.media import decode_all, read_number, write_video
from timesformer.video import pyav_reader
from timesformer.video.pyav_reader import PyAVReader


def test_seeking_does_not_decode_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", num_frames=100, gop=10, bframes=2)
    monkeypatch.setattr(pyav_reader, "_decode_from_start", lambda path: pytest.fail("decoded it all"))
    for _ in range(2):
        with PyAVReader(str(path)) as reader:
            assert [read_number(frame) for frame in reader.read([95, 3])] == [95, 3]


@pytest.mark.skipif("libsvtav1" not in av.codecs_available, reason="this FFmpeg cannot write AV1")
def test_av1_is_read_by_seeking_the_second_time_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its decoder leaves out frames for good if it is to do so when it opens."""
    path = write_video(tmp_path / "a.mp4", num_frames=40, codec="libsvtav1", gop=40)
    wanted = np.array([5, 7, 21, 39])
    expected = np.stack(decode_all(path)[0])[wanted]
    monkeypatch.setattr(PyAVReader, "_read_linearly", lambda *_: pytest.fail("decoded from the start"))
    for _ in range(2):
        with PyAVReader(str(path)) as reader:
            assert np.array_equal(reader.read(wanted), expected)
