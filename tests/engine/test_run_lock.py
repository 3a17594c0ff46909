"""An output folder has one training: a second is refused by name, and what a dead one left is no obstacle."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from timesformer.engine import run_lock
from timesformer.engine.run_lock import RunLock
from timesformer.utils.errors import UserError


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock, with a child that it has forked."""
    code = f"""if True:
        import os, time
        from pathlib import Path
        from timesformer.engine.run_lock import RunLock
        with RunLock(Path({str(tmp_path)!r})):
            if os.fork():
                print("holds", flush=True)
            time.sleep(60)
    """
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as it:
        assert it.stdout and it.stdout.readline() == "holds\n"
        yield it
        os.killpg(it.pid, 9)


def test_a_second_training_is_refused_and_the_first_is_named(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    expected = f"in use by another training \\(host {socket.gethostname()}, process {other.pid}, since 20"
    with pytest.raises(UserError, match=expected), RunLock(tmp_path):
        pass


def test_a_killed_holder_is_no_obstacle_though_its_children_live(
    tmp_path: Path, other: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_lock, "PATIENCE_SECONDS", 0.5)
    other.kill()
    other.wait()
    with RunLock(tmp_path):
        assert json.loads((tmp_path / ".run.json").read_text())["pid"] == os.getpid()
    assert not (tmp_path / ".run.json").exists()
    with RunLock(tmp_path):  # after an orderly end there is nothing to wait for
        pass


HOLDER = {"host": "node7", "pid": 1, "started": 0.0, "since": "2026-01-01 10:00:00", "slurm_job": "41", "beat": 3}


def test_a_holder_on_another_host_is_alive_while_its_number_counts_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_lock, "PATIENCE_SECONDS", 30.0)
    (tmp_path / ".run.json").write_text(json.dumps(HOLDER))
    beat = threading.Timer(0.5, lambda: (tmp_path / ".run.json").write_text(json.dumps({**HOLDER, "beat": 4})))
    beat.start()
    with pytest.raises(UserError, match="host node7, process 1, Slurm job 41, since 2026-01-01"), RunLock(tmp_path):
        pass
    beat.join()
    monkeypatch.setattr(run_lock, "PATIENCE_SECONDS", 0.5)
    with RunLock(tmp_path):
        pass


def test_a_requeued_job_does_not_wait_for_its_former_self(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "PATIENCE_SECONDS", 3600.0)
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    (tmp_path / ".run.json").write_text(json.dumps({**HOLDER, "restarts": 0}))
    with RunLock(tmp_path):
        pass


def test_half_a_file_is_no_holder(tmp_path: Path) -> None:
    (tmp_path / ".run.json").write_text('{"host": "no')
    with RunLock(tmp_path):
        pass


def test_a_test_of_a_folder_in_training_is_not_locked_out(tmp_path: Path, run: Callable[..., int]) -> None:
    words = ("SOLVER.MAX_EPOCH", 1, "TENSORBOARD.ENABLE", False)
    assert run(tmp_path, *words) == 0
    with RunLock(tmp_path):
        assert run(tmp_path, *words, "TRAIN.ENABLE", False) == 0
        assert run(tmp_path, *words, "TRAIN.AUTO_RESUME", True) == 1
