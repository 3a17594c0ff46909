"""Clips are the requested ones and the same anywhere, and a bad video costs nothing but itself."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tests.datasets.media import picture, read_number, truncate, write_audio, write_video
from timesformer.datasets.loader import EvalLoader, TrainLoader
from timesformer.datasets.records import VideoRecord
from timesformer.datasets.video_dataset import MAX_REPLACEMENTS, Batch, Sample, SampleKey, VideoDataset
from timesformer.video.clip_spec import ClipSpec, Views
from timesformer.video.frame_samplers import (
    FrameSampler,
    ShuffledFrames,
    UniformSegmentSampler,
    UniformSpanSampler,
)

HEIGHT, WIDTH = 48, 64  # of the rendered videos


def write_text(path: Path) -> None:
    path.write_text("this is no video\n" * 50)


FAULTS: dict[str, Callable[[Path], Any]] = {
    "missing": lambda path: None,
    "empty": lambda path: path.touch(),
    "text": write_text,
    "truncated": lambda path: truncate(write_video(path), 0.6),
    "audio only": write_audio,
    "folder": lambda path: path.mkdir(),
}


def records(folder: Path, *labels: int | tuple[int, ...]) -> list[VideoRecord]:
    """One readable video of 20 + 4i frames per label."""
    paths = [write_video(folder / f"{i}.mp4", num_frames=20 + 4 * i) for i in range(len(labels))]
    return [
        VideoRecord(str(path), label, f"list.csv:{i + 1}")
        for i, (path, label) in enumerate(zip(paths, labels, strict=True))
    ]


def bad_record(path: Path, label: int, line: int = 99) -> VideoRecord:
    return VideoRecord(str(path), label, f"list.csv:{line}")


def train_set(videos: list[VideoRecord], *, flip: bool = False, **settings: Any) -> VideoDataset:
    """Whole frames of 4 random frames."""
    spec = ClipSpec(num_frames=4, sampling_rate="auto", size=(HEIGHT, WIDTH), crop_mode="full", mean=(0.5, 0.5, 0.5))
    augmentation = {
        "jitter_scales": (48, 64),
        "inverse_uniform": False,
        "flip": flip,
        "auto_augment": "",
        "color_jitter": 0.0,
        "erase_prob": 0.0,
    }
    return VideoDataset(videos, spec=spec, augmentation=augmentation, training=True, seed=5, **settings)


def eval_set(
    videos: list[VideoRecord],
    sampler: FrameSampler | None = None,
    *,
    crop: int = 0,
    num_crops: int = 1,
    **settings: Any,
) -> VideoDataset:
    """Whole frames, or square crops of side `crop`."""
    spec = ClipSpec(
        num_frames=4,
        sampling_rate="auto",
        size=(crop, crop) if crop else (HEIGHT, WIDTH),
        crop_mode="crop" if crop else "full",
    )
    dataset = VideoDataset(videos, spec=spec, views=Views(num_crops=num_crops), **settings)
    dataset.frame_sampler = sampler or dataset.frame_sampler
    return dataset


def numbers(clip: torch.Tensor) -> list[int]:
    """Frame numbers shown by a clip (C, T, H, W) of whole frames."""
    return [read_number(frame) for frame in clip.permute(1, 2, 3, 0).numpy()]


def same(one: Sample, two: Sample) -> bool:
    assert one.views is not None and two.views is not None
    return torch.equal(one.views, two.views) and (one.label, one.failures) == (two.label, two.failures)


# ---------------------------------------------------------------- the requested frames


def test_a_clip_shows_the_frames_of_its_indices(tmp_path: Path) -> None:
    sample = eval_set(records(tmp_path, 1), UniformSpanSampler(5, 2, 30.0, num_clips=3))[SampleKey(0, 0, 0)]
    assert sample.views is not None and sample.frame_indices is not None
    assert sample.views.shape == (3, 3, 5, HEIGHT, WIDTH) and sample.views.dtype == torch.uint8
    assert [numbers(view) for view in sample.views] == sample.frame_indices.tolist()
    assert (sample.label, sample.distinct_frames, sample.failures) == (1, 5.0, [])


def test_views_are_the_crops_of_each_clip_in_turn(tmp_path: Path) -> None:
    videos, sampler = records(tmp_path, 0), UniformSegmentSampler(4, num_clips=2)
    three = eval_set(videos, sampler, crop=32, num_crops=3)[SampleKey(0, 0, 0)].views
    one = eval_set(videos, sampler, crop=32)[SampleKey(0, 0, 0)].views
    assert three is not None and one is not None
    assert three.shape[0] == 6 and torch.equal(three[1::3], one)


@pytest.mark.parametrize("training", [True, False])
def test_only_the_part_that_counts_is_sampled(tmp_path: Path, training: bool) -> None:
    path = write_video(tmp_path / "long.mp4", num_frames=60, fps=10)
    part = VideoRecord(str(path), 0, "list.csv:1", start_sec=2.0, end_sec=4.0)
    dataset = train_set([part]) if training else eval_set([part])
    sample = dataset[SampleKey(0, 0, 0)]
    assert sample.views is not None
    assert all(20 <= number < 40 for number in numbers(sample.views[0]))
    to_the_end = eval_set([replace(part, start_sec=5.5, end_sec=0.0)], UniformSpanSampler(5, 3, 30.0))[
        SampleKey(0, 0, 0)
    ]
    assert to_the_end.views is not None and numbers(to_the_end.views[0]) == [55, 56, 57, 58, 59]
    beyond = eval_set([replace(part, start_sec=7.0, end_sec=9.0)])[SampleKey(0, 0, 0)]
    assert beyond.views is None and beyond.failures[0].cause == "no frame from 7 to 9 s; it is 6.0 s long"


def test_defect_12_repeated_frames_are_counted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "short.mp4", num_frames=45, fps=15)
    sample = eval_set([VideoRecord(str(path), 0, "list.csv:1")], UniformSpanSampler(8, 32, 30.0))[SampleKey(0, 0, 0)]
    assert sample.views is not None and numbers(sample.views[0]) == [0, 18, 36, 44, 44, 44, 44, 44]
    assert sample.distinct_frames == 4


def test_frame_folders_are_read_like_videos(tmp_path: Path) -> None:
    files = [str(tmp_path / f"{i:03}.png") for i in range(12)]
    for i, file in enumerate(files):
        cv2.imwrite(file, picture(i)[..., ::-1])
    record = VideoRecord(str(tmp_path), 2, "list.csv:1", frames=tuple(files))
    sample = eval_set([record])[SampleKey(0, 0, 0)]
    assert sample.views is not None and sample.frame_indices is not None
    assert numbers(sample.views[0]) == sample.frame_indices[0].tolist()
    Path(files[sample.frame_indices[0, 1]]).unlink()
    (failure,) = eval_set([record])[SampleKey(0, 0, 0)].failures
    assert failure.path == str(tmp_path) and Path(files[sample.frame_indices[0, 1]]).name in failure.cause


# ---------------------------------------------------------------- flips and labels


def test_defect_13_a_flip_swaps_the_labels_of_mirror_pairs(tmp_path: Path) -> None:
    videos = records(tmp_path, 2, 0, (0, 2))
    plain, flipping = train_set(videos), train_set(videos, flip=True, flip_label_map={2: 3, 3: 2})
    seen = set()
    for epoch in range(12):
        for index, record in enumerate(videos):
            before, after = (ramp(d[SampleKey(epoch, 0, index)]) for d in (plain, flipping))
            flipped = before != after
            label = flipping[SampleKey(epoch, 0, index)].label
            assert label == ({2: 3, 0: 0, (0, 2): (0, 3)}[record.label] if flipped else record.label)
            seen.add((index, flipped))
    assert len(seen) == 6


def test_a_flip_can_be_limited_to_classes_with_a_partner(tmp_path: Path) -> None:
    """The other clips are not flipped, and else the same: they take the same random numbers."""
    videos, swap = records(tmp_path, 2, 0, (2, 3), (0, 2), 4), {2: 3, 3: 2, 4: 4}
    all_flip = train_set(videos, flip=True, flip_label_map=swap)
    some_flip = train_set(videos, flip=True, flip_label_map=swap, flip_only_mapped=True)
    plain = train_set(videos)
    flipped = set()
    for key in (SampleKey(epoch, 0, index) for epoch in range(12) for index in range(len(videos))):
        expected = (plain if key.index in (1, 3) else all_flip)[key]
        assert some_flip[key].label == expected.label and ramp(some_flip[key]) == ramp(expected)
        flipped |= {key.index} if ramp(some_flip[key]) != ramp(plain[key]) else set()
    assert flipped == {0, 2, 4}


def ramp(sample: Sample) -> bytes:
    """What tells a frame from its mirror image: the columns of its lower half."""
    assert sample.views is not None
    return sample.views[0, :, 0, HEIGHT // 2 :].float().mean(dim=1).numpy().tobytes()


# ---------------------------------------------------------------- the same sample anywhere


def test_a_sample_depends_on_seed_epoch_and_index_alone(tmp_path: Path) -> None:
    dataset = train_set(records(tmp_path, 0, 1), flip=True)
    first = dataset[SampleKey(3, 0, 1)]
    dataset[SampleKey(3, 1, 0)]
    assert same(first, dataset[SampleKey(3, 17, 1)])
    assert same(first, pickle.loads(pickle.dumps(dataset))[SampleKey(3, 0, 1)])
    assert not all(same(first, dataset[SampleKey(epoch, 0, 1)]) for epoch in range(4, 8))


def test_defect_07_evaluation_is_the_same_in_every_pass(tmp_path: Path) -> None:
    dataset = eval_set(records(tmp_path, 0, 1, 2), ShuffledFrames(UniformSegmentSampler(6)), crop=32)
    passes = [
        [dataset[SampleKey(epoch, position, index)] for position, index in enumerate(order)]
        for epoch, order in enumerate([(0, 1, 2), (2, 1, 0)])
    ]
    assert all(same(one, two) for one, two in zip(passes[0], passes[1][::-1], strict=True))


def test_worker_processes_change_nothing_and_bad_clips_stop_nothing(tmp_path: Path) -> None:
    videos = records(tmp_path, 0, 1, 0, 1)
    for line, (name, make) in enumerate(FAULTS.items()):
        make(tmp_path / f"{name}.mp4")
        videos.append(bad_record(tmp_path / f"{name}.mp4", label=line % 2, line=line + 5))

    def epoch(num_workers: int) -> list[Batch]:
        loader = TrainLoader(train_set(videos), global_batch=4, micro_batch=3, seed=1, num_workers=num_workers)
        return [batch for _, batches in loader for batch in batches]

    alone, helped = epoch(0), epoch(2)
    for one, two in zip(alone, helped, strict=True):
        assert one.clips is not None and two.clips is not None and torch.equal(one.clips, two.clips)
        assert replace(one, clips=None) == replace(two, clips=None)
    assert sum(len(batch.labels) for batch in alone) == len(videos)
    assert {Path(failure.path).stem for batch in alone for failure in batch.failures} == FAULTS.keys()

    evaluated = list(EvalLoader(eval_set(videos), videos_per_batch=3))
    assert [index for batch in evaluated for index in batch.indices] == [0, 1, 2, 3]
    assert [failure.index for batch in evaluated for failure in batch.failures] == [4, 5, 6, 7, 8, 9]


# ---------------------------------------------------------------- videos that cannot be read


@pytest.mark.parametrize("fault", FAULTS)
def test_defect_14_a_bad_video_is_replaced_by_its_class_in_training_and_listed_in_test(
    tmp_path: Path, fault: str
) -> None:
    videos = [*records(tmp_path, 1, 0, 1, 1), bad_record(tmp_path / "bad.mp4", label=0, line=7)]
    FAULTS[fault](tmp_path / "bad.mp4")
    training = train_set(videos)
    for epoch in range(3):
        sample = training[SampleKey(epoch, 8, 4)]
        assert sample.views is not None
        assert (sample.label, sample.index, sample.position) == (0, 1, 8)
        (failure,) = sample.failures
        assert (failure.index, failure.path, failure.source) == (4, str(tmp_path / "bad.mp4"), "list.csv:7")
        assert failure.cause and "\n" not in failure.cause
        assert same(sample, training[SampleKey(epoch, 0, 4)])

    sample = eval_set(videos)[SampleKey(0, 4, 4)]
    assert (sample.views, sample.label, sample.index) == (None, 0, 4)
    assert sample.failures == [failure]


def test_a_class_without_another_readable_video_leaves_the_batch_smaller(tmp_path: Path) -> None:
    videos = [*records(tmp_path, 0), *(bad_record(tmp_path / f"bad{i}.mp4", label=1) for i in range(9))]
    sample = train_set(videos)[SampleKey(0, 2, 3)]
    assert sample.views is None and sample.distinct_frames == 0
    tried = [failure.index for failure in sample.failures]
    assert tried[0] == 3 and len(set(tried)) == len(tried) == 1 + MAX_REPLACEMENTS
    assert len(train_set(videos[:2])[SampleKey(0, 0, 1)].failures) == 1


def test_one_frame_is_a_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "still.mp4", num_frames=1)
    sample = train_set([VideoRecord(str(path), 0, "list.csv:1")])[SampleKey(0, 0, 0)]
    assert sample.views is not None and numbers(sample.views[0]) == [0, 0, 0, 0]
    assert sample.distinct_frames == 1 and not sample.failures


def test_what_the_reader_remarks_is_passed_on_with_the_file(tmp_path: Path) -> None:
    path = truncate(write_video(tmp_path / "cut.avi", num_frames=60, codec="mpeg4"), 0.8)
    sample = eval_set([VideoRecord(str(path), 0, "list.csv:1")])[SampleKey(0, 0, 0)]
    assert sample.views is not None and sample.warnings
    assert all(str(path) in warning for warning in sample.warnings)


def test_a_mistake_in_the_program_is_not_taken_for_a_bad_video(tmp_path: Path) -> None:
    def mistaken(num_video_frames: int, fps: float, generator: np.random.Generator | None) -> np.ndarray:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        eval_set(records(tmp_path, 0), mistaken)[SampleKey(0, 0, 0)]
