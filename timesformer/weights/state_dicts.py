"""State dicts as training programs save them: the tensors inside wrappers, their plain names, and what they show."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from timesformer.utils.errors import CheckpointError

AVERAGES = ("ema_state", "model_ema", "state_dict_ema", "ema")
WRAPPERS = ("model_state", "model", "state_dict", "module")
WEIGHT_TYPES = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
# What DDP, torch.compile, FSDP and activation checkpointing put into the middle of names.
_WRAPPED = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# A vision transformer has these tensors, of so many dimensions.
_VIT = {"patch_embed.proj.weight": 4, "pos_embed": 3, "blocks.0.attn.qkv.weight": 2, "blocks.0.mlp.fc1.weight": 2}


def find_tensors(content: Mapping[Any, Any], *, ema: bool) -> tuple[dict[Any, Tensor], bool]:
    """The tensors inside the wrappers of training frameworks, and whether they are an average of the weights.

    Args:
        content: what a file holds.
        ema: prefer the average; without it the average is taken only where nothing else is.
    """
    for key in (*AVERAGES, *WRAPPERS) if ema else (*WRAPPERS, *AVERAGES):
        if isinstance(inner := content.get(key), Mapping):
            tensors, is_average = find_tensors(inner, ema=ema)
            if tensors:
                return tensors, is_average or key in AVERAGES
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}, False


def strip_prefixes(name: str) -> str:
    """A tensor's name without what wrappers put into it and without a leading `model.` or `backbone.`."""
    parts = [part for part in name.split(".") if part not in _WRAPPED]
    return re.sub(r"^((model|backbone)\.)+", "", ".".join(parts))


def plain_tensors(tensors: Mapping[Any, Tensor], source: str | Path) -> dict[str, Tensor]:
    """The tensors by their names without prefixes.

    Raises:
        CheckpointError: a tensor that is not whole or holds no finite numbers, or two of one name.
    """
    by_name: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not isinstance(name, str):
            raise CheckpointError(
                f"{source} holds a tensor under {name!r}, which is no name. Give a model's state_dict, whose keys are "
                "names such as blocks.0.attn.qkv.weight."
            )
        if type(tensor) not in (Tensor, nn.Parameter) or name.endswith("flat_param"):
            raise CheckpointError(
                f"{source}: {name} is one process's part of a model ({type(tensor).__name__}). "
                "Save the full state dict, and give that file."
            )
        if fault := _fault(tensor):
            raise CheckpointError(f"{source}: {name} {fault}, so it cannot be weights. Nothing was loaded.")
        if by_name.setdefault(strip_prefixes(name), tensor) is not tensor:
            raise CheckpointError(
                f"{source} holds two tensors called {strip_prefixes(name)}, apart from the prefixes of wrappers. "
                "Save the state dict of one model only."
            )
    return by_name


def attention_type_of(names: Mapping[str, Tensor]) -> str | None:
    """The attention type that tensors show; None for those of an image ViT, which are those of space-only attention."""
    for layer, attention_type in (
        ("height_attn", "axial"),
        ("local_attn", "sparse_local_global"),
        ("temporal_attn", "divided_space_time"),
    ):
        if f"blocks.0.{layer}.qkv.weight" in names:
            return attention_type
    return "joint_space_time" if "time_embed" in names else None


def vit_sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """What tensors show of the arguments of `VisionTransformer`; {} where they are not those of a vision transformer.

    No tensor shows the number of heads, nor the rows and columns of patches.
    """
    shapes = {name: tensors[name].shape for name in _VIT if name in tensors}
    if any(name not in shapes or len(shapes[name]) != ndim or 0 in shapes[name] for name, ndim in _VIT.items()):
        return {}
    embed_dim, in_chans, _, patch_size = tensors["patch_embed.proj.weight"].shape
    hidden, width = tensors["blocks.0.mlp.fc1.weight"].shape
    head, time = tensors.get("head.weight"), tensors.get("time_embed")
    sizes = {
        "embed_dim": embed_dim,
        "patch_size": patch_size,
        "depth": len({name.split(".")[1] for name in tensors if name.startswith("blocks.")}),
        "mlp_ratio": hidden / width,
        "qkv_bias": "blocks.0.attn.qkv.bias" in tensors,
        "in_chans": in_chans,
        "num_classes": None if head is None or head.ndim != 2 else head.shape[0],
        "num_frames": None if time is None or time.ndim != 3 else time.shape[1],
        "attention_type": attention_type_of(tensors),
    }
    return {name: size for name, size in sizes.items() if size is not None}


def without_distillation(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A DeiT without its distillation token: `pos_embed` is (1, 2 + N, D), the rows cls, distillation, patches."""
    if "dist_token" not in tensors:
        return tensors
    position = tensors["pos_embed"]
    tensors = tensors | {"pos_embed": torch.cat([position[:, :1], position[:, 2:]], dim=1)}
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(("dist_token", "head_dist."))}


def _fault(tensor: Tensor) -> str:
    """Why a tensor cannot be weights of any model; empty when it can."""
    if tensor.is_meta:
        return "has a shape and no values (it is on the meta device)"
    if tensor.layout is not torch.strided:
        return "is a sparse tensor"
    if tensor.dtype in WEIGHT_TYPES and not bool(tensor.isfinite().all()):
        return "holds NaN or infinite values"
    return ""
