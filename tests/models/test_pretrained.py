"""Weights load whole or not at all, and the report says what happened."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from timesformer.models.pretrained import load_weights, read_file
from timesformer.models.vit import TimeSformer
from timesformer.utils.errors import CheckpointError

VIDEO = b"RIFF\x10\x27\0\0AVI LIST" + bytes(64)
SMALL = {"img_size": 16, "patch_size": 8, "num_classes": 5, "num_frames": 3}
SMALL |= {"embed_dim": 24, "depth": 1, "num_heads": 2}


def weights() -> dict[str, Tensor]:
    return {name: torch.randn_like(tensor) for name, tensor in TimeSformer(**SMALL).state_dict().items()}


@pytest.mark.parametrize("wrapper", [None, "model_state", "model", "state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "module.model.", "model."])
def test_wrappers_and_prefixes(tmp_path: Path, wrapper: str | None, prefix: str) -> None:
    state = weights()
    saved = {prefix + name.removeprefix("model."): tensor for name, tensor in state.items()}
    torch.save({wrapper: saved, "epoch": 3, "cfg": "text"} if wrapper else saved, tmp_path / "w.pyth")
    model = TimeSformer(**SMALL, pretrained_model=str(tmp_path / "w.pyth"))
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert f"{len(state)} of {len(state)} tensors loaded" in model.pretrained_report


def test_safetensors_and_a_head_of_another_size(tmp_path: Path) -> None:
    state = weights()
    save_file(state, tmp_path / "w.safetensors")
    model = TimeSformer(**SMALL | {"num_classes": 7})
    head = model.model.head.weight.detach().clone()
    report = load_weights(model, str(tmp_path / "w.safetensors"))
    with pytest.raises(CheckpointError, match="head.weight 5x24, the model has 7x24"):
        load_weights(model, str(tmp_path / "w.safetensors"), new_head=False)
    assert "5 classes in the file, 7 in the model" in report and "head.bias, head.weight" in report
    assert torch.equal(model.model.head.weight, head)
    assert torch.equal(model.model.pos_embed, state["model.pos_embed"])


def test_anything_else_that_differs_is_listed_and_nothing_is_loaded(tmp_path: Path) -> None:
    state = weights()
    state["model.extra"] = state.pop("model.norm.weight")
    state["model.time_embed"] = torch.zeros(1, 8, 24)
    torch.save(state, tmp_path / "w.pt")
    model = TimeSformer(**SMALL)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        load_weights(model, str(tmp_path / "w.pt"))
    message = str(error.value)
    assert "1 missing: norm.weight\n1 unexpected: extra\n" in message
    assert "1 of another shape: time_embed 1x8x24, the model has 1x3x24" in message
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    "name, content", [("a.pyth", b"not weights"), ("a.safetensors", b"no"), ("empty.pt", b""), ("a.avi", VIDEO)]
)
def test_files_that_are_no_weights(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match="not a file of weights that torch can read without running code"):
        load_weights(TimeSformer(**SMALL), str(tmp_path / name))


def test_a_file_that_brings_code_is_refused_without_advice_to_run_it(tmp_path: Path) -> None:
    torch.save({"model": print}, tmp_path / "w.pyth")
    with pytest.raises(CheckpointError, match=r"without running code \(UnpicklingError\)$"):
        read_file(tmp_path / "w.pyth")


def test_missing_file_and_file_without_tensors(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        load_weights(TimeSformer(**SMALL), str(tmp_path / "nowhere.pyth"))
    torch.save({"epoch": 3}, tmp_path / "w.pyth")
    with pytest.raises(CheckpointError, match="holds no tensors"):
        load_weights(TimeSformer(**SMALL), str(tmp_path / "w.pyth"))
