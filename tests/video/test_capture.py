"""Sources of frames, the ring of the last seconds, and a reader thread that never falls behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from timesformer.datasets.gestures.rendering import FPS, write_video
from timesformer.utils.errors import VideoReadError
from timesformer.video.capture import Capture, FrameRing, Source


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("capture") / "grey.avi"
    write_video(path, np.repeat(np.arange(0, 200, 10, dtype=np.uint8), 32 * 32 * 3).reshape(-1, 32, 32, 3), "mpeg4")
    return str(path)


def test_a_file_gives_every_frame_in_its_time(video: str) -> None:
    frames = list(Source(video).frames())
    assert [at for at, _ in frames] == pytest.approx(np.arange(20) / FPS)
    assert [round(float(frame.mean()), -1) for _, frame in frames] == list(range(0, 200, 10))


@pytest.mark.parametrize(("name", "hint"), [("nowhere.mp4", "No such file"), ("99", "/dev/video")])
def test_a_source_that_is_not_there(name: str, hint: str) -> None:
    with pytest.raises(VideoReadError, match=hint):
        Source(name)


def test_a_file_without_video(tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("no video")
    with pytest.raises(VideoReadError, match="cannot be opened"):
        Source(str(tmp_path / "notes.mp4"))


def test_the_ring_keeps_the_last_seconds_and_finds_frames_by_time() -> None:
    ring = FrameRing(1.0)
    for index in range(50):
        ring.add(index / 10, np.full((1,), index))
    assert ring.frames[0][0] == pytest.approx(3.9)
    assert ring.at(np.array([4.0, 4.05, 4.1, 9.0, 0.0]))[:, 0].tolist() == [40, 40, 41, 49, 39]


def test_every_frame_of_a_paced_file_arrives_in_order(video: str) -> None:
    capture, times = Capture(Source(video), paced=True), []
    while (batch := capture.take(20)) is not None:
        times += [at for at, _, _ in batch]
    assert times == pytest.approx(np.arange(20) / FPS)
    assert (capture.received, capture.dropped) == (20, 0)


def fake(frames: Iterator[tuple[float, np.ndarray]]) -> Source:
    return SimpleNamespace(name="fake", frames=lambda: frames)  # type: ignore[return-value]


def test_the_oldest_frames_are_dropped_when_nobody_takes_them() -> None:
    done = threading.Event()

    def frames() -> Iterator[tuple[float, np.ndarray]]:
        for index in range(100):
            yield float(index), np.zeros(1)
        done.set()

    capture = Capture(fake(frames()), paced=False, max_frames=8)
    assert done.wait(20)
    batch = capture.take(20) or []
    assert [at for at, _, _ in batch][-8:] == [*map(float, range(92, 100))]
    assert capture.received == 100
    assert capture.dropped == 100 - len(batch)


def test_a_silent_source_ends_with_an_error() -> None:
    release = threading.Event()

    def frames() -> Iterator[tuple[float, np.ndarray]]:
        release.wait(20)
        yield 0.0, np.zeros(1)

    with pytest.raises(VideoReadError, match=r"gave no frame for 0\.01 s"):
        Capture(fake(frames()), paced=False).take(0.01)
    release.set()


def test_an_error_in_the_thread_reaches_the_reader() -> None:
    def frames() -> Iterator[tuple[float, np.ndarray]]:
        yield 0.0, np.zeros(1)
        raise VideoReadError("fake", "broke off")

    capture = Capture(fake(frames()), paced=False)
    with pytest.raises(VideoReadError, match="broke off"):
        while capture.take(20) is not None:
            pass
