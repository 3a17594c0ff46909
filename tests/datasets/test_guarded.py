"""A call that hangs or crashes costs its process alone."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import spawn
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.datasets import guarded_functions as functions
from tests.datasets.media import write_video
from tests.datasets.test_video_dataset import eval_set, records, same, train_set
from timesformer.datasets import guarded
from timesformer.datasets.guarded import GuardedCall, StartError
from timesformer.datasets.loader import EvalLoader, TrainLoader
from timesformer.datasets.records import VideoRecord
from timesformer.datasets.video_dataset import SampleKey
from timesformer.utils.errors import VideoReadError
from timesformer.video.readers import open_video


@pytest.fixture(params=["fork", "spawn"])
def guard(request: pytest.FixtureRequest) -> Callable[..., GuardedCall[Any]]:
    """Makes guarded calls, of both forms."""
    return partial(GuardedCall, start_method=request.param)


Guard = Callable[..., GuardedCall[Any]]


def test_results_and_errors_come_back(guard: Guard) -> None:
    double = guard(functions.double)
    array = np.arange(6).reshape(2, 3)
    assert np.array_equal(double(array), 2 * array) and double(array).flags.writeable
    with pytest.raises(VideoReadError, match="is empty") as caught:
        guard(functions.fail)()
    assert "in another process" in str(caught.value.__cause__) and "raise VideoReadError" in str(caught.value.__cause__)


def test_large_results_come_whole_one_after_another(guard: Guard) -> None:
    double = guard(functions.double, recycle_after=2)
    arrays = [np.full(size, 3, np.uint8) for size in (1000, 5_000_000, 10)]
    results = [double(array) for array in arrays]
    assert all(np.array_equal(result, 2 * array) for result, array in zip(results, arrays, strict=True))


def test_what_cannot_be_pickled_is_an_error_and_not_the_end_of_the_process(guard: Guard) -> None:
    call = guard(functions.call)
    process = call(functions.number_of_process)
    with pytest.raises(RuntimeError, match="BadError: this and that"):
        call(functions.fail_badly)
    with pytest.raises(Exception, match="pickle"):
        call(functions.give_what_cannot_be_pickled)
    assert call(functions.number_of_process) == process


def test_one_process_does_all_calls_until_it_is_recycled(guard: Guard) -> None:
    once = guard(functions.number_of_process)
    assert len({once() for _ in range(4)} - {os.getpid()}) == 1
    fresh = guard(functions.number_of_process, recycle_after=2)
    numbers = [fresh() for _ in range(6)]
    assert numbers[0] == numbers[1] and len(set(numbers)) == 3


def test_a_call_that_takes_too_long_is_ended(guard: Guard) -> None:
    nap = guard(functions.nap, timeout_sec=0.5)
    first = nap(0)
    with pytest.raises(TimeoutError, match=r"no complete answer within 0.5 s"):
        nap(60)
    assert nap(0) != first
    for _ in range(2):  # ends the second too, and forgets both in time
        nap.close()
        time.sleep(0.1)
        nap(0)
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_the_limit_is_for_the_whole_answer(guard: Guard) -> None:
    call = guard(functions.call, timeout_sec=0.5)
    with pytest.raises(TimeoutError, match=r"no complete answer within 0.5 s"):
        call(functions.signal_itself_in_its_answer, signal.SIGSTOP)
    assert call(functions.double, 4) == 8


def test_the_limit_holds_while_an_answer_still_comes() -> None:
    local, remote = socket.socketpair()
    with local, remote:
        remote.sendall(guarded.LENGTH.pack(10) + bytes(10))
        with pytest.raises(TimeoutError):
            guarded._receive(local, time.monotonic() - 1)


def test_another_part_of_the_program_may_wait_for_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    def reaped(pid: int, options: int) -> None:
        raise ChildProcessError(10, "No child processes")

    call = GuardedCall(functions.number_of_process, start_method="fork", recycle_after=1)
    monkeypatch.setattr(os, "waitpid", reaped)
    assert len({call() for _ in range(3)}) == 3


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        ((functions.signal_itself, signal.SIGKILL), "its process ended by signal SIGKILL"),
        ((functions.signal_itself_in_its_answer, signal.SIGKILL), "its process ended by signal SIGKILL"),
        ((functions.leave,), "its process ended with status 3"),
        ((functions.hang_up,), "its process closed the connection"),
    ],
    ids=["signal", "half an answer", "status", "connection"],
)
def test_a_crash_is_reported_and_does_not_spread(
    guard: Guard, arguments: tuple[Any, ...], cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarded, "GRACE_SEC", 0.2 if "connection" in cause else 60.0)
    call = guard(functions.call)
    for _ in range(2):
        with pytest.raises(ChildProcessError, match=cause):
            call(*arguments)
    assert call(functions.double, 4) == 8


def test_a_process_that_cannot_start_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawn, "get_executable", lambda: "/bin/false")
    with pytest.raises(StartError, match="its process ended with status 1 at its start"):
        GuardedCall(functions.double, start_method="spawn")(1)
    monkeypatch.undo()
    monkeypatch.setattr(guarded, "START_LIMIT_SEC", 0.3)
    with pytest.raises(StartError, match=r"its process did not start within 0.3 s"):
        GuardedCall(functions.SlowToStart(), start_method="spawn")()


def test_a_script_from_standard_input_can_start_processes() -> None:
    script = "from timesformer.datasets.guarded import GuardedCall\n"
    script += "print(GuardedCall(abs, start_method='spawn')(-3))"
    done = subprocess.run([sys.executable, "-"], input=script, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("3\n", "")


def test_a_process_and_its_forks_do_not_share_their_helper(guard: Guard) -> None:
    call = guard(functions.number_of_process)
    own = call()
    assert guard(call)() not in (own, os.getpid())
    assert pickle.loads(pickle.dumps(call))() != own
    assert call() == own


def hanging(folder: Path) -> VideoRecord:
    """A file that a decoder hangs on."""
    (folder / "hangs.mp4").write_text("hang")
    return VideoRecord(str(folder / "hangs.mp4"), 1, "list.csv:9")


def test_a_run_continues_without_a_video_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(path: str, backend: str) -> Any:
        return functions.nap(600) if Path(path).read_bytes() == b"hang" else open_video(path, backend=backend)

    monkeypatch.setattr("timesformer.datasets.opening.open_video", opened)
    videos = [*records(tmp_path, 0, 1, 0), hanging(tmp_path)]
    loader = TrainLoader(train_set(videos, timeout_sec=1.0), global_batch=2, micro_batch=2, num_workers=1)
    for epoch in range(2):
        loader.set_epoch(epoch)
        batches = [batch for _, of_step in loader for batch in of_step]
        (failure,) = [failure for batch in batches for failure in batch.failures]
        assert str(failure) == f"{videos[3].path} (list.csv:9): it hangs: nothing came within 1 s (DATA_LOADER.TIMEOUT)"
        assert sorted(index for batch in batches for index in batch.indices) == [0, 1, 1, 2]  # another of its class
        if epoch == 0:  # it is not tried again, though it could be read now
            Path(videos[3].path).unlink()
            write_video(videos[3].path)

    Path(videos[3].path).unlink()
    hanging(tmp_path)
    evaluation = EvalLoader(eval_set(videos, timeout_sec=1.0), videos_per_batch=4, num_workers=1)
    for _ in range(2):  # the second time by other loader processes, which know of it
        evaluated = list(evaluation)
        assert [index for batch in evaluated for index in batch.indices] == [0, 1, 2]
        assert [failure.index for batch in evaluated for failure in batch.failures] == [3]
        Path(videos[3].path).unlink()
        write_video(videos[3].path)


def test_clips_are_the_same_in_a_process_of_their_own(tmp_path: Path) -> None:
    videos = [*records(tmp_path, 0, 1, 0, 1), VideoRecord(str(tmp_path / "gone.mp4"), 0, "list.csv:9")]
    plain = train_set(videos, flip=True)
    guarded = train_set(videos, flip=True, timeout_sec=60.0, recycle_after=2)
    loader = TrainLoader(guarded, global_batch=1, micro_batch=1, num_workers=2)
    for step, batches in loader:
        (batch,) = batches
        sample = plain[SampleKey(*step.micro_batches[0][0])]
        assert sample.views is not None and batch.clips is not None and (batch.clips == sample.views).all()
        assert (batch.labels, batch.failures) == ([sample.label], sample.failures)


def test_a_crashing_decoder_is_a_video_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos = records(tmp_path, 0, 1)
    monkeypatch.setattr(
        "timesformer.datasets.opening.open_video",
        lambda path, backend: functions.signal_itself(signal.SIGKILL) if "1.mp4" in path else None,
    )
    loader = EvalLoader(eval_set(videos[1:], timeout_sec=60.0), videos_per_batch=1, num_workers=1)
    (failure,) = [failure for batch in loader for failure in batch.failures]
    assert failure.cause == "it crashes the decoder: its process ended by signal SIGKILL"


def test_without_loader_processes_nothing_is_forked(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    video = [VideoRecord(str(path), 0, "list.csv:1")]
    dataset = eval_set(video, timeout_sec=1.0)
    assert same(dataset[SampleKey(0, 0, 0)], eval_set(video)[SampleKey(0, 0, 0)])
    assert dataset._guarded_read is not None and dataset._guarded_read._process is None
