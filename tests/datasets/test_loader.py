"""Plans of epochs cover every clip exactly once, and loaders deliver what the plan says."""

from __future__ import annotations

import math
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset

from timesformer.datasets import loader as loader_module
from timesformer.datasets.loader import EvalLoader, Step, StepBatchSampler, TrainLoader
from timesformer.datasets.video_dataset import Batch, Failure, Sample, SampleKey, collate
from timesformer.distributed.stop import StopRequest
from timesformer.utils.errors import Stopped, UserError

small = st.integers(1, 12)


class NumberedClips(Dataset[Sample]):
    """Record i gives a clip of value i with 1 + i % 2 views; multiples of `bad` cannot be read."""

    def __init__(self, length: int, bad: int = 0, broken: bool = False, side: int = 4) -> None:
        self.length, self.bad, self.broken, self.side = length, bad, broken, side

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: SampleKey) -> Sample:
        if self.broken:
            raise ZeroDivisionError("a mistake in the program")
        sample = Sample(None, label=key.index % 3, index=key.index, position=key.position)
        if self.bad and key.index % self.bad == 0:
            sample.failures.append(Failure(key.index, f"{key.index}.mp4", f"list.csv:{key.index + 1}", "is empty"))
        else:
            sample.views = torch.full((1 + key.index % 2, 3, 2, self.side, self.side), key.index, dtype=torch.uint8)
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


def test_a_loader_process_whose_parent_is_gone_at_its_start_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(loader_module, "ignore_stop_signals", lambda: None)
    monkeypatch.setattr(loader_module.os, "_exit", ended.append)
    for parent, status in ((None, []), (os.getppid(), []), (os.getppid() + 1, [1])):
        process = None if parent is None else SimpleNamespace(pid=parent)
        monkeypatch.setattr(loader_module.multiprocessing, "parent_process", lambda process=process: process)
        loader_module.start_worker(0)
        assert ended == status


def test_closing_a_loader_ends_its_processes() -> None:
    before = {*multiprocessing.active_children()}
    loader = TrainLoader(NumberedClips(4), global_batch=2, micro_batch=2, num_workers=2)
    loader.set_epoch(0)
    assert sum(len(batch.labels) for _, batches in loader for batch in batches) == 4
    assert len({*multiprocessing.active_children()} - before) == 2  # they wait for another epoch
    loader.close()
    assert not {*multiprocessing.active_children()} - before


class NeverReady(NumberedClips):
    """Clips that never come."""

    def __getitem__(self, key: SampleKey) -> Sample:
        time.sleep(30)
        raise AssertionError


def test_a_signal_ends_a_wait_for_loader_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timesformer.distributed.stop.DATA_WAIT_SECONDS", 0.5)
    stop = StopRequest()
    loader = TrainLoader(NeverReady(4), global_batch=2, micro_batch=2, num_workers=1, stop=stop)
    with stop.heard(), pytest.raises(Stopped, match="SIGTERM.*No data came for") as caught:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        next(next(iter(loader))[1])
    assert caught.value.alone and caught.value.exit_status == 143


def test_a_wait_for_loader_processes_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timesformer.datasets.loader.POLL_SECONDS", 0.2)
    loader = EvalLoader(NeverReady(4), videos_per_batch=2, num_workers=1, limit_sec=0.5)
    with pytest.raises(UserError, match="no batch of clips came for"):
        next(iter(loader))


def test_a_killed_loader_process_is_reported() -> None:
    code = """if True:  # a process of its own: torch's handler raises in whatever runs when it hears of the end
        import multiprocessing, os, threading
        from tests.datasets.test_loader import NeverReady
        from timesformer.datasets.loader import EvalLoader, worker_faults_explained
        from timesformer.utils.errors import exit_status

        def wait():
            with worker_faults_explained():
                kill = lambda: [child.kill() for child in multiprocessing.active_children()]
                threading.Timer(0.5, kill).start()
                next(iter(EvalLoader(NeverReady(4), videos_per_batch=2, num_workers=1)))

        print(exit_status(wait), flush=True)
        os._exit(0)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "1\n" and "a loader process ended" in done.stderr and "Traceback" not in done.stderr


def test_batches_that_do_not_fit_into_shared_memory_are_reported_before_and_while_they_are_made() -> None:
    inside = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    mount = "mount -t tmpfs -o size=300k none /dev/shm"
    if shutil.which("unshare") is None or subprocess.run([*inside, mount], capture_output=True).returncode:
        pytest.skip("unshare cannot mount here")
    code = """if True:
        from tests.datasets.test_loader import NumberedClips
        from timesformer.datasets.cache_folders import check_shared_memory
        from timesformer.datasets.loader import EvalLoader
        from timesformer.utils.errors import exit_status
        loader = EvalLoader(NumberedClips(8, side=200), videos_per_batch=8, num_workers=1)
        print(exit_status(lambda: check_shared_memory(2**20, 0, "2 loader processes x 8 clips")))
        print(exit_status(lambda: print(len(list(loader)))))
    """
    done = subprocess.run(
        [*inside, f'{mount} && exec "$0" -c "$1"', sys.executable, code], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["1", "1"], done.stderr
    assert "2 loader processes x 8 clips need 1.0 MB" in done.stderr and "--shm-size 2m" in done.stderr
    assert "a loader process got no shared memory for its clips" in done.stderr
