"""From a record to clips: open the video, choose frames, read them, transform them.

Everything is opened, read and closed within one call, and every random choice comes from (seed, epoch,
index): a sample is the same in any process, batch and order. A video that cannot be read never ends a run,
and in a loader process neither does one that hangs or crashes its decoder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info
from torch.utils.data._utils.collate import default_collate_fn_map  # torch's documented place for own types

from timesformer.datasets.cache import FrameCache
from timesformer.datasets.cache_folders import shared_memory_error
from timesformer.datasets.guarded import GuardedCall
from timesformer.datasets.opening import Label, as_record, open_record, part_of, read_clips, sample_record
from timesformer.datasets.records import Failure, VideoRecord, in_memory
from timesformer.utils.errors import UserError, VideoReadError
from timesformer.utils.random import numpy_generator
from timesformer.video.clip_spec import ClipSpec, Views
from timesformer.video.frame_samplers import FrameSampler, Timing, distinct_frames

_STREAM = 3  # keeps the random numbers of repeats apart from those of mixing and dropout
MAX_REPLACEMENTS = 3  # clips of the same class tried in place of one that cannot be read


class SampleKey(NamedTuple):
    """One clip of an epoch.

    Attributes:
        epoch: from 0; 0 in evaluation.
        position: in the epoch's order over all processes.
        index: of the record.
        repeat: how often the record was in the epoch before, each time augmented differently.
    """

    epoch: int
    position: int
    index: int  # type: ignore[assignment]  # the name of a method of tuple, which nobody needs here
    repeat: int = 0


@dataclass
class Sample:
    """All views of one video.

    Attributes:
        views: uint8 (V, C, T, H, W), the crops of the first clip in time, then of the second, ...; None when
            nothing could be read.
        label: of the views as they are: of the replacement, and swapped after a flip that swaps labels.
        index: record that the views come from (the requested one when there are none).
        position: as requested.
        distinct_frames: different frames per clip, mean over the clips.
        frame_indices: int64 (num_clips, T), the frames of the video that the clips show.
        duration_sec: of the part of the video that counts; 0 where it is not known.
        failures: the requested record and replacements that could not be read.
        warnings: remarks of the reader, each naming the file.
    """

    views: torch.Tensor | None
    label: Label
    index: int
    position: int
    distinct_frames: float = 0.0
    frame_indices: np.ndarray | None = None
    duration_sec: float = 0.0
    failures: list[Failure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass
class Batch:
    """The readable clips of some videos, and what went wrong with the others.

    Attributes:
        clips: uint8 (B, C, T, H, W), all views of the first video, then of the second, ...; None without any.
        labels, indices, positions, views_per_video, distinct_frames, durations_sec: one entry per video that could be
            read.
        failures, warnings: of every video of the batch, replaced ones included.
    """

    clips: torch.Tensor | None
    labels: list[Label]
    indices: list[int]
    positions: list[int]
    views_per_video: list[int]
    distinct_frames: list[float]
    failures: list[Failure]
    warnings: list[str]
    durations_sec: list[float] = field(default_factory=list)

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory (called by torch's DataLoader)."""
        return self if self.clips is None else replace(self, clips=self.clips.pin_memory())


def collate(samples: Sequence[Sample], **_: Any) -> Batch:
    """Join samples into a batch; those without a readable clip leave only their failures."""
    read = [(sample, sample.views) for sample in samples if sample.views is not None]
    clips = torch.cat([views for _, views in read]) if read else None
    return Batch(
        clips=_shared(clips) if clips is not None and get_worker_info() is not None else clips,
        labels=[sample.label for sample, _ in read],
        indices=[sample.index for sample, _ in read],
        positions=[sample.position for sample, _ in read],
        views_per_video=[len(views) for _, views in read],
        distinct_frames=[sample.distinct_frames for sample, _ in read],
        failures=[failure for sample in samples for failure in sample.failures],
        warnings=[warning for sample in samples for warning in sample.warnings],
        durations_sec=[sample.duration_sec for sample, _ in read],
    )


class NoSharedMemoryError(UserError):
    """There is no shared memory left; the message is the same whatever torch adds where it passes the error on."""

    def __str__(self) -> str:
        return shared_memory_error()


def _shared(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in shared memory: here its lack is an error, in torch's own thread the batch would never come."""
    try:
        return tensor.share_memory_()
    except RuntimeError as error:
        raise NoSharedMemoryError from error


default_collate_fn_map[Sample] = collate  # an ordinary DataLoader gives batches too


class _Clips(NamedTuple):
    """What reading a video gives: uint8 (V, C, T, H, W), flipped or not, of these frames; facts of the video."""

    views: np.ndarray
    flipped: bool
    frame_indices: np.ndarray
    duration_sec: float
    warnings: tuple[str, ...]


@dataclass(eq=False)
class VideoDataset(Dataset[Sample]):
    """Clips of videos; an item is a `Sample`, and a torch DataLoader joins them to a `Batch`.

    Indices are whole numbers or, with the loaders of this project, `SampleKey`.

    Example:
        >>> dataset = VideoDataset(["a.mp4", "b.mp4"], labels=[0, 1], spec=ClipSpec(num_frames=8))
        >>> batch = next(iter(DataLoader(dataset, batch_size=2)))  # batch.clips (2, 3, 8, 224, 224), batch.labels
    """

    records: Sequence[Any]  # `VideoRecord`s, paths, or frames in memory (see `as_record`)
    _: KW_ONLY
    spec: ClipSpec = field(default_factory=ClipSpec)
    labels: Sequence[Label] | None = None  # of paths and frames; without, the label is -1
    # Random clips, other ones each epoch; a video that cannot be read is replaced by another one of the same class.
    # Otherwise the clips depend on seed and index alone, and nothing is replaced.
    training: bool = False
    views: Views = field(default_factory=Views)  # without `training`: the clips and crops of a video
    augmentation: Mapping[str, Any] = field(default_factory=dict)  # in training: arguments of `TrainTransform`
    timing: Timing = field(default_factory=Timing)  # in training: random changes of time
    seed: int = 0  # of all random choices
    backend: str = "pyav"  # decoder of video files
    flip_label_map: Mapping[int, int] = field(default_factory=dict)  # of flipped clips (both directions given)
    flip_only_mapped: bool = False  # flip only clips whose labels are all in `flip_label_map`
    cache: FrameCache | None = None  # stored frames; None: decode always
    timeout_sec: float = 0.0  # in loader processes, a video that takes longer is one that cannot be read; 0: no limit
    recycle_after: int = 0  # in loader processes, clips after which the process that decodes is replaced; 0: never

    def __post_init__(self) -> None:
        labels = self.labels or [-1] * len(self.records)
        if any(not isinstance(record, VideoRecord) for record in self.records):
            self.records = [as_record(video, label) for video, label in zip(self.records, labels, strict=True)]
        self.frame_sampler: FrameSampler = self.spec.frame_sampler(
            training=self.training, num_clips=self.views.num_clips, timing=self.timing
        )
        self.transform: Callable[..., Any] = (
            self.spec.train_transform(**self.augmentation)
            if self.training
            else self.spec.eval_transform(num_crops=self.views.num_crops)
        )
        self.epoch = 0  # of whole-number indices in training; raise it to draw other clips
        guarded = self.timeout_sec > 0 or self.recycle_after > 0
        call = GuardedCall(self._read, timeout_sec=self.timeout_sec, recycle_after=self.recycle_after)
        self._guarded_read = call if guarded else None
        # Known to all loader processes.
        self._hangs = _shared(torch.zeros(len(self.records), dtype=torch.bool))

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: SampleKey | int) -> Sample:
        if not isinstance(key, SampleKey):
            index = range(len(self))[key]  # IndexError ends an iteration
            key = SampleKey(self.epoch, index, index)
        parts = (key.epoch if self.training else 0, key.index, *((key.repeat, _STREAM) if key.repeat else ()))
        generator = numpy_generator(self.seed, *parts)
        sample = Sample(None, self.records[key.index].label, key.index, key.position)
        tried = [key.index]
        while True:
            record = self.records[tried[-1]]
            try:
                clips = self._try_to_read(tried[-1], deepcopy(generator))  # a failure takes nothing from it
            except VideoReadError as error:
                sample.failures.append(Failure.of(tried[-1], record, error))
            else:
                return self._complete(sample, tried[-1], clips)
            replacement = self._replacement(tried, generator) if self.training else None
            if replacement is None:
                return sample
            tried.append(replacement)

    def _try_to_read(self, index: int, generator: np.random.Generator) -> _Clips:
        """`_read`, in loader processes such that no video can stop the run.

        Raises:
            VideoReadError: it cannot be read, now or ever.
        """
        record = self.records[index]
        if self._guarded_read is None or get_worker_info() is None or in_memory(record):
            return self._read(index, generator)
        try:
            if self._hangs[index]:
                raise TimeoutError
            return self._guarded_read(index, generator)
        except TimeoutError as error:
            self._hangs[index] = True
            cause = f"it hangs: nothing came within {self.timeout_sec:g} s (DATA_LOADER.TIMEOUT)"
            raise VideoReadError(record.path, cause) from error
        except ChildProcessError as error:
            raise VideoReadError(record.path, f"it crashes the decoder: {error}") from error

    def _read(self, index: int, generator: np.random.Generator) -> _Clips:
        """The views of a record."""
        record = self.records[index]
        open_it = partial(open_record, record, backend=self.backend)
        cached = self.cache is not None and not in_memory(record)
        with self.cache.open(record, open_it) if cached else open_it() as reader:  # type: ignore[union-attr]
            indices = sample_record(record, reader.info, self.frame_sampler, generator)  # (num_clips, T)
            clips = read_clips(reader, indices)  # (T, H, W, 3) each
        flipped = False
        if self.training:
            clip, flipped = self.transform(clips[0], generator, may_flip=self._may_flip(record.label))  # (C, T, h, w)
            views = clip[None]
        else:
            views = torch.cat([self.transform(clip) for clip in clips])
        first, last = part_of(record, reader.info)
        return _Clips(views.numpy(), flipped, indices, (last - first) / reader.info.fps, reader.info.warnings)

    def _complete(self, sample: Sample, index: int, clips: _Clips) -> Sample:
        record = self.records[index]
        sample.index, sample.views = index, torch.from_numpy(clips.views)
        sample.label = self._label(record.label, clips.flipped)
        sample.frame_indices, sample.duration_sec = clips.frame_indices, clips.duration_sec
        sample.distinct_frames = float(np.mean(distinct_frames(clips.frame_indices)))
        sample.warnings = [f"{record.path} ({record.source}): {warning}" for warning in clips.warnings]
        return sample

    def _may_flip(self, label: Label) -> bool:
        labels = label if isinstance(label, tuple) else (label,)
        return not self.flip_only_mapped or all(each in self.flip_label_map for each in labels)

    def _label(self, label: Label, flipped: bool) -> Label:
        if not flipped:
            return label
        if isinstance(label, tuple):
            return tuple(sorted(self.flip_label_map.get(each, each) for each in label))
        return self.flip_label_map.get(label, label)

    def _replacement(self, tried: Sequence[int], generator: np.random.Generator) -> int | None:
        """Another record of the same label, or None when there is none left or enough were tried."""
        if len(tried) > MAX_REPLACEMENTS:
            return None
        label = self.records[tried[0]].label
        others = [i for i, record in enumerate(self.records) if record.label == label and i not in tried]
        return int(generator.choice(others)) if others else None
