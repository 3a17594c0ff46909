"""Score a dataset: every video once, its views averaged, the same result for any batch size and process count."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from timesformer.datasets.loader import EvalLoader
from timesformer.datasets.video_dataset import Failure
from timesformer.distributed import group as distributed
from timesformer.distributed.parallel import gathered_parameters
from timesformer.distributed.stop import chosen, stopped
from timesformer.engine.setup import Run
from timesformer.utils.compute import autocast, eval_mode


@dataclass
class Predictions:
    """Scores of the videos that could be read, in dataset order.

    Attributes:
        indices: (n,) places in the dataset.
        labels: the true label (or labels) of each.
        scores: (n, K) float64: mean probabilities, or sums or maxima of logits (`DATA.ENSEMBLE_METHOD`).
        missing: the videos that could not be read.
        distinct_frames: (n,) distinct frames per clip, mean over a video's views.
        warnings: remarks of the readers.
    """

    indices: np.ndarray
    labels: list[int | tuple[int, ...]]
    scores: np.ndarray
    missing: list[Failure]
    distinct_frames: np.ndarray
    warnings: list[str]

    @property
    def num_videos(self) -> int:
        """Videos in the list, read or not."""
        return len(self.indices) + len(self.missing)


def join_views(logits: Tensor, method: str, *, multi_label: bool) -> Tensor:
    """Scores (K,) of one video from the logits of its views (V, K).

    Args:
        logits: (V, K) float.
        method: "mean" of softmax (sigmoid with several labels), or "sum" or "max" of the raw logits.
        multi_label: several labels per video.
    """
    logits = logits.double()
    if method == "sum":
        return logits.sum(dim=0)
    if method == "max":
        return logits.max(dim=0).values
    return (logits.sigmoid() if multi_label else logits.softmax(dim=1)).mean(dim=0)


def evaluate(run: Run, model: nn.Module, loader: EvalLoader, *, ensemble: str, title: str) -> Predictions:
    """Predict every video of `loader`; on every process the gathered result of all.

    Args:
        run: the run.
        model: (b, C, T, H, W) float to logits (b, K).
        loader: yields this process's share of the videos.
        ensemble: how the views of a video are joined; see `join_views`.
        title: of the progress bar.

    Raises:
        Stopped: on every process when one got a signal.
    """
    cfg, processes = run.cfg, run.processes
    views_per_forward = max(1, cfg.TEST.BATCH_SIZE // processes.local_world_size)
    shows = processes.rank == 0 and sys.stderr.isatty()
    rows: list[tuple[int, int | tuple[int, ...], np.ndarray, float]] = []
    missing: list[Failure] = []
    warnings: list[str] = []
    with gathered_parameters(model), eval_mode(model), torch.inference_mode():
        distributed.broadcast_buffers(model)
        for batch in tqdm(loader, desc=title, disable=not shows, leave=False, unit="batch"):
            if any(run.stop.votes()):
                break
            missing += batch.failures
            warnings += batch.warnings
            if batch.clips is None:
                continue
            parts = []
            for views in batch.clips.split(views_per_forward):
                with autocast(run.device, run.dtype):
                    parts.append(model(run.to_input(views.to(run.device, non_blocking=True))))
            logits = torch.cat(parts).float().cpu()
            for index, label, views_of_video, distinct in zip(
                batch.indices, batch.labels, logits.split(batch.views_per_video), batch.distinct_frames, strict=True
            ):
                scores = join_views(views_of_video, ensemble, multi_label=cfg.DATA.MULTI_LABEL)
                rows.append((index, label, scores.numpy(), distinct))
    if signal := chosen(distributed.totals(run.stop.votes())):
        raise stopped(signal)
    shares = zip(*distributed.all_gather((rows, missing, warnings)), strict=True)
    all_rows, all_missing, all_warnings = ([item for share in column for item in share] for column in shares)
    all_rows.sort(key=lambda row: row[0])
    return Predictions(
        indices=np.array([row[0] for row in all_rows], dtype=np.int64),
        labels=[row[1] for row in all_rows],
        scores=np.stack([row[2] for row in all_rows]) if all_rows else np.empty((0, cfg.MODEL.NUM_CLASSES)),
        missing=sorted(all_missing, key=lambda failure: failure.index),
        distinct_frames=np.array([row[3] for row in all_rows]),
        warnings=all_warnings,
    )
