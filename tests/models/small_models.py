"""Small models with random weights, and files of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from timesformer.models.vit import TimeSformer
from timesformer.utils.errors import CheckpointError
from timesformer.weights.load import load_weights
from timesformer.weights.sources import read_source

SMALL: dict[str, Any] = {"img_size": 32, "patch_size": 8, "num_classes": 5, "num_frames": 4}
SMALL |= {"embed_dim": 24, "depth": 2, "num_heads": 2}
DIVIDED, JOINT, SPACE = "divided_space_time", "joint_space_time", "space_only"


def small(attention_type: str = DIVIDED, **sizes: Any) -> TimeSformer:
    """A small model whose every parameter is random."""
    model = TimeSformer(**SMALL | {"attention_type": attention_type} | sizes)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


def one_after_the_other(
    self: nn.Module, x: Tensor, first: nn.Linear, second: nn.Linear, *, dropout: nn.Dropout, drop_path: nn.Module
) -> Tensor:
    """What `FoldedLinears.forward` stands for."""
    return second(drop_path(dropout(first(x))))


def copy_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def saved(tmp_path: Path, model: nn.Module, **beside: Any) -> Path:
    torch.save({"model_state": model.state_dict(), **beside}, tmp_path / "w.pyth")
    return tmp_path / "w.pyth"


def image_vit(tmp_path: Path, **sizes: Any) -> tuple[Path, dict[str, Tensor]]:
    """A file of a bare ViT for pictures, as timm's are."""
    tensors = small(SPACE, **sizes).model.state_dict()
    torch.save(tensors, tmp_path / "vit.pth")
    return tmp_path / "vit.pth", tensors


def equal(model: nn.Module, state: dict[str, Tensor]) -> bool:
    own = model.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[name], state[name]) for name in own)


def refused(model: nn.Module, source: Path, **how: bool) -> str:
    """The error's text; nothing may have changed."""
    before = copy_of(model)
    with pytest.raises(CheckpointError) as error:
        load_weights(model, source, **how)
    assert equal(model, before), "half-loaded"
    return str(error.value)


def tensors() -> dict[str, Tensor]:
    return {"norm.weight": torch.randn(300), "head.bias": torch.randn(7)}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def refusal(source: str | Path) -> str:
    """What the one error says, apart from the path."""
    with pytest.raises(CheckpointError) as error:
        read_source(source)
    message = str(error.value)
    assert message.startswith(str(source)) and "\n" not in message
    assert "weights_only" not in message  # torch's advice is to run what is in the file
    return message.removeprefix(str(source))
