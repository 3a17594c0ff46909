"""Score a dataset: every video once, its views combined, the same result for any batch size and process count.

The last bits of a product of matrices depend on the number of views in it and of threads that compute it. So on a CPU
the model sees one view at a time, in one thread each, and the result is the same bit for bit. An accelerator is fast on
several views only: there it is the same up to rounding.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

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
from timesformer.utils.memory import PassSize
from timesformer.utils.transfer import ClipTransfer
from timesformer.video.clip_spec import ClipSpec
from timesformer.video.variants import VARIANTS, Variants


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
        guesses: (n, 5) predicted class of the centre view, as it is and as each of `VARIANTS`; None without these.
        durations_sec: (n,) of the videos, or of the parts that count; 0 where it is not known.
    """

    indices: np.ndarray
    labels: list[int | tuple[int, ...]]
    scores: np.ndarray
    missing: list[Failure]
    distinct_frames: np.ndarray
    warnings: list[str]
    guesses: np.ndarray | None = None
    durations_sec: np.ndarray = field(default_factory=lambda: np.empty(0))

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


@dataclass(frozen=True)
class Scorer:
    """A model as a function from a batch to the scores (K,) of each of its readable videos."""

    predict: Callable[[Tensor], Tensor]  # uint8 clips (b, C, F, H, W) -> logits (b, K) on the CPU
    join: Callable[[Tensor], np.ndarray]  # logits (V, K) of the views of a video -> its scores

    def logits(self, batch: Batch) -> list[Tensor]:
        """(V, K) of each readable video."""
        return [] if batch.clips is None else [*self.predict(batch.clips).split(batch.views_per_video)]

    def __call__(self, batch: Batch) -> list[np.ndarray]:
        return [self.join(logits) for logits in self.logits(batch)]


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
) -> Iterator[Scorer]:
    """The model in evaluation mode; for the arguments see `evaluate`."""
    device = torch.device(device)
    views_at_once = PassSize(1 if device.type == "cpu" else views_per_forward, key="TEST.BATCH_SIZE")
    transfer = ClipTransfer(device)
    for_threads = not any(joins_every_pass(m) or m._compiled_call_impl for m in model.modules())

    def forward(views: Tensor) -> Tensor:
        with torch.inference_mode(), autocast(device, dtype):  # of this thread
            return model(spec.normalize(transfer(views))).float()  # type: ignore[no-any-return]

    def predict(clips: Tensor) -> Tensor:
        return views_at_once.until_it_fits(
            lambda size: torch.cat(list(map_views(forward, clips.split(size)))).cpu(), device, lambda: len(clips)
        )

    def join(logits: Tensor) -> np.ndarray:
        return join_views(logits, ensemble, multi_label=multi_label).numpy()

    with (
        gathered_parameters(model),
        eval_mode(model),
        fixed_weights(model),
        mapped(device, at_once=for_threads) as map_views,
    ):
        yield Scorer(predict, join)


def guess_variants(score: Scorer, variants: Variants, batch: Batch, logits: Sequence[Tensor]) -> list[list[int]]:
    """The predicted class of the centre view of each readable video: as it is, then as each of `VARIANTS`.

    Args:
        score: the model.
        variants: how clips are changed.
        batch: of the videos.
        logits: of their views, as `Scorer.logits` gives them.
    """
    if batch.clips is None:
        return []
    centres = [variants.centre(len(views)) for views in logits]
    of_videos = batch.clips.split(batch.views_per_video)
    clips = torch.stack([views[centre] for views, centre in zip(of_videos, centres, strict=True)])
    plain = torch.stack([views[centre] for views, centre in zip(logits, centres, strict=True)])
    changed = score.predict(torch.cat([*variants(clips, batch.indices)]))
    of_variants = torch.stack([plain, *changed.chunk(len(VARIANTS))], dim=1)  # (n, 5, K)
    return of_variants.argmax(dim=-1).tolist()  # type: ignore[no-any-return]


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
    variants: Variants | None = None,
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
        views_per_forward: most views of one forward pass on an accelerator, fewer when its memory runs out; a CPU
            takes one at a time.
        title: of the progress bar.
        progress: show the bar; None: on a terminal.
        stop: ends the evaluation when one of the processes got a signal.
        variants: also predict the changed centre views, which does not touch the scores.

    Raises:
        Stopped: on every process when one got a signal.
    """
    stop = stop or StopRequest()
    shows = distributed.rank() == 0 and (sys.stderr.isatty() if progress is None else progress)
    rows: list[tuple[int, int | tuple[int, ...], np.ndarray, float, float, list[int]]] = []
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
            logits = score.logits(batch)
            guesses = guess_variants(score, variants, batch, logits) if variants else [[]] * len(logits)
            about = batch.distinct_frames, batch.durations_sec, guesses
            rows += zip(batch.indices, batch.labels, map(score.join, logits), *about, strict=True)
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
        durations_sec=np.array([row[4] for row in all_rows]),
        guesses=np.array([row[5] for row in all_rows], np.int64).reshape(-1, 1 + len(VARIANTS)) if variants else None,
    )


def _num_classes(model: nn.Module) -> int:
    """Rows of the last layer of the model's head; 0 where there is none."""
    weights = [parameter for name, parameter in model.named_parameters() if name.endswith("weight")]
    return len(weights[-1]) if weights else 0
