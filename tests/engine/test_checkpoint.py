"""Checkpoints: whole or not at all, plain values only, refused when of another run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from timesformer.config.defaults import get_cfg, set_value
from timesformer.engine import checkpoint as checkpoints
from timesformer.utils.errors import CheckpointError


def save(folder: Path, model: nn.Module, epoch: int = 0, **settings: object) -> Path:
    cfg = get_cfg()
    for name, value in settings.items():
        set_value(cfg, name.replace("__", "."), value)
    return checkpoints.save_checkpoint(
        folder,
        model=model,
        optimizer=torch.optim.AdamW(model.parameters()),
        scaler_state={},
        epoch=epoch,
        cfg=cfg,
        class_names=["a", "b"],
        metrics={"top1": 50.0},
        best_score=50.0,
        is_best=epoch == 0,
    )


def test_file_names_and_newest(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    assert checkpoints.newest_checkpoint(tmp_path) is None
    first, tenth = save(tmp_path, model), save(tmp_path, model, epoch=9)
    assert first.name == "checkpoint_epoch_00001.pyth" and tenth.name == "checkpoint_epoch_00010.pyth"
    assert checkpoints.newest_checkpoint(tmp_path) == tenth
    assert checkpoints.best_path(tmp_path).read_bytes() == first.read_bytes()
    assert not list((tmp_path / "checkpoints").glob("*.writing"))


def test_round_trip_restores_weights_and_optimiser(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    path = save(tmp_path, model)
    other = nn.Linear(2, 2)
    content = checkpoints.read_checkpoint(path)
    checkpoints.restore(content, path, model=other, optimizer=torch.optim.AdamW(other.parameters()))
    torch.testing.assert_close(other.state_dict(), model.state_dict())
    assert content["class_names"] == ["a", "b"] and content["epoch"] == 0


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, nn.Linear(2, 2))
    before = path.read_bytes()

    def full_disk(content: object, file: Path) -> None:
        Path(file).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="no space left"):
        save(tmp_path, nn.Linear(2, 2))
    assert path.read_bytes() == before


def test_code_in_a_file_is_never_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "ran"),)

    path = tmp_path / "evil.pyth"
    torch.save({"model_state": Evil()}, path, pickle_module=pickle)
    with pytest.raises(CheckpointError, match="not a file of weights that torch can read"):
        checkpoints.read_checkpoint(path)
    assert not (tmp_path / "ran").exists()


def test_unusable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        checkpoints.read_checkpoint(tmp_path / "none.pyth")
    path = save(tmp_path, nn.Linear(2, 2))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="not a file of weights that torch can read"):
        checkpoints.read_checkpoint(path)
    torch.save({"model_state": {}}, path)
    with pytest.raises(CheckpointError, match="TRAIN.FINETUNE True"):
        checkpoints.read_checkpoint(path)


def test_another_experiment_is_refused_with_the_differences(tmp_path: Path) -> None:
    path = save(tmp_path, nn.Linear(2, 2), DATA__NUM_FRAMES=16, SOLVER__MAX_EPOCH=5, OUTPUT_DIR="elsewhere")
    content = checkpoints.read_checkpoint(path)
    cfg = get_cfg()
    with pytest.raises(CheckpointError, match=r"DATA.NUM_FRAMES: 16 there, 8 here") as error:
        checkpoints.check_same_run(content, path, cfg)
    assert "MAX_EPOCH" not in str(error.value) and "OUTPUT_DIR:" not in str(error.value)
    cfg.DATA.NUM_FRAMES = 16
    checkpoints.check_same_run(content, path, cfg)


def test_settings_of_another_program_are_no_settings(tmp_path: Path) -> None:
    assert checkpoints.stored_settings({"cfg": "DATA:\n  MEAN: !!python/tuple [0.5]\n"}) == {}
    assert checkpoints.stored_settings({"cfg": "{"}) == checkpoints.stored_settings([1]) == {}
    assert checkpoints.stored_settings({"cfg": "DATA:\n  NUM_FRAMES: 8\n"}) == {"DATA.NUM_FRAMES": 8}
