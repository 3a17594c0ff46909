"""A stream recorded while it comes: decoded again, every moment shows its frame."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from tests.datasets.media import picture, read_number
from timesformer.utils.errors import UserError
from timesformer.video.recorder import Recorder


def decoded(path: Path) -> tuple[list[int], float]:
    with av.open(str(path)) as container:
        numbers = [read_number(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
        return numbers, float(container.streams.video[0].average_rate or 0)


def record(path: Path, times: list[float], fps: float = 10.0) -> tuple[list[int], float]:
    recorder = Recorder(path, fps, waits=True)
    for number, at in enumerate(times):
        recorder(at, picture(number))
    recorder.close()
    return decoded(path)


def test_frames_in_time_are_recorded_once_each(tmp_path: Path) -> None:
    assert record(tmp_path / "new" / "a.mp4", [number / 10 for number in range(40)]) == ([*range(40)], 10.0)


def test_a_gap_is_filled_and_a_burst_thinned(tmp_path: Path) -> None:
    numbers, _ = record(tmp_path / "a.mp4", [0.0, 0.1, 0.5, 0.51, 0.52, 0.6])
    assert numbers == [0, 1, 1, 1, 1, 4, 5], "0.0 to 0.6 s at 10 frames a second"


def test_a_rate_that_is_none_becomes_30(tmp_path: Path) -> None:
    assert record(tmp_path / "a.mp4", [0.0, 1 / 30], fps=90_000)[1] == 30.0


def test_a_stream_without_frames_is_an_empty_file(tmp_path: Path) -> None:
    Recorder(tmp_path / "a.mp4", 10.0, waits=False).close()
    assert (tmp_path / "a.mp4").stat().st_size == 0


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.avi: name a file that ends in \.mp4"):
        Recorder(tmp_path / "a.avi", 10.0, waits=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        Recorder(tmp_path / "file" / "a.mp4", 10.0, waits=False)


def test_a_full_disk_is_told_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.symlink_to("/dev/full")
    recorder = Recorder(path, 10.0, waits=True)
    for number in range(200):
        recorder(number / 10, picture(number))
    with pytest.raises(UserError, match="No space left on device"):
        recorder.close()
