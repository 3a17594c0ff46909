"""Plans of epochs cover every clip exactly once, and loaders deliver what the plan says."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset

from timesformer.datasets.loader import EvalLoader, Step, StepBatchSampler, TrainLoader
from timesformer.datasets.video_dataset import Batch, Failure, Sample, SampleKey, collate

small = st.integers(1, 12)


class NumberedClips(Dataset[Sample]):
    """Record i gives a clip of value i with 1 + i % 2 views; multiples of `bad` cannot be read."""

    def __init__(self, length: int, bad: int = 0, broken: bool = False) -> None:
        self.length, self.bad, self.broken = length, bad, broken

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: SampleKey) -> Sample:
        if self.broken:
            raise ZeroDivisionError("a mistake in the program")
        sample = Sample(None, label=key.index % 3, index=key.index, position=key.position)
        if self.bad and key.index % self.bad == 0:
            sample.failures.append(Failure(key.index, f"{key.index}.mp4", f"list.csv:{key.index + 1}", "is empty"))
        else:
            sample.views = torch.full((1 + key.index % 2, 3, 2, 4, 4), key.index, dtype=torch.uint8)
        return sample


def plans(
    num_records: int, global_batch: int, micro_batch: int, world_size: int, *, pairs: bool, epoch: int = 0
) -> list[list[Step]]:
    """One plan per process."""
    return [
        StepBatchSampler(
            num_records,
            global_batch=global_batch,
            micro_batch=micro_batch,
            pairs=pairs,
            rank=rank,
            world_size=world_size,
            seed=7,
        ).plan(epoch)
        for rank in range(world_size)
    ]


@given(
    num_records=st.integers(1, 70),
    global_batch=st.integers(1, 24),
    micro_batch=small,
    world_size=small,
    pairs=st.booleans(),
)
def test_a_step_is_the_same_clips_however_it_is_cut(
    num_records: int, global_batch: int, micro_batch: int, world_size: int, pairs: bool
) -> None:
    whole = StepBatchSampler(num_records, global_batch=num_records, micro_batch=num_records + 1, seed=7).plan(0)
    (order,) = whole[0].micro_batches
    assert sorted(key.index for key in order) == list(range(num_records))
    assert [key.position for key in order] == list(range(num_records))

    cut = plans(num_records, global_batch, micro_batch, world_size, pairs=pairs)
    assert {len(plan) for plan in cut} == {math.ceil(num_records / global_batch)}
    for number, steps in enumerate(zip(*cut, strict=True)):
        expected = order[number * global_batch : (number + 1) * global_batch]
        assert {step.num_samples for step in steps} == {len(expected)}
        assert [key for step in steps for piece in step.micro_batches for key in piece] == expected
        for step in steps:
            assert all(step.micro_batches) or step.micro_batches == [[]]
            assert all(len(piece) <= micro_batch for piece in step.micro_batches)
        shares = [sum(map(len, step.micro_batches)) for step in steps]
        assert max(shares) - min(shares) <= (3 if pairs else 1)
        if not pairs:
            assert all(len(piece) == micro_batch for step in steps for piece in step.micro_batches[:-1])


@given(
    num_records=st.integers(1, 70),
    global_batch=st.integers(1, 24),
    micro_batch=st.integers(2, 12),
    world_size=small,
)
def test_mixup_partners_of_a_step_stay_together(
    num_records: int, global_batch: int, micro_batch: int, world_size: int
) -> None:
    for plan in plans(num_records, global_batch, micro_batch, world_size, pairs=True):
        for number, step in enumerate(plan):
            for piece in filter(None, step.micro_batches):
                first = piece[0].position
                assert first % 2 == 0 or first == number * global_batch
                last = piece[-1].position
                assert last % 2 or last + 1 == min((number + 1) * global_batch, num_records)


def test_the_published_recipe_is_cut_as_documented() -> None:
    (step,) = StepBatchSampler(64, global_batch=64, micro_batch=24).plan(0)
    assert [len(piece) for piece in step.micro_batches] == [24, 24, 16]
    for pairs, sizes in ((False, [[4, 1], [4, 1]]), (True, [[4, 2], [4]])):
        found = [plan[0].micro_batches for plan in plans(10, 10, 4, 2, pairs=pairs)]
        assert [[len(piece) for piece in pieces] for pieces in found] == sizes


def test_without_mixing_every_process_works_and_odd_batches_are_kept() -> None:
    assert [len(plan[0].micro_batches[0]) for plan in plans(8, 8, 1, 8, pairs=False)] == [1] * 8
    assert [len(piece) for piece in plans(7, 7, 3, 1, pairs=False)[0][0].micro_batches] == [3, 3, 1]


def test_a_process_without_clips_still_takes_part() -> None:
    assert [plan[0].micro_batches for plan in plans(2, 8, 4, 3, pairs=True)][1:] == [[[]], [[]]]


def test_epochs_differ_and_a_seed_repeats_them() -> None:
    sampler = StepBatchSampler(50, global_batch=8, micro_batch=4, seed=3)
    again = StepBatchSampler(50, global_batch=8, micro_batch=2, rank=1, world_size=2, seed=3)
    other = StepBatchSampler(50, global_batch=8, micro_batch=4, seed=4)
    assert sampler.order(5).tolist() == again.order(5).tolist()
    assert sampler.order(5).tolist() != sampler.order(6).tolist()
    assert sampler.order(5).tolist() != other.order(5).tolist()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_train_loader_delivers_the_plan_step_by_step(num_workers: int) -> None:
    loader = TrainLoader(NumberedClips(21), global_batch=8, micro_batch=3, seed=1, num_workers=num_workers)
    assert len(loader) == 3
    for epoch in (0, 1):
        loader.set_epoch(epoch)
        plan = loader.sampler.plan(epoch)
        for expected, (step, batches) in zip(plan, loader, strict=True):
            assert step == expected
            for piece, batch in zip(step.micro_batches, batches, strict=True):
                assert batch.indices == [key.index for key in piece]
                assert batch.positions == [key.position for key in piece]


def test_batches_that_nobody_takes_do_not_slip_into_the_next_step() -> None:
    loader = TrainLoader(NumberedClips(12), global_batch=6, micro_batch=2)
    first_of_each = [(step, next(batches)) for step, batches in loader]
    for step, batch in first_of_each:
        assert batch.positions == [key.position for key in step.micro_batches[0]]


def test_loading_leaves_the_global_random_state_alone() -> None:
    state = torch.random.get_rng_state()
    list(TrainLoader(NumberedClips(4), global_batch=2, micro_batch=2))
    list(EvalLoader(NumberedClips(4), videos_per_batch=2))
    assert torch.equal(state, torch.random.get_rng_state())


@given(num_records=st.integers(1, 40), videos_per_batch=small, world_size=small)
def test_eval_loader_gives_every_record_once_in_order(num_records: int, videos_per_batch: int, world_size: int) -> None:
    dataset = NumberedClips(num_records)
    loaders = [
        EvalLoader(dataset, videos_per_batch=videos_per_batch, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    batches = [list(loader) for loader in loaders]
    assert [len(each) for each in batches] == [len(loader) for loader in loaders]
    assert [index for share in batches for batch in share for index in batch.indices] == list(range(num_records))
    shares = [loader.num_videos for loader in loaders]
    assert sum(shares) == num_records and max(shares) - min(shares) <= 1


def test_collate_joins_views_and_keeps_failures() -> None:
    dataset = NumberedClips(5, bad=2)
    batch = collate([dataset[SampleKey(0, index + 10, index)] for index in range(5)])
    assert batch.clips is not None and batch.clips.shape == (4, 3, 2, 4, 4) and batch.clips.dtype == torch.uint8
    assert batch.clips[:, 0, 0, 0, 0].tolist() == [1, 1, 3, 3]
    assert (batch.indices, batch.positions, batch.labels) == ([1, 3], [11, 13], [1, 0])
    assert batch.views_per_video == [2, 2]
    assert [failure.path for failure in batch.failures] == ["0.mp4", "2.mp4", "4.mp4"]
    assert str(batch.failures[0]) == "0.mp4 (list.csv:1): is empty"


def test_a_batch_without_a_readable_clip_has_no_clips() -> None:
    assert collate([]) == Batch(None, [], [], [], [], [], [], [])
    batch = collate([NumberedClips(1, bad=1)[SampleKey(0, 0, 0)]])
    assert batch.clips is None and len(batch.failures) == 1 and batch.pin_memory() is batch


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_mistake_in_the_program_surfaces(num_workers: int) -> None:
    loader = EvalLoader(NumberedClips(2, broken=True), videos_per_batch=1, num_workers=num_workers)
    with pytest.raises(ZeroDivisionError, match="a mistake in the program"):
        list(loader)
