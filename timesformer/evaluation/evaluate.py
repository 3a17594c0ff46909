"""Score a dataset: every video once, its views combined, the same result for any batch size and process count.

The last bits of a product of matrices depend on the number of views in it and of threads that compute it. So on a CPU
the model sees one view at a time, in one thread each, and the result is the same bit for bit. An accelerator is fast on
several views only: there it is the same up to rounding.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from timesformer.datasets.video_dataset import Batch, Failure
from timesformer.distributed import group as distributed
from timesformer.distributed.parallel import gathered_parameters, joins_every_pass
from timesformer.distributed.stop import StopRequest, chosen, stopped
from timesformer.models.linear import fixed_weights
from timesformer.utils.compute import autocast, eval_mode, mapped
from timesformer.utils.transfer import ClipTransfer
from timesformer.video.clip_spec import ClipSpec


@dataclass
class Predictions:
    """Scores of the videos that could be read, in dataset order.

    Attributes:
        indices: (n,) of the videos in the dataset.
        labels: the true label (or labels) of each; -1 where the dataset has none.
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


def join_views(logits: Tensor, method: str, *, multi_label: bool = False) -> Tensor:
    """Scores (..., K) of videos from the logits of their views (..., V, K), in float64.

    Args:
        logits: (..., V, K) float.
        method: "mean" of softmax (sigmoid with several labels), or "sum" or "max" of the raw logits.
        multi_label: several labels per video.
    """
    logits = logits.double()
    if method == "sum":
        return logits.sum(dim=-2)
    if method == "max":
        return logits.amax(dim=-2)
    return (logits.sigmoid() if multi_label else logits.softmax(dim=-1)).mean(dim=-2)


@contextmanager
def scoring(
    model: nn.Module,
    *,
    spec: ClipSpec,
    ensemble: str,
    multi_label: bool,
    device: torch.device | str,
    dtype: torch.dtype | None,
    views_per_forward: int,
) -> Iterator[Callable[[Batch], list[np.ndarray]]]:
    """The model in evaluation mode, as a function from a batch to the scores (K,) of each of its readable videos.

    For the arguments see `evaluate`.
    """
    device = torch.device(device)
    transfer = ClipTransfer(device)
    views_at_once = 1 if device.type == "cpu" else views_per_forward
    for_threads = not any(joins_every_pass(m) or m._compiled_call_impl for m in model.modules())

    def predict(views: Tensor) -> Tensor:
        with torch.inference_mode(), autocast(device, dtype):  # of this thread
            return model(spec.normalize(transfer(views))).float()  # type: ignore[no-any-return]

    def score(batch: Batch) -> list[np.ndarray]:
        if batch.clips is None:
            return []
        logits = torch.cat(list(map_views(predict, batch.clips.split(views_at_once)))).cpu()
        of_videos = logits.split(batch.views_per_video)
        return [join_views(views, ensemble, multi_label=multi_label).numpy() for views in of_videos]

    with (
        gathered_parameters(model),
        eval_mode(model),
        fixed_weights(model),
        mapped(device, at_once=for_threads) as map_views,
    ):
        yield score


def evaluate(
    model: nn.Module,
    loader: Iterable[Batch],
    *,
    spec: ClipSpec,
    ensemble: str = "mean",
    multi_label: bool = False,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    views_per_forward: int = 8,
    title: str = "evaluation",
    progress: bool | None = None,
    stop: StopRequest | None = None,
) -> Predictions:
    """Predict every video of `loader`; on every process the combined result of all.

    Args:
        model: on `device`; (b, C, T, H, W) float to logits (b, K).
        loader: gives this process's share of the videos: a torch DataLoader over a `VideoDataset`, or an `EvalLoader`.
        spec: of the clips; here its normalisation is applied.
        ensemble: how the views of a video are combined; see `join_views`.
        multi_label: several labels per video.
        device: of the model.
        dtype: of autocast, None for plain fp32.
        views_per_forward: most views of one forward pass on an accelerator; a CPU takes one at a time.
        title: of the progress bar.
        progress: show the bar; None: on a terminal.
        stop: ends the evaluation when one of the processes got a signal.

    Raises:
        Stopped: on every process when one got a signal.
    """
    stop = stop or StopRequest()
    shows = distributed.rank() == 0 and (sys.stderr.isatty() if progress is None else progress)
    rows: list[tuple[int, int | tuple[int, ...], np.ndarray, float]] = []
    missing: list[Failure] = []
    warnings: list[str] = []
    with scoring(
        model,
        spec=spec,
        ensemble=ensemble,
        multi_label=multi_label,
        device=device,
        dtype=dtype,
        views_per_forward=views_per_forward,
    ) as score:
        distributed.broadcast_buffers(model)
        for batch in tqdm(loader, desc=title, disable=not shows, leave=False, unit="batch", dynamic_ncols=True):
            if any(stop.votes()):
                break
            missing += batch.failures
            warnings += batch.warnings
            rows += zip(batch.indices, batch.labels, score(batch), batch.distinct_frames, strict=True)
    if signal := chosen(distributed.totals(stop.votes())):
        raise stopped(signal)
    shares = zip(*distributed.all_gather((rows, missing, warnings)), strict=True)
    all_rows, all_missing, all_warnings = ([item for share in column for item in share] for column in shares)
    all_rows.sort(key=lambda row: row[0])
    return Predictions(
        indices=np.array([row[0] for row in all_rows], dtype=np.int64),
        labels=[row[1] for row in all_rows],
        scores=np.stack([row[2] for row in all_rows]) if all_rows else np.empty((0, _num_classes(model))),
        missing=sorted(all_missing, key=lambda failure: failure.index),
        distinct_frames=np.array([row[3] for row in all_rows]),
        warnings=all_warnings,
    )


def _num_classes(model: nn.Module) -> int:
    """Rows of the last layer of the model's head; 0 where there is none."""
    weights = [parameter for name, parameter in model.named_parameters() if name.endswith("weight")]
    return len(weights[-1]) if weights else 0
