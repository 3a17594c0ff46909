"""Recognise what a source of weights holds: tensors by this project's names, and what is stated beside them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from timesformer.utils.errors import CheckpointError
from timesformer.video.clip_spec import known_fields
from timesformer.weights import hugging_face, mmaction
from timesformer.weights.sources import StoredWeights, read_source

FORMAT = 1  # of this project's checkpoints, as this version writes them
HEAD_WIDTH = 64  # channels per attention head of every released ViT and TimeSformer
WEIGHT_TYPES = {torch.float16, torch.bfloat16, torch.float32, torch.float64}

_AVERAGES = ("ema_state", "model_ema", "state_dict_ema", "ema", "teacher")
_WRAPPERS = ("model_state", "model", "state_dict", "module", "student")
_NO_WEIGHTS = re.compile(r"optim|sched|scaler|momentum|discriminator|loss|criterion", re.IGNORECASE)
_MAX_DEPTH = 4  # of the mappings in a file that are searched for tensors
# What DDP, torch.compile, FSDP and activation checkpointing put into the middle of names.
_WRAPPED = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# The tensors by which a vision transformer is recognised, with their numbers of dimensions.
_VIT = {"patch_embed.proj.weight": 4, "pos_embed": 3, "blocks.0.attn.qkv.weight": 2, "blocks.0.mlp.fc1.weight": 2}
# The layer of a block by which its attention type is recognised.
_ATTENTION_OF = {"height_attn": "axial", "local_attn": "sparse_local_global", "temporal_attn": "divided_space_time"}
FRAME_CLS = ("frame_cls_causal", "frame_cls")  # attention types with a cls token per frame, the usual one first
_SSV2_CLASSES = 174  # whose released model expects BGR
# With TIMESFORMER.NUM_HEADS auto, by MODEL.MODEL_NAME; of the others:
_AUTO_HEADS = {"LightTimeSformer": 6, "StreamTimeSformer": 3}
_USUAL_HEADS = 12
_IMAGE_VIT_WIDTHS = (192, 384, 768, 1024)  # Ti, S, B, L (ViT, DeiT), with heads of HEAD_WIDTH


@dataclass
class Weights:
    """Tensors by this project's names without prefixes ("blocks.0.attn.qkv.weight"), and what their source says."""

    source: str  # as the user named it
    kind: str  # "TimeSformer", "image ViT", "Hugging Face TimeSformer" or "another network, by its own names"
    tensors: dict[str, Tensor]  # on the CPU, as stored
    class_names: list[str] = field(default_factory=list)  # in the order of the head's rows; empty: unknown
    clip: dict[str, Any] = field(default_factory=dict)  # the fields of a `ClipSpec` that are known
    attention_type: str | None = None  # None: unknown, as of the two below
    num_heads: int | None = None  # no tensor's shape depends on it
    grid: tuple[int, int] | None = None  # (rows, columns) of patches, as stated; see `grid_of`
    is_ema: bool = False  # an exponential moving average of the trained weights
    has_ema: bool = False  # the source holds such an average besides these
    settings: dict[str, Any] = field(default_factory=dict)  # of the stored configuration, by dotted key
    notes: list[str] = field(default_factory=list)  # how the tensors were found where that is not evident
    calibration: object = None  # of the scores, as stored
    kernels: dict[str, Any] = field(default_factory=dict)  # forms that the training computed with: `models/kernels.py`


def read_weights(source: str | Path, *, ema: bool = True) -> Weights:
    """Read weights of any kind that this project knows, recognised by content and never by the file's name.

    Args:
        source: a file, a Hugging Face folder, "timm:NAME" or "hf:REPO_ID".
        ema: prefer the exponential moving average of the weights where the source holds both.

    Raises:
        CheckpointError: unreadable, written by a newer version, without tensors, or with some that cannot be weights.
    """
    stored = read_source(source)
    content = stored.content if isinstance(stored.content, Mapping) else {}
    check_format(content, source)
    found, is_ema, key = _find_tensors(content, ema=ema)
    if not found:
        keys = ", ".join(map(repr, list(content)[:20])) or f"none: it is of type {type(stored.content).__name__}"
        raise CheckpointError(
            f"{source} holds no tensors, at the top or in a mapping such as {', '.join((*_WRAPPERS, *_AVERAGES))}. "
            f"Its keys are {keys}. Give a file of a model's weights (its state_dict)."
        )
    weights = Weights(stored.source, "another network, by its own names", _plain_tensors(found, source))
    if key:
        weights.notes.append(f"the weights were found under {key!r}")
    _strip_common_prefix(weights)
    beside: Mapping[str, Any] = stored.metadata.get("timesformer", content)
    weights.is_ema = is_ema or beside.get("is_ema") is True
    weights.has_ema = not ema and not is_ema and _find_tensors(content, ema=True)[1]
    if mmaction.is_mmaction(weights.tensors):
        weights.tensors = mmaction.to_our_names(weights.tensors)
        weights.notes.append("names of mmaction2's TimeSformer")
    if any(name.endswith("encoder.layer.0.attention.attention.qkv.weight") for name in weights.tensors):
        _describe_hugging_face(weights, stored)
        return weights
    weights.settings = settings = stored_settings(content)
    weights.calibration = beside.get("calibration")
    weights.kernels = {name: entry for name, entry in beside.items() if name.endswith("_kernels")}
    weights.class_names, weights.clip = _class_names(beside.get("class_names")), _clip(beside, settings)
    if vit_sizes(weights.tensors):
        is_video = attention_type_of(weights.tensors) is not None or any("model." in name for name in found)
        weights.kind = "TimeSformer" if is_video and "timm" not in stored.metadata else "image ViT"
        _describe_vit(weights, beside, settings, stored.metadata.get("timm", {}))
    return weights


def check_format(content: object, source: str | Path) -> None:
    """Raise a CheckpointError for what a newer version of this project wrote, by the number under `format`."""
    version = content.get("format") if isinstance(content, Mapping) else None
    if isinstance(version, int) and version > FORMAT:  # another program's is no number
        raise CheckpointError(
            f"{source} was written by a newer version of timesformer: its format is {version}, and this version reads "
            f"up to {FORMAT}. Update timesformer to use it."
        )


def stored_settings(content: object) -> dict[str, Any]:
    """Dotted key to value of the configuration stored in a checkpoint; empty when there is none of plain values."""

    def flat(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in tree.items():
            found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
        return found

    text = content.get("cfg") if isinstance(content, Mapping) else None
    try:
        tree = yaml.safe_load(text) if isinstance(text, str) else None
        return flat(tree, "") if isinstance(tree, Mapping) else {}
    except (yaml.YAMLError, ValueError, RecursionError):  # another program's checkpoint
        return {}


def strip_prefixes(name: str) -> str:
    """A tensor's name without what wrappers put into it and without a leading `model.` or `backbone.`."""
    parts = [part for part in name.split(".") if part not in _WRAPPED]
    return re.sub(r"^((model|backbone)\.)+", "", ".".join(parts))


def vit_sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of `VisionTransformer` that tensors show; {} where they are not those of a vision transformer.

    No tensor shows the number of heads, nor the rows and columns of patches.
    """
    shapes = {name: tensors[name].shape for name in _VIT if name in tensors}
    if any(name not in shapes or len(shapes[name]) != ndim or 0 in shapes[name] for name, ndim in _VIT.items()):
        return {}
    embed_dim, in_chans, _, patch_size = shapes["patch_embed.proj.weight"]
    hidden, width = shapes["blocks.0.mlp.fc1.weight"]
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


def attention_type_of(names: Mapping[str, Tensor]) -> str | None:
    """The attention type that tensors show; None for those of an image ViT, which are those of space-only attention."""
    if "blocks.0.temporal_attn.qkv.weight" in names and "blocks.0.temporal_fc.weight" not in names:
        return FRAME_CLS[0]  # or the other: no tensor shows whether attention is causal
    shown = (kind for layer, kind in _ATTENTION_OF.items() if f"blocks.0.{layer}.qkv.weight" in names)
    return next(shown, "joint_space_time" if "time_embed" in names else None)


def grid_of(weights: Weights, default: tuple[int, int] | None = None) -> tuple[int, int] | None:
    """(rows, columns) of the weights' `pos_embed`: as stated, else a square, else `default`; None where none fits."""
    position = weights.tensors.get("pos_embed")
    if position is None or position.ndim != 3 or position.shape[1] < 2:
        return None
    num_patches = position.shape[1] - 1
    grids = (weights.grid, (math.isqrt(num_patches),) * 2, default)
    return next((grid for grid in grids if grid and math.prod(grid) == num_patches), None)


def transformer_arguments(weights: Weights) -> dict[str, Any]:
    """Arguments of `TimeSformer` as far as the source shows or states them; {} for weights of another model."""
    sizes, grid = vit_sizes(weights.tensors), grid_of(weights)
    if sizes and grid:
        sizes["img_size"] = (grid[0] * sizes["patch_size"], grid[1] * sizes["patch_size"])
    stated = {"num_heads": weights.num_heads, "attention_type": weights.attention_type} if sizes else {}
    return sizes | {name: value for name, value in stated.items() if value is not None}


def _find_tensors(content: Mapping[Any, Any], *, ema: bool) -> tuple[dict[Any, Tensor], bool, str]:
    """The tensors inside the wrappers of training programs, whether they are an average of the weights, and their key.

    Without a usual name around them, they are those of the mapping that holds most, and only then there is a key.
    """
    for key in (*_AVERAGES, *_WRAPPERS) if ema else (*_WRAPPERS, *_AVERAGES):
        if isinstance(inner := content.get(key), Mapping):
            tensors, is_average, inside = _find_tensors(inner, ema=ema)
            if tensors:
                return tensors, is_average or key in _AVERAGES, f"{key}.{inside}" if inside else ""
    found = dict(_mappings(content, "", _MAX_DEPTH))
    sizes = {key: sum(tensor.numel() for tensor in tensors.values()) for key, tensors in found.items()}
    key = max(sizes, key=lambda key: sizes[key], default="")  # the outermost of several equal ones
    return found.get(key, {}), False, key


def _mappings(content: Mapping[Any, Any], key: str, depth: int) -> Iterator[tuple[str, dict[Any, Tensor]]]:
    """Dotted key and tensors of each mapping that holds some, the outermost first; those of optimisers left out."""
    if tensors := {name: value for name, value in content.items() if isinstance(value, Tensor)}:
        yield key, tensors
    for name, inner in content.items():
        if depth and isinstance(name, str) and isinstance(inner, Mapping) and not _NO_WEIGHTS.search(name):
            yield from _mappings(inner, f"{key}.{name}" if key else name, depth - 1)


def _strip_common_prefix(weights: Weights) -> None:
    """Strip what the names of a ViT's tensors begin with where another program put it inside a larger model.

    Raises:
        CheckpointError: the tensors are those of several such models.
    """
    if any(name in weights.tensors for name in _VIT):
        return
    marker = next(name for name, ndim in _VIT.items() if ndim == 3)  # of every ViT, whatever its blocks
    ends = [name.removesuffix(marker) for name in weights.tensors if name.endswith(f".{marker}")]
    prefixes = [prefix for prefix in ends if any(prefix + name in weights.tensors for name in _VIT if name != marker)]
    if len(prefixes) > 1:
        raise CheckpointError(
            f"{weights.source} holds several models, by the prefixes {', '.join(prefixes)}. Save the state dict of one."
        )
    for prefix in prefixes:
        weights.tensors = {name.removeprefix(prefix): tensor for name, tensor in weights.tensors.items()}
        weights.notes.append(f"the prefix {prefix!r} was stripped from the names")


def _plain_tensors(tensors: Mapping[Any, Tensor], source: str | Path) -> dict[str, Tensor]:
    """The tensors by their names without prefixes; an error for one that cannot be weights, or for two of one name."""
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
        fault = "has a shape and no values (it is on the meta device)" if tensor.is_meta else ""
        if not fault and tensor.layout is not torch.strided:
            fault = "is a sparse tensor"
        if not fault and tensor.dtype in WEIGHT_TYPES and not bool(tensor.isfinite().all()):
            fault = "holds NaN or infinite values"
        if fault:
            raise CheckpointError(f"{source}: {name} {fault}, so it cannot be weights. Nothing was loaded.")
        if by_name.setdefault(strip_prefixes(name), tensor) is not tensor:
            raise CheckpointError(
                f"{source} holds two tensors called {strip_prefixes(name)}, apart from the prefixes of wrappers. "
                "Save the state dict of one model only."
            )
    return by_name


def _class_names(stored: object) -> list[str]:
    """Class names as stored; none where another program means something else by the key."""
    is_list = isinstance(stored, (list, tuple)) and all(isinstance(name, str) for name in stored)
    return list(stored) if is_list else []  # type: ignore[call-overload]


def _clip(beside: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Known fields of a `ClipSpec`, as stated beside the tensors or by the stored configuration."""
    clip = beside.get("preprocessing")
    if not isinstance(clip, Mapping) or not clip:
        clip = {key.removeprefix("DATA."): value for key, value in settings.items() if key.startswith("DATA.")}
        if "TRAIN.DATASET" in settings:  # the original has no CHANNEL_ORDER, and its SSv2 models expect BGR
            clip.setdefault("CHANNEL_ORDER", "bgr" if str(settings["TRAIN.DATASET"]).lower() == "ssv2" else "rgb")
    return known_fields(clip)


def _describe_vit(weights: Weights, beside: Mapping[str, Any], settings: dict[str, Any], timm: dict[str, Any]) -> None:
    """Fill in what a ViT of this project, of the original or of timm shows or states; without a DeiT's second token."""
    tensors = weights.tensors
    if "dist_token" in tensors:  # then `pos_embed` is (1, 2 + N, D): cls, distillation, patches
        tensors["pos_embed"] = torch.cat([tensors["pos_embed"][:, :1], tensors["pos_embed"][:, 2:]], dim=1)
        for name in [name for name in tensors if name.startswith(("dist_token", "head_dist."))]:
            del tensors[name]
    sizes, width = vit_sizes(tensors), vit_sizes(tensors)["embed_dim"]
    stated = (attention_type_of(tensors), beside.get("attention_type"), settings.get("TIMESFORMER.ATTENTION_TYPE"))
    if stated[0] == FRAME_CLS[0]:
        stated = (*(each for each in stated[1:] if each in FRAME_CLS), stated[0])
    weights.attention_type = next((each for each in stated if isinstance(each, str)), None)
    counts = (beside.get("num_heads"), settings.get("TIMESFORMER.NUM_HEADS"), timm.get("num_heads"))
    weights.num_heads = next((count for count in counts if type(count) is int and count > 0), None)
    if weights.num_heads is None and "MODEL.MODEL_NAME" in settings:
        usual = _AUTO_HEADS.get(str(settings["MODEL.MODEL_NAME"]), _USUAL_HEADS)
        weights.num_heads = usual if width % usual == 0 else None
    elif weights.num_heads is None and weights.kind == "image ViT" and width in _IMAGE_VIT_WIDTHS:
        weights.num_heads = width // HEAD_WIDTH
    weights.grid = _grid(beside.get("grid"), 1) or _grid(settings.get("DATA.TRAIN_CROP_SIZE"), sizes["patch_size"])
    if timm:
        weights.clip = known_fields({"mean": timm.get("mean"), "std": timm.get("std"), "channel_order": "rgb"})
    elif weights.attention_type and not weights.clip and sizes.get("num_classes") == _SSV2_CLASSES:
        weights.clip = {"channel_order": "bgr"}  # a released SSv2 model without its configuration


def _describe_hugging_face(weights: Weights, stored: StoredWeights) -> None:
    """Fill in what a Hugging Face TimeSformer and the files beside its tensors show or state, by our names."""
    weights.kind, weights.tensors = "Hugging Face TimeSformer", hugging_face.to_our_names(weights.tensors)
    config = stored.metadata.get("config.json")
    try:
        sizes = hugging_face.sizes_from_config(config) if config else {}
        clip = hugging_face.preprocessing_from(stored.metadata.get("preprocessor_config.json", {}))
        if odd := [key for key in ("num_heads", "num_frames") if sizes and not isinstance(sizes[key], int)]:
            raise ValueError(f"{odd[0]} is {sizes[odd[0]]!r}")
    except (TypeError, ValueError, AttributeError, LookupError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"{stored.source}: config.json or preprocessor_config.json has a value of another form than transformers "
            f"writes ({error}). Save the model and its processor again with save_pretrained."
        ) from error
    # the released SSv2 model expects BGR, and a folder made of it keeps its weights and does not say so
    order = "bgr" if vit_sizes(weights.tensors).get("num_classes") == _SSV2_CLASSES else "rgb"
    weights.clip = known_fields({"channel_order": order, "num_frames": sizes.get("num_frames")} | clip)
    weights.class_names, weights.num_heads = sizes.get("class_names", []), sizes.get("num_heads")
    weights.attention_type = attention_type_of(weights.tensors) or sizes.get("attention_type")
    weights.grid = _grid(sizes.get("image_size"), sizes.get("patch_size"))


def _grid(size: object, patch_size: int | None) -> tuple[int, int] | None:
    """(rows, columns) of the patches of an image of a stored `size`, one number or two; None of anything else."""
    sides = known_fields({"size": size}).get("size")
    return (sides[0] // patch_size, sides[1] // patch_size) if sides and patch_size else None
