"""Measures videos before a training: durations, rates, sizes, what cannot be read, what would repeat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from timesformer.datasets.opening import open_record, sample_record
from timesformer.datasets.records import Failure, VideoRecord, shorten
from timesformer.utils.env import available_cpus
from timesformer.utils.errors import VideoReadError
from timesformer.utils.random import numpy_generator
from timesformer.video.frame_samplers import FrameSampler, clip_span_sec, distinct_frames
from timesformer.video.video_info import VideoInfo

QUICK_LOOK_VIDEOS = 50
TOLERATED_SHARE = 0.05  # of the videos may be too short for the clip span


@dataclass
class DataReport:
    """What is known of a list of videos; lists hold one value per readable video that was inspected."""

    num_records: int  # videos of the list
    num_frames: int = 0  # of a clip
    durations_sec: list[float] = field(default_factory=list)  # of the part of the file that is used
    fps: list[float] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)  # (height, width)
    distinct_frames: list[float] = field(default_factory=list)  # per clip, mean over the clips of a video
    failures: list[Failure] = field(default_factory=list)  # the unreadable ones
    warnings: list[str] = field(default_factory=list)  # of the reader, each with the file

    def add(self, record: VideoRecord, info: VideoInfo, frames: np.ndarray) -> None:
        """Count a readable video whose clips show `frames`, (num_clips, T)."""
        self.num_frames = frames.shape[1]
        self.durations_sec.append(min(record.end_sec or info.duration_sec, info.duration_sec) - record.start_sec)
        self.fps.append(info.fps)
        self.sizes.append((info.height, info.width))
        self.distinct_frames.append(float(np.mean(distinct_frames(frames))))
        self.warnings += [f"{record.path} ({record.source}): {warning}" for warning in info.warnings]

    @property
    def repeating_fraction(self) -> float:
        """Share of the videos whose clips would show a frame more than once."""
        return float(np.mean(np.array(self.distinct_frames) < self.num_frames)) if self.distinct_frames else 0.0

    def __str__(self) -> str:
        count = len(self.durations_sec) + len(self.failures)
        lines = [f"{count} of {self.num_records} videos inspected, {len(self.failures)} unreadable"]
        if self.durations_sec:
            sizes = Counter(f"{width}x{height}" for height, width in self.sizes)
            lines += [
                f"{'':22}{'min':>8}{'median':>8}{'max':>8}",
                _row("duration (s)", self.durations_sec),
                _row("frames per second", self.fps),
                _row(f"distinct of {self.num_frames} frames", self.distinct_frames),
                "size (width x height)  " + ", ".join(f"{size} ({n})" for size, n in sizes.most_common(4)),
            ]
        lines += [f"unreadable: {line}" for line in shorten([str(failure) for failure in self.failures])]
        lines += [f"warning: {line}" for line in shorten(self.warnings)]
        return "\n".join(lines)


def _row(name: str, values: Sequence[float]) -> str:
    return f"{name:22}" + "".join(f"{value:8.1f}" for value in (min(values), np.median(values), max(values)))


def inspect_videos(
    records: Sequence[VideoRecord],
    *,
    frame_sampler: FrameSampler,
    backend: str = "pyav",
    max_videos: int | None = 200,
    num_threads: int | None = None,
    read_frames: bool = True,
    show_progress: bool = False,
) -> DataReport:
    """Open videos spread evenly over the list, and read of each the frames of an evaluation and the last one.

    Args:
        records: the list.
        frame_sampler: of the evaluation.
        backend: decoder of video files.
        max_videos: most videos to open; None: all of them.
        num_threads: videos open at a time; None: half of the CPUs, for threads of small videos wait for one another.
        read_frames: False only opens the files.
        show_progress: whether to show a progress bar.
    """
    count = min(len(records), max_videos or len(records))
    indices = np.unique(np.linspace(0, len(records) - 1, count).astype(int)).tolist()

    def inspect(index: int) -> tuple[VideoInfo, np.ndarray] | Failure:
        record = records[index]
        try:
            with open_record(record, backend=backend) as reader:
                frames = sample_record(record, reader.info, frame_sampler, numpy_generator(index))
                if read_frames:
                    reader.read(np.union1d(frames, reader.info.num_frames - 1))
                return reader.info, frames
        except VideoReadError as error:
            return Failure.of(index, record, error)

    report = DataReport(len(records))
    with ThreadPoolExecutor(num_threads or max(1, min(4, available_cpus() // 2))) as pool:
        results = tqdm(pool.map(inspect, indices), "videos", len(indices), disable=not show_progress)
        for record, result in zip([records[index] for index in indices], results, strict=True):
            if isinstance(result, Failure):
                report.failures.append(result)
            else:
                report.add(record, *result)
    return report


def quick_look(records: Sequence[VideoRecord], *, frame_sampler: FrameSampler, backend: str = "pyav") -> DataReport:
    """`inspect_videos` in short: up to 50 videos, opened but not decoded."""
    return inspect_videos(
        records, frame_sampler=frame_sampler, backend=backend, max_videos=QUICK_LOOK_VIDEOS, read_frames=False
    )


def span_advice(
    report: DataReport, *, sampling_rate: int | str, target_fps: float, num_frames: int | None = None
) -> str | None:
    """What to set when more than one clip in twenty would show frames more than once, else None.

    Args:
        report: made with the sampler of these settings.
        sampling_rate, target_fps: of a `ClipSpec`.
        num_frames: that the model gets, where more are read.
    """
    num_frames = num_frames or report.num_frames
    if report.repeating_fraction <= TOLERATED_SHARE:
        return None
    share = f"{report.repeating_fraction:.0%} of the videos would repeat frames"
    if sampling_rate == "auto":
        shortest = round(min(np.multiply(report.durations_sec, report.fps)))
        text = f"{share}: too short for DATA.NUM_FRAMES {num_frames}"
        if report.num_frames == num_frames:
            return f"{text}, the shortest has {shortest} frames"
        advice = f". Type DATA.DIFFERENCE_FRAMES {fewer}" if (fewer := (shortest - 1) // num_frames) else ""
        return f"{text} ({report.num_frames} with DATA.DIFFERENCE_FRAMES), the shortest has {shortest} frames{advice}"
    span = clip_span_sec(num_frames, int(sampling_rate), target_fps)
    long_enough = np.quantile(report.durations_sec, TOLERATED_SHARE, method="lower")
    rate = int(long_enough * target_fps / num_frames)
    return (
        f"clip span {span:.1f} s against a median video of {np.median(report.durations_sec):.1f} s: {share}. "
        "Set DATA.SAMPLING_RATE auto (each clip spans the whole video)" + (f" or at most {rate}" if rate else "")
    )
