"""What the HTML report shows of a test: each class, confusion, calibration, and clips that play."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from timesformer.datasets.records import VideoList, VideoRecord, list_pictures
from timesformer.datasets.video_dataset import open_record, sample_record
from timesformer.evaluation.evaluate import Predictions
from timesformer.evaluation.metrics import bootstrap_interval, confusion, mean_average_precision, multi_hot
from timesformer.evaluation.reliability import are_probabilities, reliability
from timesformer.evaluation.report import ScoredClip, right_clips, wrong_clips
from timesformer.utils.errors import VideoReadError
from timesformer.utils.random import numpy_generator
from timesformer.video.encode import encode
from timesformer.video.readers import resize

NUM_CLIPS = 6  # that play, of the worst and of the most confident each
MAX_FRAMES, SHORT_SIDE, LOWEST_FPS = 64, 112, 8.0  # of such a clip; longer videos play faster
FRAMES_AT_ONCE = 8  # in memory at their full size


def describe_classes(predictions: Predictions, names: Sequence[str]) -> dict[str, Any]:
    """The classes, with one label per video: accuracy with its interval, confusion, calibration.

    Returns:
        `classes`, a dict for each; `matrix` (K, K); `reliability`, None for scores that are no probabilities.
    """
    truth, scores = np.asarray(predictions.labels), predictions.scores
    matrix = confusion(scores, truth)
    correct = scores.argmax(axis=1) == truth
    classes = []
    for label, row in enumerate(matrix):
        low, high = bootstrap_interval(correct[truth == label])
        taken_for = int(np.argmax(np.where(np.arange(len(row)) == label, 0, row)))
        classes.append(
            {
                "name": names[label],
                "videos": int(row.sum()),
                "right": int(row[label]),
                "accuracy": 100.0 * row[label] / row.sum() if row.sum() else None,
                "low": low,
                "high": high,
                "taken_for": names[taken_for] if taken_for != label and row[taken_for] else "",
            }
        )
    calibrated = reliability(scores, truth) if are_probabilities(scores) else None
    return {"classes": classes, "matrix": matrix, "reliability": calibrated}


def describe_labels(predictions: Predictions, names: Sequence[str]) -> list[dict[str, Any]]:
    """The classes, with several labels per video: videos that have it, and average precision in percent."""
    targets = multi_hot(predictions.labels, len(names))
    return [
        {
            "name": name,
            "videos": int(target.sum()),
            "precision": mean_average_precision(score[:, None], target[:, None]) if target.any() else None,
        }
        for name, target, score in zip(names, targets.T, predictions.scores.T, strict=True)
    ]


def playing_clips(
    predictions: Predictions, records: Sequence[VideoRecord], names: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """The worst wrong and the most confident right clips.

    Args:
        predictions: rows of predictions.csv, one label per video.
        records: the videos, in the order of the rows.
        names: of the classes.

    Returns:
        `worst` and `confident`: dicts with `clip`, a `ScoredClip`, and `media`, `content` and `speed` of `play`, or
        `cause` where the video cannot be read.
    """
    videos = VideoList([*records])

    def shown(clips: Sequence[ScoredClip]) -> list[dict[str, Any]]:
        return [{"clip": clip, **_play(records[clip.record])} for clip in clips[:NUM_CLIPS]]

    return {
        "worst": shown(wrong_clips(predictions, videos, names)),
        "confident": shown(right_clips(predictions, videos, names)),
    }


def _play(record: VideoRecord) -> dict[str, Any]:
    try:
        media, content, speed = play(record)
    except VideoReadError as error:
        return {"cause": error.cause}
    return {"media": media, "content": content, "speed": speed}


def play(record: VideoRecord) -> tuple[str, bytes, float]:
    """A small copy of a video for the browser: media type, content, and how many times as fast as the video it plays.

    Of more than `MAX_FRAMES` frames as many evenly spaced ones are shown, in the time that the video takes, or faster
    where that were fewer than `LOWEST_FPS` frames a second.

    Raises:
        VideoReadError: it cannot be read.
    """
    if os.path.isdir(record.path) and not len(record.frames):
        record = replace(record, frames=list_pictures(record.path))
    with open_record(record, backend="pyav") as reader:
        info, spread = reader.info, lambda n, *_: np.linspace(0, n - 1, min(n, MAX_FRAMES)).round().astype(int)[None]
        indices = sample_record(record, info, spread, numpy_generator(0))[0]
        scale = min(1.0, SHORT_SIDE / min(info.height, info.width))
        height, width = (max(2, round(side * scale / 2) * 2) for side in (info.height, info.width))
        parts = np.array_split(indices, -(-len(indices) // FRAMES_AT_ONCE))
        frames = np.concatenate([resize(reader.read(part), (height, width)) for part in parts])
    step = (indices[-1] - indices[0]) / max(1, len(indices) - 1) or 1.0  # frames of the video from one to the next
    fps = max(info.fps / step, min(info.fps, LOWEST_FPS))
    return *encode(frames, fps), fps * step / info.fps
