"""Checkpoints are written whole or not at all, in the background, and old ones make room."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch

from timesformer.engine import checkpoint_writer
from timesformer.engine.checkpoint import Position, best_path, checkpoint_path, list_checkpoints
from timesformer.engine.checkpoint_writer import CheckpointWriter, write_whole
from timesformer.utils.errors import CheckpointError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_the_last_k_and_the_best_stay(tmp_path: Path) -> None:
    with CheckpointWriter(tmp_path, keep=2) as writer:
        for epoch in range(1, 6):
            writer.write({"epoch": epoch}, Position(epoch), is_best=epoch == 2)
    assert names(tmp_path) == ["checkpoint_best.pyth", "checkpoint_epoch_00004.pyth", "checkpoint_epoch_00005.pyth"]
    assert torch.load(best_path(tmp_path)) == {"epoch": 2}
    with CheckpointWriter(tmp_path, keep=0) as writer:
        writer.write({}, Position(5, 3))
        writer.write({}, Position(6), is_best=True)
    assert len(list_checkpoints(tmp_path)) == 4


def test_when_a_checkpoint_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 60.0, 119.0, 120.0, 120.0, 200.0])
    monkeypatch.setattr(checkpoint_writer.time, "monotonic", lambda: next(clock))
    writer = CheckpointWriter(tmp_path, period_steps=4, period_minutes=2)
    assert [step for step in range(1, 13) if writer.due(step)] == [4, 8, 12]
    assert [writer.overdue() for _ in range(3)] == [False, False, True]
    writer.write({}, Position(1))
    assert not writer.overdue()
    monkeypatch.undo()
    never = CheckpointWriter(tmp_path)
    assert not never.overdue() and not any(map(never.due, range(1, 100)))


def test_in_the_background_the_state_of_the_moment_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training continues, and changes the weights, before the file is written."""
    go = Event()

    def slowly(*arguments: Any, **options: Any) -> None:
        assert go.wait(timeout=60)
        write_whole(*arguments, **options)

    monkeypatch.setattr(checkpoint_writer, "write_whole", slowly)
    weight, momentum = torch.ones(3), torch.ones(2)
    with CheckpointWriter(tmp_path, in_background=True) as writer:
        writer.write({"model_state": {"w": weight}, "optimizer_state": {"state": [{"m": momentum}]}}, Position(1))
        weight.add_(1)
        momentum.add_(1)
        assert not checkpoint_path(tmp_path, Position(1)).exists()
        go.set()
    content = torch.load(checkpoint_path(tmp_path, Position(1)))
    assert content["model_state"]["w"].tolist() == [1, 1, 1]
    assert content["optimizer_state"]["state"][0]["m"].tolist() == [1, 1]


FULL_DISK = """
import resource, sys, torch
from pathlib import Path
from timesformer.engine.checkpoint import Position
from timesformer.engine.checkpoint_writer import CheckpointWriter
from timesformer.utils.errors import CheckpointError

folder, background = Path(sys.argv[1]), sys.argv[2] == "background"
with CheckpointWriter(folder, in_background=background) as writer:
    writer.write({"model_state": {"w": torch.ones(1000)}}, Position(1), is_best=True)
    writer.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    writer.write({"model_state": {"w": torch.ones(1_000_000)}}, Position(2), is_best=True)
    writer.wait()
    print("training continues")
    writer.write({"model_state": {"w": torch.ones(10)}}, Position(3))  # there is room again
try:
    with writer:
        writer.write({"model_state": {"w": torch.ones(1_000_000)}}, Position(4))
except CheckpointError as error:
    print("at the end:", error)
"""


@pytest.mark.parametrize("how", ["at once", "background"])
def test_a_disk_without_room_keeps_the_old_file_and_ends_no_training(tmp_path: Path, how: str) -> None:
    """The system refuses to write past a limit, as it does on a full disk."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(tmp_path), how],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "training continues" in done.stdout
    at_end = done.stdout.partition("at the end:")[2]
    assert "could not be written" in at_end and "MiB free" in at_end and "TRAIN.AUTO_RESUME True" in at_end
    assert names(tmp_path) == ["checkpoint_best.pyth", "checkpoint_epoch_00001.pyth", "checkpoint_epoch_00003.pyth"]
    assert torch.load(best_path(tmp_path))["model_state"]["w"].shape == (1000,)


def test_an_error_of_the_training_is_not_hidden_by_one_of_the_writer(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    with pytest.raises(KeyError), CheckpointWriter(tmp_path) as writer:
        writer.write({}, Position(1))
        raise KeyError
    with pytest.raises(CheckpointError, match="could not be written"), CheckpointWriter(tmp_path) as writer:
        writer.write({}, Position(1))


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/checkpoint_epoch_00002.writing").write_bytes(b"half")
    with CheckpointWriter(tmp_path):
        pass
    assert names(tmp_path) == []


def test_a_file_system_without_links_gets_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError("not supported")

    monkeypatch.setattr(os, "link", no_links)
    with CheckpointWriter(tmp_path) as writer:
        writer.write({"epoch": 1}, Position(1), is_best=True)
    assert torch.load(best_path(tmp_path)) == {"epoch": 1}
