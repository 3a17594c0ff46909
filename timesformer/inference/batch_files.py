"""Predicts many videos, one after the other in constant memory, and writes what came out as it comes."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from tqdm import tqdm

from timesformer.datasets.opening import open_record
from timesformer.datasets.records import VideoRecord
from timesformer.datasets.video_dataset import Failure
from timesformer.evaluation.metrics import show_metrics, summarize
from timesformer.inference.predictor import Predictor
from timesformer.inference.sources import file_names
from timesformer.inference.windows import windows
from timesformer.utils.env import available_cpus
from timesformer.utils.errors import UserError, VideoReadError
from timesformer.utils.paths import AS_NAMED

MAX_WORKERS = 8
FEW = 16  # clips that are decoded in this process: starting another one would take longer


@dataclass(frozen=True, kw_only=True)
class Output:
    """What is written: `topk` classes a clip as lines, and the files that have a path.

    Attributes:
        csv, json: of all clips.
        overlay: folder of the videos with their label burnt in.
        timeline: folder of a csv and a png for each video.
    """

    topk: int = 3
    csv: Path | None = None
    json: Path | None = None
    overlay: Path | None = None
    timeline: Path | None = None


@dataclass
class Result:
    """What became of all clips."""

    num_clips: int = 0
    waited_sec: float = 0.0  # for clips to be decoded
    failures: list[Failure] = field(default_factory=list)
    num_labelled: int = 0
    score: str = ""  # of the videos with labels


@dataclass
class _Clip:
    """A clip with its scores (K,)."""

    record: VideoRecord
    scores: np.ndarray

    @property
    def middle_sec(self) -> float:
        return (self.record.start_sec + self.record.end_sec) / 2


def predict_files(
    predictor: Predictor,
    videos: Sequence[VideoRecord],
    output: Output,
    *,
    window_sec: float | None = None,
    stride_sec: float = 0.0,
    batch_size: int = 8,
    num_workers: int | None = None,
) -> Result:
    """Predict `videos`, or with `window_sec` windows of them, and write `output`.

    Args:
        predictor: of the classes.
        videos: records, with labels other than -1 where they are known.
        output: what to write.
        window_sec, stride_sec: length of a window, and from the start of one to the next.
        batch_size: clips of a forward pass.
        num_workers: processes that decode; None: one, with an accelerator up to `MAX_WORKERS`.

    Raises:
        UserError: a file cannot be written.
    """
    result, labels, scores = Result(), [], []
    names = file_names(videos)
    if output.overlay:
        _check_overlay(videos, names, output.overlay)
    clips: list[VideoRecord] = []
    owners: list[int] = []
    for number, video in enumerate(videos):
        parts = [video]
        if window_sec:
            try:
                parts = windows(video, window_sec=window_sec, stride_sec=stride_sec)
            except VideoReadError as error:
                result.failures.append(Failure.of(number, video, error))
                continue
        clips += parts
        owners += [number] * len(parts)
    left = Counter(owners)  # clips of each video that are still to come
    waiting: dict[int, list[_Clip]] = {}
    if num_workers is None:
        on_accelerator = predictor.device.type != "cpu"
        num_workers = (min(MAX_WORKERS, available_cpus()) if on_accelerator else 1) if len(clips) > FEW else 0
    with _Tables(output, predictor, in_windows=window_sec is not None) as tables, _bar(len(clips)) as bar:
        for failure in result.failures:  # videos of which no windows could be made
            tables.add_failure(failure)
        for outcomes, waited in predictor.stream(clips, batch_size=batch_size, num_workers=num_workers):
            result.waited_sec += waited
            for outcome in outcomes:
                record, owner = clips[outcome.index], owners[outcome.index]
                left[owner] -= 1
                done = waiting.setdefault(owner, [])
                if outcome.scores is None:
                    assert outcome.failure is not None
                    result.failures.append(outcome.failure)
                    tables.add_failure(outcome.failure)
                else:
                    done.append(clip := _Clip(record, outcome.scores))
                    tables.add(clip)
                    if record.label != -1 and not window_sec:
                        labels.append(record.label)
                        scores.append(outcome.scores)
                if not left[owner]:
                    try:
                        _finish(predictor, videos[owner], waiting.pop(owner), output, names[owner])
                    except VideoReadError as error:  # a frame of the overlay that no clip shows
                        result.failures.append(Failure.of(owner, videos[owner], error))
            result.num_clips += len(outcomes)
            bar.update(len(outcomes))
            bar.set_postfix_str(f"{100 * result.waited_sec / max(bar.format_dict['elapsed'], 1e-9):.0f}% decoding")
    if labels:
        result.num_labelled = len(labels)
        result.score = show_metrics(summarize(np.stack(scores), labels, multi_label=predictor.multi_label))
    return result


def _bar(total: int) -> Any:
    return tqdm(total=total, unit=" clips", desc="predicting", leave=False, disable=None, dynamic_ncols=True)


def _check_overlay(videos: Sequence[VideoRecord], names: Sequence[str], folder: Path) -> None:
    if twice := [path for path, number in Counter(video.path for video in videos).items() if number > 1]:
        raise UserError(f"--overlay writes one file a video, and {twice[0]} is listed in several parts. Leave it out")
    sources = {os.path.realpath(video.path) for video in videos}
    if any(os.path.realpath(folder / f"{name}.mp4") in sources for name in names):
        raise UserError(f"--overlay {folder} would replace the videos themselves. Name another folder")


def _finish(predictor: Predictor, video: VideoRecord, clips: list[_Clip], output: Output, name: str) -> None:
    """Write the timeline and the overlay of a video whose clips are all there."""
    if not clips:
        return
    middles = np.array([clip.middle_sec for clip in clips])
    if output.timeline:
        from timesformer.visualization.timeline import save_timeline

        path = output.timeline / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with _Tables(Output(csv=Path(f"{path}.csv")), predictor, in_windows=True, prints=False) as table:
            for clip in clips:
                table.add(clip)
        scores = np.stack([clip.scores for clip in clips])
        save_timeline(middles, scores, predictor.class_names, f"{path}.png", os.path.basename(video.path))
    if output.overlay:
        from timesformer.video.overlay import write_overlay

        captions = ["{} {:.2f}".format(*predictor.best(clip.scores, 1)[0]) for clip in clips]
        with open_record(video, backend="pyav") as reader:
            path = output.overlay / f"{name}.mp4"
            write_overlay(reader, path, lambda sec: captions[int(np.abs(middles - sec).argmin())])


@dataclass
class _Tables:
    """Lines on the terminal, the csv and the json, written clip by clip; a context manager."""

    output: Output
    predictor: Predictor
    _: KW_ONLY
    in_windows: bool
    prints: bool = True

    def __enter__(self) -> _Tables:
        self._files = ExitStack()
        self._csv, self._json = None, None
        try:
            if self.output.csv:
                self._csv = csv.writer(self._open(self.output.csv))
                parts = ["start_sec", "end_sec"] if self.in_windows else []
                self._csv.writerow(["path", *parts, "prediction", "score", *self.predictor.class_names])
            if self.output.json:
                self._json, self._separator = self._open(self.output.json), "[\n"
        except OSError as error:
            raise UserError(f"{error.filename} cannot be written: {error.strerror}") from error
        return self

    def _open(self, path: Path) -> TextIO:
        path.parent.mkdir(parents=True, exist_ok=True)
        return self._files.enter_context(path.open("w", newline="", **AS_NAMED))

    def __exit__(self, *exc: object) -> None:
        if self._json:
            self._json.write("[]\n" if self._separator == "[\n" else "\n]\n")
        self._files.close()

    def add(self, clip: _Clip) -> None:
        """One clip."""
        record, best = clip.record, self.predictor.best(clip.scores, self.output.topk)
        part = [f"{record.start_sec:g}", f"{record.end_sec:g}"] if self.in_windows else []
        if self.prints:
            span = f" {'-'.join(part)} s" if part else ""
            tqdm.write(f"{record.path}{span}  " + "  ".join(f"{name} {score:.3f}" for name, score in best))
        if self._csv:
            name, score = best[0]
            self._csv.writerow([record.path, *part, name, f"{score:.6g}", *(f"{each:.6g}" for each in clip.scores)])
        content: dict[str, Any] = {"path": record.path}
        content |= {"start_sec": record.start_sec, "end_sec": record.end_sec} if self.in_windows else {}
        if record.label != -1:
            labels = record.label if isinstance(record.label, tuple) else (record.label,)
            content["labels"] = [self.predictor.class_names[label] for label in labels]
        self._write_json(content | {"predictions": [{"name": name, "score": score} for name, score in best]})

    def add_failure(self, failure: Failure) -> None:
        """One video that could not be read."""
        self._write_json({"path": failure.path, "error": failure.cause})

    def _write_json(self, content: dict[str, Any]) -> None:
        if self._json:
            self._json.write(self._separator + json.dumps(content, ensure_ascii=False))
            self._separator = ",\n"
