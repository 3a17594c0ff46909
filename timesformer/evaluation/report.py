"""What a test leaves behind: one table, predictions.csv, results.json and pictures."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import simplejson

from timesformer.datasets.records import VideoList, VideoRecord, fingerprint
from timesformer.datasets.video_dataset import Failure, VideoDataset
from timesformer.evaluation.evaluate import Predictions
from timesformer.evaluation.metrics import by_person, confusion, per_class_accuracy, show_metrics, summarize
from timesformer.utils.errors import UserError
from timesformer.utils.logging import get_logger
from timesformer.utils.paths import AS_NAMED

log = get_logger(__name__)

NUM_WORST_CLIPS = 8  # in the picture
NUM_WORST_NAMED = 3  # in the table


def write_report(
    folder: Path,
    *,
    title: str,
    split: str,
    videos: VideoList,
    dataset: VideoDataset,
    predictions: Predictions,
    multi_label: bool = False,
    audits: Mapping[str, Any] | None = None,
) -> tuple[dict[str, float], np.ndarray | None]:
    """Write every file of a test into `folder` and log the table.

    Args:
        folder: gets predictions.csv, missing_videos.csv, results.json, confusion.png, per_class.png, worst_clips.csv,
            worst_clips.png.
        title: first line of the table.
        split: name of the list.
        videos: the list.
        dataset: that was scored.
        predictions: of `evaluate`.
        multi_label: several labels per video.
        audits: what they have found, for results.json.

    Returns:
        The metrics (see `summarize`), and the confusion matrix (K, K); None with several labels.

    Raises:
        UserError: no video could be read.
    """
    scores, labels = predictions.scores, predictions.labels
    names = distinct_names(videos.class_names or [str(label) for label in range(scores.shape[1])])
    people = videos.people(predictions.indices)
    metrics = summarize(scores, labels, multi_label=multi_label, people=people)
    write_predictions(folder / "predictions.csv", videos, predictions)
    write_failures(folder / "missing_videos.csv", predictions.missing)
    lines = [
        title,
        f"videos scored     {len(labels)} of {predictions.num_videos}",
        f"score             {show_metrics(metrics)}",
    ]
    if by_person(people) and not multi_label:
        lines.append(f"interval          95%, by person: {len(set(people))} of them, whose videos are not independent")
    if len(labels):
        mean, most = predictions.distinct_frames.mean(), dataset.spec.sampled_frames
        lines.append(f"distinct frames   {mean:.1f} of {most} per clip")
    results: dict[str, Any] = {"split": split, "list": fingerprint(videos.records)}
    results |= {"videos": predictions.num_videos, "scored": len(labels), **metrics}
    matrix = None
    if len(labels) and not multi_label:
        from timesformer.visualization.confusion import most_confused, save_class_bars, save_confusion
        from timesformer.visualization.figures import optional

        matrix = confusion(scores, np.asarray(labels))
        accuracy = per_class_accuracy(matrix)
        results["per_class"] = dict(zip(names, accuracy.tolist(), strict=True))
        lines += [
            f"most confused     {names[true]} with {names[guess]}: {matrix[true, guess]} of {matrix[true].sum()}"
            for true, guess in most_confused(matrix, 3)
        ]
        with optional(folder / "confusion.png"):
            save_confusion(matrix, names, folder / "confusion.png")
        with optional(folder / "per_class.png"):
            save_class_bars(accuracy / 100, matrix.sum(axis=1), names, folder / "per_class.png")
        wrong = wrong_clips(predictions, videos, names)
        write_wrong_clips(folder / "worst_clips.csv", wrong)
        with optional(folder / "worst_clips.png"):
            save_worst_clips(folder / "worst_clips.png", wrong, dataset)
        lines += [f"worst clip        {clip.path}: {clip}" for clip in wrong[:NUM_WORST_NAMED]]
    if predictions.missing:
        shown = [f"  {failure}" for failure in predictions.missing[:10]]
        lines += [f"not scored        {len(predictions.missing)}, all in missing_videos.csv", *shown]
    results |= {"audits": audits} if audits else {}
    (folder / "results.json").write_text(simplejson.dumps(results, indent=2, ignore_nan=True) + "\n")
    lines.append(f"pictures, tables  {folder}")
    width = max(len(line) for line in lines)
    log.info("%s", "\n".join(["", "-" * width, *lines, "-" * width]))
    if not len(labels):
        raise UserError(f"none of the {predictions.num_videos} videos could be read; see missing_videos.csv")
    return metrics, matrix


def distinct_names(names: Sequence[str]) -> list[str]:
    """The class names, with the label where several classes have the same."""
    counts = Counter(names)
    return [name if counts[name] == 1 else f"{name} (label {label})" for label, name in enumerate(names)]


def write_predictions(path: Path, videos: VideoList, predictions: Predictions) -> None:
    """One row per scored video: path, label, prediction, then the score of each class.

    Before the scores are subject, start_sec and end_sec, where some record of the list has them.
    """
    num_classes = predictions.scores.shape[1]
    names = ("subject", "start_sec", "end_sec")
    known = [name for name in names if any(getattr(record, name) for record in videos.records)]
    with path.open("w", newline="", **AS_NAMED) as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "prediction", *known, *(f"score_{k}" for k in range(num_classes))])
        for index, label, scores in zip(predictions.indices, predictions.labels, predictions.scores, strict=True):
            shown = ";".join(map(str, label)) if isinstance(label, tuple) else label
            record = videos.records[index]
            row = [record.path, shown, int(scores.argmax()), *(getattr(record, name) for name in known)]
            writer.writerow(row + [f"{score:.6g}" for score in scores])


def read_predictions(path: Path, *, multi_label: bool = False) -> tuple[list[VideoRecord], Predictions]:
    """What `write_predictions` has written: the videos, and their predictions, of which `indices` are the rows.

    Raises:
        UserError: the file is missing or damaged.
    """
    records, scores = [], []
    try:
        with path.open(newline="", **AS_NAMED) as file:
            reader = csv.DictReader(file)
            classes = [name for name in reader.fieldnames or () if name.startswith("score_")]
            for line, row in enumerate(reader, start=2):
                labels = tuple(map(int, row["label"].split(";")))
                start, end = (float(row.get(name, 0)) for name in ("start_sec", "end_sec"))
                if max(labels) >= len(classes):
                    raise ValueError(f"line {line}: label {max(labels)} of {len(classes)} classes")
                label = labels if multi_label else labels[0]
                source, subject = f"{path.name}:{line}", row.get("subject", "")
                records.append(VideoRecord(row["path"], label, source, subject=subject, start_sec=start, end_sec=end))
                scores.append([float(row[name]) for name in classes])
        if not records:
            raise ValueError("it has no rows")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no table of predictions ({error}). Test the run again") from error
    table = np.array(scores).reshape(len(records), len(classes))
    labels_of_all = [record.label for record in records]
    return records, Predictions(np.arange(len(records)), labels_of_all, table, [], np.ones(len(records)), [])


def write_failures(path: Path, failures: Sequence[Failure]) -> None:
    """Write the videos that could not be read as csv with the columns path, line and cause; without any, no file."""
    if not failures:
        path.unlink(missing_ok=True)
        return
    with path.open("w", newline="", **AS_NAMED) as file:
        writer = csv.writer(file)
        writer.writerow(["path", "line", "cause"])
        writer.writerows([failure.path, failure.source, failure.cause] for failure in failures)


class ScoredClip(NamedTuple):
    """A video with its class, the predicted class and their scores, which are probabilities unless views are summed."""

    record: int  # its index in the list
    path: str
    label: str
    prediction: str
    label_score: float
    prediction_score: float

    def __str__(self) -> str:
        scores = f"{self.prediction_score:.2f} against {self.label_score:.2f}"
        return f"{self.label} confused with {self.prediction} ({scores})"


def wrong_clips(predictions: Predictions, videos: VideoList, names: Sequence[str]) -> list[ScoredClip]:
    """The wrong predictions of one label per video, first the clips whose true class got the lowest score."""
    return _scored_clips(predictions, videos, names, right=False)


def right_clips(predictions: Predictions, videos: VideoList, names: Sequence[str]) -> list[ScoredClip]:
    """The right predictions of one label per video, first the clips whose class got the highest score."""
    return _scored_clips(predictions, videos, names, right=True)[::-1]


def _scored_clips(
    predictions: Predictions, videos: VideoList, names: Sequence[str], *, right: bool
) -> list[ScoredClip]:
    """The right or the wrong ones, first those whose true class got the lowest score."""
    truth, scores = np.asarray(predictions.labels), predictions.scores
    guesses, rows = scores.argmax(axis=1), np.arange(len(truth))
    true_scores = scores[rows, truth]
    return [
        ScoredClip(
            record := int(predictions.indices[row]),
            videos.records[record].path,
            names[truth[row]],
            names[guesses[row]],
            float(true_scores[row]),
            float(scores[row, guesses[row]]),
        )
        for row in np.argsort(true_scores, kind="stable")
        if (guesses[row] == truth[row]) == right
    ]


def write_wrong_clips(path: Path, clips: Sequence[ScoredClip]) -> None:
    """One row per wrong clip: path, label and prediction by name, and their scores."""
    with path.open("w", newline="", **AS_NAMED) as file:
        writer = csv.writer(file)
        writer.writerow(ScoredClip._fields[1:])
        writer.writerows([*clip[1:4], *(f"{score:.6g}" for score in clip[4:])] for clip in clips)


def save_worst_clips(path: Path, clips: Sequence[ScoredClip], dataset: VideoDataset) -> None:
    """A contact sheet of the first clips, as the model saw them."""
    from timesformer.visualization.contact_sheets import clip_frames, save_contact_sheet

    rows: list[tuple[str, np.ndarray]] = []
    for clip in clips:
        sample = dataset[clip.record]
        if sample.views is None:
            continue
        middle = sample.views[len(sample.views) // 2]  # (C, T, H, W)
        rows.append((f"{Path(clip.path).name}: {clip}", clip_frames(dataset.spec.shown(middle[None])[0])))
        if len(rows) == NUM_WORST_CLIPS:
            break
    if rows:
        save_contact_sheet(rows, path, f"Worst {len(rows)} of {len(clips)} wrong clips")
