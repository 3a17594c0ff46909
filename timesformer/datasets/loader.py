"""Which clips each process loads at each optimiser step, and the batches made of them.

The plan of an epoch is pure arithmetic. The records are shuffled; the positions of that order count from 0.
An optimiser step takes the next `global_batch` positions, each process a contiguous slice of them, each
micro-batch a contiguous piece of the slice. When clips are mixed, cuts fall on even positions, because mixup
partners are positions 2j and 2j + 1:

    position  0 1 2 3 4 5 6 7 8 9 | 10 11 12 ...          global_batch 10, 2 processes, micro_batch 4
    process   0 0 0 0 0 1 1 1 1 1 |  0 ...
    piece     a a a a b a a a a b |  a ...
    process   0 0 0 0 0 0 1 1 1 1 |  0 ...                with pairs
    piece     a a a a b b a a a a |  a ...

So the clips of a step are the same for every number of processes and every micro-batch.

With `repeats` a step has fewer records, all of them, then all of them again: positions of one record are far apart.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import islice, pairwise
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from timesformer.datasets.balance import balanced_order, occurrences
from timesformer.datasets.video_dataset import Batch, Sample, SampleKey, collate
from timesformer.distributed.stop import StopRequest, ignore_stop_signals, kill_children_at_exit, stopped
from timesformer.utils.compute import choose_device
from timesformer.utils.errors import UserError
from timesformer.utils.logging import get_logger
from timesformer.utils.random import numpy_generator

log = get_logger(__name__)

T = TypeVar("T")

PREFETCHED = 2  # batches of each loader process, torch's own number
POLL_SECONDS = 1.0  # between two looks, while a batch does not come
WARN_SECONDS = 60.0  # without a batch


@dataclass(frozen=True)
class Step:
    """One optimiser step as one process sees it.

    Attributes:
        num_samples: clips of the step over all processes.
        micro_batches: this process's clips, one list per forward pass; a process that is left without clips
            has one empty list, so that it still takes part in the step.
    """

    num_samples: int
    micro_batches: list[list[SampleKey]]


def contiguous_share(items: Sequence[T], part: int, num_parts: int) -> Sequence[T]:
    """Part `part` of `items` cut into `num_parts` contiguous parts whose lengths differ by at most one."""
    size, longer = divmod(len(items), num_parts)
    start = part * size + min(part, longer)
    return items[start : start + size + (part < longer)]


@dataclass(eq=False)
class StepBatchSampler(Sampler[list[SampleKey]]):
    """The micro-batches of one process, epoch by epoch."""

    num_records: int  # length of the dataset
    _: KW_ONLY
    global_batch: int  # clips of an optimiser step over all processes; an epoch's last step takes what is left
    micro_batch: int  # most clips of one forward pass
    pairs: bool = False  # positions 2j and 2j + 1 of a step stay in one piece; an odd micro_batch counts one less
    rank: int = 0  # this process among all
    world_size: int = 1
    seed: int = 0  # of the shuffle, together with the epoch
    repeats: int = 1  # times that a record is in a step; they divide global_batch
    labels: np.ndarray | None = None  # (num_records,): all classes equally often; None: each record once

    def __post_init__(self) -> None:
        self.unit = 2 if self.pairs else 1  # positions that are never separated
        self.epoch = self.done_steps = 0

    def set_epoch(self, epoch: int, *, done_steps: int = 0) -> None:
        """Choose the epoch that the next iteration goes through, and how many of its steps it leaves out."""
        self.epoch, self.done_steps = epoch, done_steps

    def steps(self) -> list[Step]:
        """The steps of the chosen epoch that are left."""
        return self.plan(self.epoch)[self.done_steps :]

    def order(self, epoch: int) -> np.ndarray:
        """Index of the record at each position of the epoch, int64 (num_records * repeats,)."""
        # (seed, epoch, index) belongs to the clip `index`; no clip has the index num_records
        generator = numpy_generator(self.seed, epoch, self.num_records)
        if self.labels is None:
            once = generator.permutation(self.num_records)
        else:
            once = balanced_order(self.labels, generator)
        size = self.global_batch // self.repeats
        return np.concatenate(
            [np.tile(once[start : start + size], self.repeats) for start in range(0, len(once), size)]
        )

    def plan(self, epoch: int) -> list[Step]:
        """The optimiser steps of `epoch` for this process."""
        order = self.order(epoch)
        found = enumerate(zip(order.tolist(), occurrences(order).tolist(), strict=True))
        keys = [SampleKey(epoch, position, index, repeat) for position, (index, repeat) in found]
        starts = range(0, len(keys), self.global_batch)
        return [self._step(keys[start : start + self.global_batch]) for start in starts]

    def _step(self, keys: list[SampleKey]) -> Step:
        share = contiguous_share(_cut(keys, self.unit, self.unit), self.rank, self.world_size)
        flat = [key for unit in share for key in unit]
        size = max(self.micro_batch - self.micro_batch % self.unit, 1)
        return Step(num_samples=len(keys), micro_batches=_cut(flat, size, self.unit) or [[]])

    def __len__(self) -> int:
        return sum(len(step.micro_batches) for step in self.steps())

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for step in self.steps():
            yield from step.micro_batches


def _cut(keys: list[SampleKey], size: int, unit: int) -> list[list[SampleKey]]:
    """Contiguous pieces of at most `size` keys, cut at multiples of `unit` only (anywhere when `size` is 1)."""
    if not keys:
        return []
    first = size - keys[0].position % min(size, unit)  # shorter when the keys start at an odd position
    return [keys[:first], *(keys[start : start + size] for start in range(first, len(keys), size))]


def cut_batch(batch: Batch, size: int, unit: int = 1) -> Iterator[Batch]:
    """A batch of one view a video in pieces of at most `size` clips, cut where `StepBatchSampler` would.

    Args:
        batch: as the loader gives it; what went wrong goes with the first piece.
        size: less than `unit` counts as `unit`.
        unit: 2: positions 2j and 2j + 1 stay together.
    """
    if batch.clips is None or len(batch.labels) <= size:
        yield batch
        return
    size = max(size - size % unit, unit)
    start = batch.positions[0] - batch.positions[0] % unit
    pieces = [(position - start) // size for position in batch.positions]
    bounds = [0, *(i for i, (one, following) in enumerate(pairwise(pieces), 1) if one != following)]
    for first, end in zip(bounds, [*bounds[1:], len(batch.labels)], strict=True):
        part = slice(first, end)
        yield Batch(
            clips=batch.clips[part],
            labels=batch.labels[part],
            indices=batch.indices[part],
            positions=batch.positions[part],
            views_per_video=batch.views_per_video[part],
            distinct_frames=batch.distinct_frames[part],
            durations_sec=batch.durations_sec[part],
            failures=[] if first else batch.failures,
            warnings=[] if first else batch.warnings,
        )


class TrainLoader:
    """Shuffled training batches, grouped by optimiser step; `plan` are the arguments of `StepBatchSampler`.

    Example:
        >>> loader.set_epoch(3)
        >>> for step, batches in loader:        # one optimiser step
        ...     for batch in batches:           # one forward and backward pass
        ...         loss(batch) / step.num_samples
    """

    def __init__(
        self,
        dataset: Dataset[Sample],
        *,
        num_workers: int = 0,
        pin_memory: bool = False,
        stop: StopRequest | None = None,
        limit_sec: float = 0.0,
        **plan: Any,
    ) -> None:
        self.dataset, self.num_workers = dataset, num_workers
        self.waited_sec = 0.0  # spent waiting for batches; whoever reads it sets it back
        self.inside_step = False  # batches of the step under way were given already
        self._stop, self._limit_sec = stop or StopRequest(), limit_sec
        self.sampler = StepBatchSampler(len(dataset), **plan)  # type: ignore[arg-type]
        self._loader = _data_loader(dataset, self.sampler, num_workers, pin_memory, persistent=True)

    def set_epoch(self, epoch: int, *, done_steps: int = 0) -> None:
        """Choose the epoch that the next iteration goes through, and how many of its steps it leaves out."""
        self.sampler.set_epoch(epoch, done_steps=done_steps)

    def __len__(self) -> int:
        """Optimiser steps of an epoch."""
        return math.ceil(self.sampler.num_records * self.sampler.repeats / self.sampler.global_batch)

    def __iter__(self) -> Iterator[tuple[Step, Iterator[Batch]]]:
        steps = self.sampler.steps()
        batches = self._timed(arriving(self._loader, self._stop, self._limit_sec))
        for step in steps:
            self.inside_step = False
            of_this_step = islice(batches, len(step.micro_batches))
            yield step, of_this_step
            for _ in of_this_step:  # what the caller left
                pass

    def close(self) -> None:
        """End the loader processes, which wait for another epoch."""
        del self._loader

    def _timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches; the time until each is there is added to `waited_sec`."""
        since = time.perf_counter()
        for batch in batches:
            self.waited_sec += time.perf_counter() - since
            self.inside_step = True
            yield batch
            since = time.perf_counter()
        self.waited_sec += time.perf_counter() - since


class EvalLoader:
    """Every record once, in order; this process's contiguous share of them.

    Args:
        videos_per_batch: videos of one batch; each brings all its views.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        videos_per_batch: int,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        pin_memory: bool = False,
        stop: StopRequest | None = None,
        limit_sec: float = 0.0,
    ) -> None:
        self.dataset = dataset
        self._stop, self._limit_sec = stop or StopRequest(), limit_sec
        share = contiguous_share(range(len(dataset)), rank, world_size)  # type: ignore[arg-type]
        self.num_videos = len(share)
        batches = [
            [SampleKey(epoch=0, position=index, index=index) for index in share[start : start + videos_per_batch]]
            for start in range(0, len(share), videos_per_batch)
        ]
        self._loader = _data_loader(dataset, batches, min(num_workers, len(batches)), pin_memory, persistent=False)

    def __len__(self) -> int:
        """Batches of this process."""
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        return arriving(self._loader, self._stop, self._limit_sec)


def arriving(loader: DataLoader[Any], stop: StopRequest, limit_sec: float = 0.0) -> Iterator[Batch]:
    """The batches of `loader`, without an endless wait for one.

    Args:
        loader: of this module.
        stop: the signal of this process.
        limit_sec: of the wait for a batch of loader processes; 0: none.

    Raises:
        Stopped: a signal came, and no batch for some seconds.
        UserError: no batch came within the limit.
    """
    batches = iter(loader)
    while True:
        since, warned = time.monotonic(), False
        while True:
            try:
                with stop.waiting_for_data():
                    batch = next(batches)
                break
            except StopIteration:
                return
            except RuntimeError as error:
                if not loader.num_workers or not str(error).startswith("DataLoader timed out"):
                    raise
            waited = time.monotonic() - since
            if stop.is_stuck():
                raise stopped(stop.signal, f"No data came for {waited:.0f} s", alone=True)
            if 0 < limit_sec < waited:
                raise UserError(
                    f"no batch of clips came for {waited:.0f} s, longer than DATA_LOADER.TIMEOUT allows for all of its "
                    "videos: the loader processes hang or were stopped. Look at the disk of the videos; "
                    "DATA_LOADER.NUM_WORKERS 0 reads without them"
                )
            if waited > WARN_SECONDS and not warned:
                warned = True
                log.warning("no batch of clips for %.0f s: the loader processes are slow or hang", waited)
        yield batch


@contextlib.contextmanager
def worker_faults_explained() -> Iterator[None]:
    """Report loader processes that were killed, which torch notices anywhere, as a `UserError`."""
    try:
        yield
    except RuntimeError as error:
        text = str(error).partition("\n")[0]
        if text.startswith("DataLoader worker"):
            raise UserError(
                f"a loader process ended ({text}). After SIGKILL the memory was probably used up: a smaller "
                "TRAIN.BATCH_SIZE or DATA_LOADER.NUM_WORKERS needs less. TRAIN.AUTO_RESUME True resumes from the last "
                "checkpoint"
            ) from error
        if "received 0 items of ancdata" in text or text.startswith("Too many open files"):
            raise UserError(
                "too many open files: the loader processes cannot pass on their clips. Raise the limit "
                "(ulimit -n 65536), or lower DATA_LOADER.NUM_WORKERS"
            ) from error
        raise


def shared_memory_needed(num_workers: int, batch_bytes: int) -> int:
    """Most bytes of shared memory that the batches of one loader take: those prefetched, and one in use."""
    return (PREFETCHED * num_workers + 1) * batch_bytes if num_workers else 0


def start_worker(_: int) -> None:
    """The start of a loader process, which ends here when its parent was killed meanwhile.

    Torch's own watch begins later, and would take whoever adopted the process for its parent, and wait for ever.
    """
    ignore_stop_signals()
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:
        os._exit(1)


def _data_loader(
    dataset: Dataset[Sample], batches: Any, num_workers: int, pin_memory: bool, *, persistent: bool
) -> DataLoader[Any]:
    if num_workers:
        kill_children_at_exit()
    # A worker has one thread: torch sees to its own, transforms.py to OpenCV's, readers.py to the decoder's. It need
    # not watch over its videos: video_dataset.py does.
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=num_workers,
        prefetch_factor=PREFETCHED if num_workers else None,
        timeout=POLL_SECONDS if num_workers else 0,
        pin_memory=pin_memory and choose_device().type in ("cuda", "xpu"),
        persistent_workers=persistent and num_workers > 0,
        worker_init_fn=start_worker,
        generator=torch.Generator(),  # loading takes no number from the generator that the model draws from
    )
