"""mmaction2's TimeSformer, by the names that its files have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.small_models import same
from timesformer.models.vit import TimeSformer
from timesformer.weights.layouts import read_weights
from timesformer.weights.load import load_weights

SMALL: dict[str, Any] = {"img_size": 16, "patch_size": 8, "num_classes": 5, "num_frames": 3}
SMALL |= {"embed_dim": 24, "depth": 2, "num_heads": 2, "qkv_bias": True}


def in_mmaction(name: str, *, divided: bool) -> str:
    """The name that mmaction2 gives a tensor of a TimeSformer."""
    table = {
        "patch_embed.proj": "backbone.patch_embed.projection",
        "head": "cls_head.fc_cls",
        "temporal_norm1": "attentions.0.norm",
        "temporal_attn.qkv.": "attentions.0.attn.in_proj_",
        "temporal_attn.proj": "attentions.0.attn.out_proj",
        "temporal_fc": "attentions.0.temporal_fc",
        "norm1": "attentions.1.norm" if divided else "norms.0",
        "attn.qkv.": f"attentions.{int(divided)}.attn.in_proj_",
        "attn.proj": f"attentions.{int(divided)}.attn.out_proj",
        "norm2": "ffns.0.norm" if divided else "norms.1",
        "mlp.fc1": "ffns.0.layers.0.0",
        "mlp.fc2": "ffns.0.layers.1",
    }
    block = re.match(r"blocks\.(\d+)\.", name)
    prefix = f"backbone.transformer_layers.layers.{block[1]}." if block else ""
    rest = name[block.end() :] if block else name
    start = next((start for start in table if rest.startswith(start)), None)
    return f"backbone.{name}" if start is None else prefix + table[start] + rest.removeprefix(start)


@pytest.mark.parametrize("attention_type", ["divided_space_time", "joint_space_time"])
def test_mmaction2(tmp_path: Path, attention_type: str) -> None:
    torch.manual_seed(0)
    model = TimeSformer(**{**SMALL, "attention_type": attention_type}, init="scratch")
    tensors, divided = model.model.state_dict(), attention_type == "divided_space_time"
    theirs = {in_mmaction(name, divided=divided): tensor for name, tensor in tensors.items()}
    assert "backbone.transformer_layers.layers.0.attentions.0.attn.in_proj_weight" in theirs
    torch.save({"meta": {"epoch": 15}, "state_dict": theirs}, tmp_path / "timesformer.pth")
    report = load_weights(TimeSformer(**{**SMALL, "attention_type": attention_type}), tmp_path / "timesformer.pth")
    assert report.share == 1 and not report.unexpected and "mmaction2" in str(report)
    weights = read_weights(tmp_path / "timesformer.pth")
    assert same(weights.tensors, dict(tensors)) and weights.attention_type == attention_type
