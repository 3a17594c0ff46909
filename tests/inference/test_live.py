"""Watching a stream: windows by time, one event per gesture, the newest frame first."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from timesformer.datasets.gestures.rendering import FPS, write_video
from timesformer.inference.events import EventDetector
from timesformer.inference.live import Watcher
from timesformer.inference.predictor import Predictor
from timesformer.video.capture import FrameRing, Source
from timesformer.video.clip_spec import ClipSpec

BRIGHT_SEC = ((2.0, 3.5), (5.0, 6.5))


class Brightness(nn.Module):
    """Class 0 for bright clips, class 1 for dark ones; `pause_sec` for a slow model."""

    pause_sec = 0.0

    def forward(self, clips: Tensor) -> Tensor:
        time.sleep(self.pause_sec)
        mean = clips.mean(dim=(1, 2, 3, 4))  # -2 black, 2.4 white
        return 3 * torch.stack([mean, -mean], dim=1)


def predictor(**settings: object) -> Predictor:
    spec = ClipSpec(**{"num_frames": 4, "sampling_rate": "auto", "size": (16, 16), "crop_mode": "full"} | settings)
    return Predictor(Brightness(), spec, ["bright", "idle"])  # type: ignore[arg-type]


def write_stream(path: Path, bright: Sequence[tuple[float, float]]) -> str:
    """8 seconds of darkness with bright stretches, from and to in seconds."""
    frames = np.full((8 * FPS, 32, 32, 3), 20, np.uint8)
    for start, end in bright:
        frames[round(start * FPS) : round(end * FPS)] = 230
    write_video(path, frames, "mpeg4")
    return str(path)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_stream(tmp_path_factory.mktemp("live") / "stream.avi", BRIGHT_SEC)


def test_one_event_per_bright_stretch(video: str) -> None:
    watcher = Watcher(predictor(), EventDetector(["bright", "idle"], 0.7), durations_sec=[1.0, 1.5])
    events = list(watcher.watch(Source(video)))
    assert [event.name for event in events] == ["bright", "bright"]
    for event, (start, end) in zip(events, BRIGHT_SEC, strict=True):
        assert start - 0.5 < event.start < event.end < end + 0.5
    assert watcher.statistics.frames == 8 * FPS
    assert "moments scored" in str(watcher.statistics)


@pytest.mark.parametrize("durations", [[1.0], [1.0, 1.5]])
def test_a_gesture_that_is_repeated_after_one_second_gives_a_second_event(
    durations: list[float], tmp_path: Path
) -> None:
    bright = [(1.0, 2.5), (3.5, 5.0), (6.0, 7.5)]
    watcher = Watcher(predictor(), EventDetector(["bright", "idle"], 0.7), durations_sec=durations)
    events = list(watcher.watch(Source(write_stream(tmp_path / "repeats.avi", bright))))
    assert len(events) == len(bright)
    for event, (start, end) in zip(events, bright, strict=True):
        assert start <= (event.start + event.end) / 2 <= end


def test_a_window_is_scored_as_the_clip_cut_out_of_the_video_would_be() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (60, 40, 50, 3), dtype=np.uint8)
    model, moments = predictor(), np.arange(60) / 30
    watcher, ring = Watcher(model, EventDetector(["bright", "idle"], 0.5), durations_sec=[1.0]), FrameRing(5)
    for at, frame in zip(moments, frames, strict=True):
        ring.add(float(at), watcher._prepare(frame))
    (window,) = watcher.score(ring, float(moments[-1]))
    expected = dict(model.predict(frames[30:]))
    assert window.scores == pytest.approx([expected["bright"], expected["idle"]], abs=1e-6)


def test_windows_longer_than_the_stream_wait() -> None:
    watcher, ring = Watcher(predictor(), EventDetector(["bright", "idle"], 0.5), durations_sec=[1.0, 3.0]), FrameRing(5)
    for index in range(45):
        ring.add(index / 30, watcher._prepare(np.zeros((8, 8, 3), np.uint8)))
    assert len(watcher.score(ring, 44 / 30)) == 1


def test_a_fixed_sampling_rate_has_one_window_of_its_own() -> None:
    model = predictor(sampling_rate=8, target_fps=30.0)
    assert Watcher(model, EventDetector(["bright", "idle"], 0.5), durations_sec=[9.0]).durations_sec == [4 * 8 / 30]


def test_a_slow_model_skips_moments_and_does_not_queue_them(video: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Brightness, "pause_sec", 0.3)
    watcher, moments = Watcher(predictor(), EventDetector(["bright", "idle"], 0.7), durations_sec=[1.0]), []
    list(watcher.watch(Source(video), paced=True, seen=lambda now, windows: moments.append(now)))
    looked = np.diff([now for now in moments if now > 1.2])
    assert looked.mean() > 0.25  # a stride of 0.1 s would need three times as many
    assert watcher.statistics.scored < 8 / 0.25
    assert watcher.statistics.frames == 8 * FPS


def test_temperature_flattens_scores(tmp_path: Path) -> None:
    ring = FrameRing(5)
    hot, cold = (
        Watcher(predictor(), EventDetector(["bright", "idle"], 0.5), durations_sec=[1.0], temperature=temperature)
        for temperature in (5.0, 1.0)
    )
    for index in range(40):
        ring.add(index / 30, cold._prepare(np.full((8, 8, 3), 200, np.uint8)))
    assert hot.score(ring, 39 / 30)[0].scores.max() < cold.score(ring, 39 / 30)[0].scores.max()
