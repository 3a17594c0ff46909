"""Baselines of seconds that a model has to beat: the largest class, one frame, motion images, hand landmarks."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.functional import avg_pool2d
from tqdm import tqdm

from timesformer.datasets.opening import open_record, sample_record
from timesformer.datasets.records import VideoRecord
from timesformer.datasets.video_dataset import Batch, Failure
from timesformer.evaluation.metrics import accuracy_interval
from timesformer.utils.errors import UserError, VideoReadError
from timesformer.video.clip_spec import ClipSpec
from timesformer.video.frame_samplers import UniformSegmentSampler
from timesformer.video.motion import motion_images

MAJORITY, MIDDLE, MOTION, HANDS = "majority", "middle frame", "motion images", "hand landmarks"  # in this order
# The clips of the baselines: the whole video in 33 small whole frames. Nothing here depends on the model's input.
SPEC = ClipSpec(num_frames=33, sampling_rate="auto", size=(96, 128), crop_mode="full")
POOL = 8  # pixels: features are means over squares of this side, so images of 12 x 16
NUM_MOTION_IMAGES = 4
NUM_LANDMARK_FRAMES = 8
STRENGTHS = (1e-3, 1e-2, 0.1, 1.0)  # C of logistic regression to choose from
MAX_FOLDS = 5


@dataclass
class Examples:
    """What a baseline learns from, or is scored on.

    Attributes:
        features: (n, D) of each baseline, by name: one row per video that could be read.
        labels: (n,) class indices.
        subjects: n names, "" where unknown.
        failures: the other videos.
        seconds: that reading took.
    """

    features: dict[str, np.ndarray]
    labels: np.ndarray
    subjects: list[str]
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class Score:
    """Accuracy of a baseline with its 95% interval, in percent, and the seconds for reading and learning."""

    name: str
    top1: float
    low: float
    high: float
    seconds: float

    @property
    def method(self) -> str:
        """The baseline in full: "motion images + logistic regression"."""
        return "majority class" if self.name == MAJORITY else f"{self.name} + logistic regression"


def middle_frames(clips: Tensor) -> Tensor:
    """The small middle frame: uint8 (B, C, T, H, W) -> float (B, C, h, w)."""
    return avg_pool2d(clips[:, :, clips.shape[2] // 2].float(), POOL)


def small_motion_images(clips: Tensor) -> Tensor:
    """Where something moves in each quarter of the clip: uint8 (B, C, T, H, W) -> float (B, 4, h, w)."""
    small = avg_pool2d(clips.float().flatten(0, 1), POOL).unflatten(0, clips.shape[:2])  # (B, C, T, h, w)
    return motion_images(small, NUM_MOTION_IMAGES)[:, 0]


def landmark_features(landmarks: np.ndarray) -> np.ndarray:
    """Landmarks (T, 21, 2), NaN where no hand was found -> float32 (T * 83,).

    Of each frame: the landmarks within the frame, those relative to the wrist, and whether a hand was found. Frames
    without a hand are interpolated from the frames before and after; a clip without a hand is all zeros.
    """
    points = landmarks.reshape(len(landmarks), -1)  # (T, 42)
    found, times = np.isfinite(points[:, 0]), np.arange(len(points))
    if found.any():
        points = np.stack([np.interp(times, times[found], values[found]) for values in points.T], axis=1)
    else:
        points = np.zeros_like(points)
    relative = points[:, 2:] - np.tile(points[:, :2], landmarks.shape[1] - 1)
    return np.concatenate([points, relative, found[:, None]], axis=1, dtype=np.float32).ravel()


def read_clips(batches: Iterable[Batch], records: Sequence[VideoRecord], *, show_progress: bool = False) -> Examples:
    """Middle frames and motion images of the clips of `SPEC`, of every video that can be read.

    Args:
        batches: of an `EvalLoader` of the records.
        records: the list.
        show_progress: show a progress bar.
    """
    start, indices, failures = time.perf_counter(), [], []
    columns: dict[str, list[np.ndarray]] = {MIDDLE: [], MOTION: []}
    for batch in tqdm(batches, "baselines: reading", disable=not show_progress, leave=False, unit="batch"):
        failures += batch.failures
        if batch.clips is not None:
            indices += batch.indices
            columns[MIDDLE].append(middle_frames(batch.clips).flatten(1).numpy())
            columns[MOTION].append(small_motion_images(batch.clips).flatten(1).numpy())
    features = {name: np.concatenate(parts) for name, parts in columns.items() if parts}
    return _examples(features, [records[index] for index in indices], failures, start)


def read_landmarks(
    records: Sequence[VideoRecord], find: Callable[[np.ndarray], np.ndarray], *, backend: str, show_progress: bool
) -> Examples:
    """Landmark features of every video that can be read.

    Args:
        records: the list.
        find: a `HandFinder`.
        backend: decoder of video files.
        show_progress: show a progress bar.
    """
    start, sampler = time.perf_counter(), UniformSegmentSampler(NUM_LANDMARK_FRAMES)
    rows, present, failures = [], [], []
    for index, record in enumerate(tqdm(records, "hand landmarks", disable=not show_progress, leave=False)):
        try:
            with open_record(record, backend=backend) as reader:
                frames = reader.read(sample_record(record, reader.info, sampler, np.random.default_rng(0))[0])
        except VideoReadError as error:
            failures.append(Failure.of(index, record, error))
            continue
        rows.append(landmark_features(find(frames)))
        present.append(record)
    return _examples({HANDS: np.stack(rows)} if rows else {}, present, failures, start)


def _examples(
    features: dict[str, np.ndarray], records: Sequence[VideoRecord], failures: list[Failure], start: float
) -> Examples:
    if not records:
        raise UserError(f"none of the {len(failures)} videos could be read; the first: {failures[0]}")
    labels = np.array([record.label for record in records], np.int64)
    subjects = [record.subject for record in records]
    return Examples(features, labels, subjects, failures, time.perf_counter() - start)


def score_majority(train: Examples, test: Examples) -> Score:
    """Always the class with the most training videos."""
    most = min(Counter(train.labels.tolist()).items(), key=lambda item: (-item[1], item[0]))[0]
    return _score(MAJORITY, test.labels == most, test.subjects, 0.0)


def score_features(name: str, train: Examples, test: Examples) -> Score:
    """Logistic regression on the features of this name.

    Raises:
        UserError: the training videos are of one class.
    """
    start = time.perf_counter()
    model = fit_classifier(train.features[name], train.labels, train.subjects)
    correct = model.predict(test.features[name]) == test.labels
    return _score(name, correct, test.subjects, train.seconds + test.seconds + time.perf_counter() - start)


def _score(name: str, correct: np.ndarray, people: Sequence[str], seconds: float) -> Score:
    low, high = accuracy_interval(correct, people)
    return Score(name, 100.0 * float(correct.mean()), low, high, seconds)


def fit_classifier(features: np.ndarray, labels: np.ndarray, subjects: Sequence[str]) -> Any:
    """Standardisation and logistic regression, whose strength cross-validation on these videos chooses.

    Args:
        features: (n, D).
        labels: (n,).
        subjects: n names; with those, folds are of other people. "": unknown.

    Raises:
        UserError: only one class.
    """
    from sklearn.exceptions import ConvergenceWarning  # scikit-learn takes a second to import
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    if len(classes := np.unique(labels)) < 2:
        raise UserError(f"all training videos that could be read are of class {classes[0]}: nothing to tell apart")
    model = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTHS[1], max_iter=300))
    folds = divide(labels, subjects)
    if folds:
        model = GridSearchCV(model, {"logisticregression__C": STRENGTHS}, cv=folds)
    with warnings.catch_warnings(), threadpool_limits(1):  # several threads wait for each other: six times as long
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(features, labels)


def divide(labels: np.ndarray, subjects: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Folds (training rows, other rows), stratified by class; by subject where all are known. [] for too few videos."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    by_subject = all(subjects) and len(set(subjects)) > 1
    num_folds = min(MAX_FOLDS, int(np.bincount(labels).max()), *([len(set(subjects))] if by_subject else []))
    if num_folds < 2:
        return []
    splitter = StratifiedGroupKFold(num_folds) if by_subject else StratifiedKFold(num_folds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with fewer videos than folds
        folds = splitter.split(np.zeros((len(labels), 1)), labels, list(subjects) if by_subject else None)
        return [(fit, rest) for fit, rest in folds if len(rest) and len(set(labels[fit])) > 1]
