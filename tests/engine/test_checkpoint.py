"""Checkpoints: their names and order, plain values only, what makes them another run's, damaged ones passed over."""

from __future__ import annotations

import logging
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from timesformer.config.defaults import get_cfg, set_value
from timesformer.engine import checkpoint as checkpoints
from timesformer.engine.checkpoint import Position
from timesformer.engine.checkpoint_writer import CheckpointWriter
from timesformer.utils.errors import CheckpointError
from timesformer.weights import files

LISTS = {
    "train": "sha256 0123456789ab, 24 videos, class:count 0:12 1:12",
    "val": "sha256 99, 2 videos, class:count 0:2",
}


def state(model: nn.Module, position: Position, **settings: object) -> dict[str, Any]:
    cfg = get_cfg()
    for name, value in settings.items():
        set_value(cfg, name.replace("__", "."), value)
    return {
        "format": 1,
        "model_state": model.state_dict(),
        "optimizer_state": torch.optim.AdamW(model.parameters()).state_dict(),
        "epoch": position.epoch - 1,
        "step": position.step,
        "cfg": cfg.dump(),
        "dataset": LISTS,
    }


def save(folder: Path, position: Position = Position(1), *, is_best: bool = False, **settings: object) -> Path:  # noqa: B008
    with CheckpointWriter(folder) as writer:
        writer.write(state(nn.Linear(2, 2), position, **settings), position, is_best=is_best)
    return checkpoints.checkpoint_path(folder, position)


def test_names_tell_the_position_and_the_newest_is_the_furthest(tmp_path: Path) -> None:
    assert checkpoints.newest_checkpoint(tmp_path) is None and checkpoints.read_newest(tmp_path) is None
    positions = [Position(100000), Position(2, 30), Position(2, 4), Position(2), Position(0, 7)]
    paths = [save(tmp_path, position, is_best=position == Position(2)) for position in reversed(positions)][::-1]
    assert paths[3].name == "checkpoint_epoch_00002.pyth"  # as the original names them
    assert paths[1].name == "checkpoint_epoch_00002_step_000030.pyth"
    (tmp_path / "checkpoints/checkpoint_epoch_mine.pyth").touch()
    assert checkpoints.list_checkpoints(tmp_path) == paths
    assert [checkpoints.position_of(checkpoints.read_checkpoint(path)) for path in paths] == positions
    assert checkpoints.best_path(tmp_path).read_bytes() == paths[3].read_bytes()


def test_a_damaged_newest_checkpoint_is_reported_and_the_one_before_it_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, third = (save(tmp_path, Position(epoch)) for epoch in (1, 2, 3))
    third.write_bytes(third.read_bytes()[:-200])
    damaged = bytearray(second.read_bytes())
    damaged[len(damaged) // 2] ^= 1  # one bit
    second.write_bytes(damaged)
    with caplog.at_level(logging.WARNING):
        found = checkpoints.read_newest(tmp_path)
    assert found is not None and found[0] == first
    assert third.name in caplog.text and second.name in caplog.text and f"Going back to {first.name}" in caplog.text
    assert third.exists() and second.exists()
    assert checkpoints.read_newest(tmp_path, rename=True) is not None
    assert checkpoints.list_checkpoints(tmp_path) == [first]
    assert third.with_suffix(".damaged").exists() and second.with_suffix(".damaged").exists()  # nothing is thrown away
    first.write_bytes(b"")
    with pytest.raises(CheckpointError, match="no checkpoint of this run can be read"):
        checkpoints.read_newest(tmp_path)


@pytest.mark.parametrize("kind", ["newer", "no permission", "another program's"])
def test_only_proven_damage_is_renamed_and_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    _, newest = save(tmp_path, Position(1)), save(tmp_path, Position(2))
    if kind == "no permission":  # root may read everything
        monkeypatch.setattr(files, "_head", lambda path: b"PK\x03\x04")
        monkeypatch.setattr(files, "open", raising_permission_error, raising=False)
    else:
        content = {**state(nn.Linear(2, 2), Position(2)), "format": 99} if kind == "newer" else {"epoch": 1}
        torch.save(content, newest)
    said = {"newer": "newer version", "no permission": "Permission denied", "another program's": "not a run of this"}
    with pytest.raises(CheckpointError, match=said[kind]):
        checkpoints.read_newest(tmp_path, rename=True)
    assert newest.exists() and len(checkpoints.list_checkpoints(tmp_path)) == 2


def raising_permission_error(*_: object) -> None:
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize("damage", [b"", b"P", b"PK", bytes(600), b"PK\x03\x04", b"\x80"])
def test_other_bytes_at_the_start_or_none_are_damage(tmp_path: Path, damage: bytes) -> None:
    older, newest = save(tmp_path, Position(1)), save(tmp_path, Position(2))
    newest.write_bytes(damage + newest.read_bytes()[len(damage) :] if len(damage) > 9 else damage)
    found = checkpoints.read_newest(tmp_path, rename=True)
    assert found is not None and found[0] == older and newest.with_suffix(".damaged").exists()


def test_code_in_a_file_is_never_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "ran"),)

    path = tmp_path / "evil.pyth"
    torch.save({"model_state": Evil()}, path, pickle_module=pickle)
    with pytest.raises(CheckpointError, match="mkdir"):
        checkpoints.read_checkpoint(path)
    assert not (tmp_path / "ran").exists()


def test_files_that_no_run_can_go_on_from(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        checkpoints.read_checkpoint(tmp_path / "none.pyth")
    path = tmp_path / "w.pyth"
    torch.save({"model_state": {}, "optimizer_state": {}, "epoch": 15, "cfg": ""}, path)  # as released
    with pytest.raises(
        CheckpointError, match=r"not a run of this project \(format, step missing\).*TRAIN.FINETUNE True"
    ):
        checkpoints.read_checkpoint(path)
    torch.save({**state(nn.Linear(2, 2), Position(1)), "format": 99}, path)
    with pytest.raises(CheckpointError, match="newer version of timesformer: its format is 99.*Update"):
        checkpoints.read_checkpoint(path)


def test_defect_17_another_run_is_refused_with_the_differences(tmp_path: Path) -> None:
    content = checkpoints.read_checkpoint(
        save(tmp_path, DATA__NUM_FRAMES=16, SOLVER__MAX_EPOCH=5, OUTPUT_DIR="elsewhere", TRAIN__CHECKPOINT_KEEP=9)
    )
    cfg = get_cfg()
    with pytest.raises(CheckpointError) as error:
        checkpoints.check_same_run(content, "w.pyth", cfg, LISTS)
    differing = [line for line in str(error.value).splitlines() if line.startswith("  ")]
    assert differing == ["  DATA.NUM_FRAMES: 16 there, 8 here"]
    cfg.DATA.NUM_FRAMES = 16
    checkpoints.check_same_run(content, "w.pyth", cfg, LISTS)
    longer = {**LISTS, "train": "sha256 ffffffffffff, 25 videos, class:count 0:13 1:12"}
    with pytest.raises(
        CheckpointError, match=r"the train list: 24 videos \(01234567\) there, 25 videos \(ffffffff\) here"
    ):
        checkpoints.check_same_run(content, "w.pyth", cfg, longer)


def test_a_key_that_is_younger_than_the_checkpoint_counts_as_its_default(tmp_path: Path) -> None:
    content = checkpoints.read_checkpoint(save(tmp_path))
    content["cfg"] = "\n".join(line for line in content["cfg"].splitlines() if "LAYER_DECAY" not in line)
    cfg = get_cfg()
    assert checkpoints.differences(content, cfg, LISTS) == []
    cfg.SOLVER.LAYER_DECAY = 0.75
    assert checkpoints.differences(content, cfg, LISTS) == ["  SOLVER.LAYER_DECAY: 1.0 there, 0.75 here"]


def test_settings_of_another_program_are_no_settings() -> None:
    assert checkpoints.stored_settings({"cfg": "DATA:\n  MEAN: !!python/tuple [0.5]\n"}) == {}
    assert checkpoints.stored_settings({"cfg": "{"}) == checkpoints.stored_settings([1]) == {}
    assert checkpoints.stored_settings({"cfg": "DATA:\n  NUM_FRAMES: 8\n"}) == {"DATA.NUM_FRAMES": 8}
