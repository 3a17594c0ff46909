"""What a test leaves behind: one table, predictions.csv, results.json and pictures."""

from __future__ import annotations

import csv
import json
import math
from functools import partial
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from timesformer.datasets.loader import SampleKey
from timesformer.datasets.records import VideoList
from timesformer.datasets.video_dataset import Sample
from timesformer.engine.failures import write_failures
from timesformer.engine.setup import Run
from timesformer.evaluation.evaluate import Predictions
from timesformer.evaluation.metrics import confusion, per_class_accuracy, show_metrics, summarize
from timesformer.utils.errors import UserError
from timesformer.utils.logging import get_logger
from timesformer.visualization.confusion import confusion_figure, most_confused, save_class_bars, save_confusion
from timesformer.visualization.contact_sheets import save_contact_sheet

log = get_logger(__name__)

NUM_WORST_CLIPS = 8


def write_report(run: Run, videos: VideoList, dataset: Dataset[Sample], predictions: Predictions) -> None:
    """Write every file of a test into the output folder and log the table.

    Raises:
        UserError: no video could be read.
    """
    cfg, folder = run.cfg, run.output_dir
    names = videos.class_names or [str(k) for k in range(cfg.MODEL.NUM_CLASSES)]
    scores, labels = predictions.scores, predictions.labels
    metrics = summarize(scores, labels, multi_label=cfg.DATA.MULTI_LABEL)
    write_predictions(folder / "predictions.csv", videos, predictions)
    write_failures(predictions.missing, folder / "missing_videos.csv")
    lines = [
        f"{cfg.MODEL.MODEL_NAME}, {cfg.TEST.SPLIT}, {cfg.TEST.NUM_ENSEMBLE_VIEWS} x {cfg.TEST.NUM_SPATIAL_CROPS} views",
        f"videos scored     {len(labels)} of {predictions.num_videos}",
        f"score             {show_metrics(metrics)}",
    ]
    if len(labels):
        distinct = predictions.distinct_frames.mean()
        lines.append(f"distinct frames   {distinct:.1f} of {cfg.DATA.NUM_FRAMES} per clip")
    results = {"split": cfg.TEST.SPLIT, "videos": predictions.num_videos, "scored": len(labels), **metrics}
    history = run.events.history()
    epoch, step = (max((row[name] for row in history), default=0) for name in ("epoch", "step"))
    run.events.record("test", epoch=epoch, step=step, **metrics)
    if len(labels) and not cfg.DATA.MULTI_LABEL:
        truth = np.asarray(labels)
        matrix = confusion(scores, truth)
        accuracy = per_class_accuracy(matrix)
        results["per_class"] = {name: None if np.isnan(a) else a for name, a in zip(names, accuracy, strict=True)}
        for true, guess in most_confused(matrix, 3):
            told = f"{names[true]} taken for {names[guess]}: {matrix[true, guess]} of {matrix[true].sum()}"
            lines.append(f"most confused     {told}")
        save_confusion(matrix, names, folder / "confusion.png")
        save_class_bars(accuracy / 100, matrix.sum(axis=1), names, folder / "per_class.png")
        save_worst_clips(folder / "worst_clips.png", names, dataset, predictions)
        run.events.figure("test/confusion", partial(confusion_figure, matrix, names), step)
    if predictions.missing:
        shown = [f"  {failure}" for failure in predictions.missing[:10]]
        lines += [f"not scored        {len(predictions.missing)}, all in missing_videos.csv", *shown]
    known = {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in results.items()}
    (folder / "results.json").write_text(json.dumps(known, indent=2) + "\n")
    lines.append(f"pictures, tables  {folder}")
    width = max(len(line) for line in lines)
    log.info("%s", "\n".join(["", "-" * width, *lines, "-" * width]))
    if not len(labels):
        raise UserError(f"none of the {predictions.num_videos} videos could be read; see missing_videos.csv")


def write_predictions(path: Path, videos: VideoList, predictions: Predictions) -> None:
    """One row per scored video: path, label, prediction, then the score of each class."""
    num_classes = predictions.scores.shape[1]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "prediction", *(f"score_{k}" for k in range(num_classes))])
        for index, label, scores in zip(predictions.indices, predictions.labels, predictions.scores, strict=True):
            shown = ";".join(map(str, label)) if isinstance(label, tuple) else label
            row = [videos.records[index].path, shown, int(scores.argmax())]
            writer.writerow(row + [f"{score:.6g}" for score in scores])


def save_worst_clips(path: Path, names: list[str], dataset: Dataset[Sample], predictions: Predictions) -> None:
    """A contact sheet of the wrong clips whose true class got the lowest score, as the model saw them."""
    truth = np.asarray(predictions.labels)
    guesses = predictions.scores.argmax(axis=1)
    true_scores = predictions.scores[np.arange(len(truth)), truth]
    rows: list[tuple[str, np.ndarray]] = []
    for place in np.argsort(true_scores, kind="stable"):
        if guesses[place] == truth[place] or len(rows) == NUM_WORST_CLIPS:
            continue
        sample = dataset[SampleKey(epoch=0, position=0, index=int(predictions.indices[place]))]
        if sample.views is None:
            continue
        middle = sample.views[len(sample.views) // 2]  # (C, T, H, W)
        guess = guesses[place]
        caption = (
            f"{names[truth[place]]} taken for {names[guess]} "
            f"({predictions.scores[place, guess]:.2f} against {true_scores[place]:.2f})"
        )
        rows.append((caption, middle.permute(1, 2, 3, 0).numpy()))
    if rows:
        save_contact_sheet(rows, path, f"Worst {len(rows)} of {int((guesses != truth).sum())} wrong clips")
