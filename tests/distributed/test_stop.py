"""Signals are heard between steps: which one counts, a second Ctrl-C, and a stop whose checkpoint cannot be written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from timesformer.distributed.stop import StopRequest, chosen, stopped
from timesformer.engine import train as train_module
from timesformer.engine.events import RunEvents

Run = Callable[..., int]


def test_the_first_signal_counts_and_the_second_ctrl_c_stops_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    request = StopRequest()
    before = signal.getsignal(signal.SIGUSR2)
    with request.heard():
        assert request.votes() == [0, 0, 0, 0]
        for number in (signal.SIGUSR2, signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert request.signal == chosen(request.votes()) == signal.SIGUSR2
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGUSR2) is before
    assert "Ctrl-C: stopping after this step; again: at once" in capfd.readouterr().err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGUSR2, 75)])
def test_a_process_that_waits_for_data_in_a_call_that_never_returns_ends(
    tmp_path: Path, number: int, status: int
) -> None:
    os.mkfifo(tmp_path / "never")
    code = f"""if True:
        from timesformer.distributed import stop
        stop.DATA_WAIT_SECONDS = 0.1
        with stop.StopRequest().heard() as request, request.waiting_for_data():
            print("waits", flush=True)
            open({str(tmp_path / "never")!r}).read()
    """
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as it:
        assert it.stdout and it.stdout.readline() == "waits\n"
        it.send_signal(number)
        it.send_signal(number)
        _, message = it.communicate(timeout=60)
    assert it.returncode == status and "stopped at once" in message


def test_ctrl_c_in_a_step_that_takes_long_is_answered_and_the_second_ends_it() -> None:
    code = """if True:
        import hashlib
        from timesformer.distributed import stop
        stop.GRACE_SECONDS = 0.1
        with stop.StopRequest().heard():
            print("computes", flush=True)
            hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # minutes, in which Python handles no signal
    """
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as it:
        assert it.stdout and it.stderr and it.stdout.readline() == "computes\n"
        it.send_signal(signal.SIGINT)
        assert it.stderr.readline() == "\n"
        assert it.stderr.readline() == "Ctrl-C: stopping after this step; again: at once\n" and it.poll() is None
        it.send_signal(signal.SIGINT)
        _, message = it.communicate(timeout=60)
    assert it.returncode == 130 and "stopped at once by Ctrl-C" in message


def test_a_rank_ends_with_the_process_that_started_it() -> None:
    rank = "import os, time; from timesformer.distributed.stop import end_with_parent as e; e(os.getppid())"
    rank = f"{rank}; print(os.getpid(), flush=True); time.sleep(60)"
    launcher = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {rank!r}])"
    with subprocess.Popen([sys.executable, "-c", launcher], stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout
        process = int(started.stdout.readline())
        started.kill()
    assert not psutil.pid_exists(process) or psutil.Process(process).wait(10) is None


def test_of_several_processes_the_gravest_signal_is_chosen_and_has_its_exit_status() -> None:
    assert chosen([0, 1, 0, 2]) == signal.SIGTERM and chosen([0, 0, 0, 0]) == 0
    statuses = {number: stopped(number).exit_status for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    assert statuses == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 75}


def test_a_stop_that_cannot_be_saved_is_an_error_and_asks_for_no_restart(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    log_steps = train_module.log_steps

    def signalled(*arguments: object) -> None:
        log_steps(*arguments)  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGUSR2)

    monkeypatch.setattr(train_module, "log_steps", signalled)
    assert run(tmp_path, "TEST.ENABLE", False) == 1
    message = capsys.readouterr().err
    assert "could not be written" in message and "stopped:" not in message


def test_the_validation_of_an_epoch_that_is_not_finished_is_dropped_on_resume(tmp_path: Path) -> None:
    events = RunEvents(tmp_path, tensorboard_dir=None, is_main=True)
    for epoch, step in ((1, 3), (2, 6)):
        events.record("train", epoch=epoch, step=step, loss=1.0)
        events.record("val", epoch=epoch, step=step, loss=1.0)
    events.start_at(epoch=1, step=6)  # the steps of the second epoch are done, its validation is not
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["kind"], row["epoch"]) for row in rows] == [("train", 1), ("val", 1), ("train", 2)]
