"""The command says what it read and what it wrote, and ends with one sentence when it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from timesformer.cli import convert
from timesformer.models.vit import TimeSformer
from timesformer.weights.layouts import read_weights
from timesformer.weights.save import FORMATS


def saved(path: Path, attention_type: str = "divided_space_time") -> dict[str, torch.Tensor]:
    """A checkpoint of a model 128 wide, with an average of its weights that is zero everywhere."""
    sizes = {"img_size": 16, "patch_size": 8, "num_classes": 3, "num_frames": 2, "embed_dim": 128, "depth": 1}
    state = TimeSformer(**sizes, num_heads=2, attention_type=attention_type).state_dict()
    average = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    torch.save({"format": 1, "model_state": state, "ema_state": average, "class_names": ["a", "b", "c"]}, path)
    return state


def test_it_says_what_it_read_and_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = saved(tmp_path / "in.pyth")
    assert convert.main([str(tmp_path / "in.pyth"), str(tmp_path / "hf"), "--to", "hf", "--no-ema"]) == 0
    first, second, *rest = capsys.readouterr().out.splitlines()
    assert first == f"read {tmp_path / 'in.pyth'}: TimeSformer, {len(state)} tensors"
    assert second.startswith(f"wrote {tmp_path / 'hf'}: {len(state)} tensors (") and second.endswith("3 class names")
    assert rest[0].startswith("attention heads: 2, 64 channels each")

    assert convert.main([str(tmp_path / "hf"), str(tmp_path / "back.pyth"), "--to", "pyth"]) == 0
    assert "Hugging Face TimeSformer" in capsys.readouterr().out
    back = torch.load(tmp_path / "back.pyth", weights_only=True)
    assert back["model_state"].keys() == state.keys() and back["class_names"] == ["a", "b", "c"]
    assert all(torch.equal(tensor, state[name]) for name, tensor in back["model_state"].items())


def test_the_average_is_the_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path / "in.pyth")
    out = tmp_path / "out.safetensors"
    words = [str(tmp_path / "in.pyth"), str(out), "--to", "safetensors", "--num-heads", "4"]
    assert convert.main(words) == 0
    assert "moving average" in capsys.readouterr().out.splitlines()[0]
    found = read_weights(out)
    assert found.num_heads == 4 and not any(tensor.any() for tensor in found.tensors.values())


def test_an_error_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path / "in.pyth", "space_only")
    assert convert.main([str(tmp_path / "in.pyth"), str(tmp_path / "hf"), "--to", "hf"]) == 1
    assert (
        "error: " in (message := capsys.readouterr().err)
        and "--to safetensors" in message
        and "Traceback" not in message
    )
    assert not (tmp_path / "hf").exists()
    assert convert.main([str(tmp_path / "none.pyth"), str(tmp_path / "hf"), "--to", "hf"]) == 1
    assert "none.pyth" in capsys.readouterr().err


def test_every_format_is_offered() -> None:
    assert convert.FORMATS == tuple(FORMATS)
