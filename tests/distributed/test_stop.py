"""Signals are heard between steps: which one counts, a second Ctrl-C, and a stop whose checkpoint cannot be written."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

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
