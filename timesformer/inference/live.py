"""Watch a stream: score windows that end with the newest frame, and give one event for each gesture."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from timesformer.evaluation.calibration import calibrated
from timesformer.evaluation.evaluate import join_views
from timesformer.inference.events import Event, EventDetector, Window
from timesformer.inference.predictor import Predictor
from timesformer.utils.compute import autocast
from timesformer.video.capture import Capture, FrameRing, Source
from timesformer.video.frame_samplers import clip_span_sec

GRID_FPS = 30.0  # of the moments that a window's frames are chosen from, whatever the rate of the source
SILENCE_SEC = 10.0  # without a frame before a source counts as lost
KEPT_LATENCIES = 10_000


@dataclass
class Statistics:
    """What a watch has done so far.

    Attributes:
        frames: that came.
        dropped: of these, that came too fast to be kept.
        scored: moments that the model looked at.
        latencies: seconds from the arrival of the newest frame to the scores, of the last such moments.
    """

    frames: int = 0
    dropped: int = 0
    scored: int = 0
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_LATENCIES))

    def __str__(self) -> str:
        """One line."""
        line = f"{self.frames} frames, {self.dropped} dropped, {self.scored} moments scored"
        if self.latencies:
            median, high = 1000 * np.quantile(self.latencies, [0.5, 0.95])
            line += f", from frame to scores {median:.0f} ms (95%: {high:.0f} ms)"
        return line


@dataclass
class Watcher:
    """Finds gestures in a stream with a predictor.

    Attributes:
        predictor: of single gestures, one label each; its views other than one centre view are not used.
        detector: of events.
        durations_sec: lengths of the windows. Models with a fixed sampling rate have one of their own.
        temperature: of the calibration, 1 without one.
        stride_sec: time between two moments that are scored, at least.
        statistics: of the stream so far.
    """

    predictor: Predictor
    detector: EventDetector
    durations_sec: Sequence[float]
    temperature: float = 1.0
    stride_sec: float = 0.1
    statistics: Statistics = field(default_factory=Statistics)

    def __post_init__(self) -> None:
        spec = self.predictor.spec
        if spec.sampling_rate != "auto":
            self.durations_sec = [clip_span_sec(spec.num_frames, spec.sampling_rate, spec.target_fps)]
        self._transform, self._sample = spec.eval_transform(), spec.frame_sampler()

    def watch(
        self, source: Source, *, paced: bool = False, seen: Callable[[float, list[Window]], None] | None = None
    ) -> Iterator[Event]:
        """Events of `source`, each as soon as it is decided.

        Args:
            source: of the frames. A file is read as fast as the model allows, and no moment is left out.
            paced: read a file in its own time, like a camera.
            seen: called with every moment that is scored, and its windows.

        Raises:
            VideoReadError: the source broke off.
        """
        ring = FrameRing(max(self.durations_sec) + 1.0)
        following, now = float("-inf"), 0.0
        for frames, arrived in self._frames(source, paced=paced):
            for now, frame in frames:
                ring.add(now, frame)
            if now < following:
                continue
            following = now + self.stride_sec
            windows = self.score(ring, now)
            if arrived is not None:
                self.statistics.latencies.append(time.monotonic() - arrived)
            if seen is not None:
                seen(now, windows)
            if (event := self.detector.update(now, windows)) is not None:
                yield event
        if (event := self.detector.finish(now)) is not None:
            yield event

    def _frames(self, source: Source, *, paced: bool) -> Iterator[tuple[list[tuple[float, np.ndarray]], float | None]]:
        """(time, prepared frame) of what came since the last time, and when the newest did."""
        if not (paced or source.is_live):
            for at, frame in source.frames():
                self.statistics.frames += 1
                yield [(at, self._prepare(frame))], None
            return
        capture = Capture(source, paced=paced and not source.is_live, prepare=self._prepare)
        try:
            while (batch := capture.take(SILENCE_SEC)) is not None:
                self.statistics.frames, self.statistics.dropped = capture.received, capture.dropped
                yield [(at, frame) for at, _, frame in batch], batch[-1][1]
        finally:
            capture.close()

    def _prepare(self, frame: np.ndarray) -> np.ndarray:
        """What the model sees of a frame (H, W, 3): uint8 (C, h, w)."""
        return self._transform(frame[None])[0, :, 0].numpy()  # of one view

    def score(self, ring: FrameRing, now: float) -> list[Window]:
        """Calibrated scores of the windows that end `now` and that the ring covers."""
        first = ring.frames[0][0]
        durations = [duration for duration in self.durations_sec if now - duration >= first - 1 / GRID_FPS]
        if not durations:
            return []
        clips = []
        for duration in durations:
            count = max(1, round(duration * GRID_FPS))
            indices = self._sample(count, GRID_FPS, np.random.default_rng(0))[0]
            clips.append(ring.at(now - (count - 1 - indices) / GRID_FPS).swapaxes(0, 1))
        self.statistics.scored += 1
        predictor = self.predictor
        with torch.inference_mode(), autocast(predictor.device, predictor.dtype):
            batch = torch.from_numpy(np.stack(clips)).to(predictor.device)
            logits = predictor.model(predictor.spec.normalize(batch)).float().cpu()
        scores = calibrated(join_views(logits[:, None], "mean").numpy(), self.temperature)
        return [Window(now - duration, now, row) for duration, row in zip(durations, scores, strict=True)]
