"""Names of the tensors of mmaction2's TimeSformer, and of this project's; facts of its state dicts."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_LAYER = "transformer_layers.layers.0."
# What the tensors of a layer begin with, there and here; by the first attention of a divided layer, and of others.
_MLP = {"ffns.0.layers.0.0.": "mlp.fc1.", "ffns.0.layers.1.": "mlp.fc2."}
_DIVIDED = {
    "attentions.0.norm.": "temporal_norm1.",
    "attentions.0.attn.": "temporal_attn.",
    "attentions.0.temporal_fc.": "temporal_fc.",
    "attentions.1.norm.": "norm1.",
    "attentions.1.attn.": "attn.",
    "ffns.0.norm.": "norm2.",
    **_MLP,
}
_OTHER = {"norms.0.": "norm1.", "attentions.0.attn.": "attn.", "norms.1.": "norm2.", **_MLP}
_OUTSIDE = {"patch_embed.projection.": "patch_embed.proj.", "cls_head.fc_cls.": "head."}
_ATTENTION = {"in_proj_weight": "qkv.weight", "in_proj_bias": "qkv.bias", "out_proj.": "proj."}


def is_mmaction(names: Mapping[str, Tensor]) -> bool:
    """Whether the tensors are those of mmaction2's TimeSformer, without the prefix `backbone.`."""
    return f"{_LAYER}attentions.0.attn.in_proj_weight" in names and "patch_embed.projection.weight" in names


def to_our_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors by this project's names; names of neither stay as they are."""
    divided = f"{_LAYER}attentions.0.temporal_fc.weight" in tensors
    layers = _DIVIDED if divided else _OTHER
    return {_our_name(name, layers): tensor for name, tensor in tensors.items()}


def _our_name(name: str, layers: Mapping[str, str]) -> str:
    match = re.fullmatch(r"transformer_layers\.layers\.(\d+)\.(.+)", name)
    prefix, rest, table = (f"blocks.{match[1]}.", match[2], layers) if match else ("", name, _OUTSIDE)
    start = next((start for start in table if rest.startswith(start)), None)
    if start is None:
        return name
    end = rest.removeprefix(start)
    for theirs, ours in _ATTENTION.items():
        end = re.sub(rf"^{re.escape(theirs)}", ours, end)
    return prefix + table[start] + end
