"""What the HTML report shows of a test: each class, confusion, calibration, and clips that play."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from timesformer.datasets.files import list_pictures
from timesformer.datasets.opening import open_record, sample_record
from timesformer.datasets.records import VideoList, VideoRecord
from timesformer.evaluation.evaluate import Predictions
from timesformer.evaluation.metrics import accuracy_interval, confusion, mean_average_precision, multi_hot
from timesformer.evaluation.reliability import are_probabilities, reliability
from timesformer.evaluation.report import ScoredClip, right_clips, wrong_clips
from timesformer.utils.errors import VideoReadError
from timesformer.utils.random import numpy_generator
from timesformer.video.encode import encode
from timesformer.video.readers import resize

NUM_CLIPS = 6  # that play, of the worst and of the most confident each
MAX_SECONDS, MAX_FRAMES, SHORT_SIDE = 10.0, 64, 112  # of such a clip; of longer videos it is the middle
FRAMES_AT_ONCE = 8  # in memory at their full size


def describe_classes(predictions: Predictions, names: Sequence[str], people: Sequence[str] = ()) -> dict[str, Any]:
    """The classes, with one label per video: accuracy with its interval, confusion, calibration.

    Args:
        predictions: of the videos.
        names: of the classes.
        people: the persons in the videos, see `accuracy_interval`.

    Returns:
        `classes`, a dict for each; `matrix` (K, K); `reliability`, None for scores that are no probabilities.
    """
    truth, scores = np.asarray(predictions.labels), predictions.scores
    matrix = confusion(scores, truth)
    correct = scores.argmax(axis=1) == truth
    classes = []
    for label, row in enumerate(matrix):
        of_class = np.flatnonzero(truth == label).tolist()
        low, high = accuracy_interval(correct[of_class], [people[index] for index in of_class] if people else ())
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
        `worst` and `confident`: dicts with `clip`, a `ScoredClip`, and `media`, `content` and `part` of `play`, or
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
        media, content, part = play(record)
    except VideoReadError as error:
        return {"cause": error.cause}
    return {"media": media, "content": content, "part": part}


def play(record: VideoRecord) -> tuple[str, bytes, str]:
    """A small copy of a video for the browser, as fast as the video is.

    Returns:
        Its media type, its content and, of a video that is longer than `MAX_SECONDS`, which part it is.

    Raises:
        VideoReadError: the video cannot be read.
    """
    if os.path.isdir(record.path) and not len(record.frames):
        record = replace(record, frames=list_pictures(record.path))
    with open_record(record, backend="pyav") as reader:
        info = reader.info
        indices = sample_record(record, info, _middle, numpy_generator(0))[0]
        scale = min(1.0, SHORT_SIDE / min(info.height, info.width))
        height, width = (max(2, round(side * scale / 2) * 2) for side in (info.height, info.width))
        pieces = np.array_split(indices, -(-len(indices) // FRAMES_AT_ONCE))
        frames = np.concatenate([resize(reader.read(piece), (height, width)) for piece in pieces])
    step = (indices[-1] - indices[0]) / max(1, len(indices) - 1) or 1.0  # frames of the video from one to the next
    first, last = indices[0] / info.fps, indices[-1] / info.fps
    is_part = first > record.start_sec + 0.5
    return *encode(frames, info.fps / step), f"from {first:.1f} to {last:.1f} s" if is_part else ""


def _middle(num_frames: int, fps: float, _: object = None) -> np.ndarray:
    """Frames (1, T) of the middle `MAX_SECONDS` of a video, all or `MAX_FRAMES` evenly spaced ones."""
    span = min(num_frames, max(1, round(MAX_SECONDS * fps)))
    first = (num_frames - span) // 2
    return np.linspace(first, first + span - 1, min(span, MAX_FRAMES)).round().astype(np.int64)[None]
