"""What the tensors of a file mean: names of this project, class names, preprocessing and attention type."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from timesformer.models import hugging_face
from timesformer.models.weight_files import StoredWeights, read_source
from timesformer.utils.errors import CheckpointError
from timesformer.utils.sizes import height_width

FORMAT = 1  # of this project's checkpoints, as this version writes them
AVERAGES = ("ema_state", "model_ema", "state_dict_ema", "ema")
WRAPPERS = ("model_state", "model", "state_dict", "module")
# What DDP, torch.compile, FSDP and activation checkpointing put into the middle of names.
_WRAPPED = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_PREPROCESSING = (
    *("MEAN", "STD", "CHANNEL_ORDER", "NUM_FRAMES", "SAMPLING_RATE", "TARGET_FPS"),
    *("CROP_MODE", "TRAIN_CROP_SIZE", "TEST_CROP_SIZE"),
)
_SSV2_CLASSES = 174
_VIT_NAMES = {"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"}


@dataclass
class Weights:
    """Tensors by this project's names without prefixes ("blocks.0.attn.qkv.weight"), and what their source tells.

    Attributes:
        source: as the user named it.
        kind: for people: "TimeSformer", "image ViT", "Hugging Face TimeSformer" or "another model".
        tensors: on the CPU, as stored.
        class_names: in the order of the head's rows; empty when unknown.
        preprocessing: by the last part of the DATA keys ("MEAN", "CHANNEL_ORDER", ...), only what is known.
        attention_type: None when the source does not tell.
        num_heads: None when the source does not tell; no tensor's shape depends on it.
        grid: (rows, columns) of patches of `pos_embed`; None when the source does not tell.
        is_ema: whether these are an exponential moving average of the trained weights.
    """

    source: str
    kind: str
    tensors: dict[str, Tensor]
    class_names: list[str] = field(default_factory=list)
    preprocessing: dict[str, Any] = field(default_factory=dict)
    attention_type: str | None = None
    num_heads: int | None = None
    grid: tuple[int, int] | None = None
    is_ema: bool = False


def read_weights(source: str | Path, *, ema: bool = True) -> Weights:
    """Read weights of any kind that this project knows; the content tells the kind, never the file's name.

    Args:
        source: a file, a Hugging Face folder, "timm:NAME" or "hf:REPO_ID".
        ema: take the exponential moving average of the weights where there is one beside them.

    Raises:
        CheckpointError: unreadable (as `read_source`), of a newer version, without whole tensors, or with two tensors
            of one name.
    """
    stored = read_source(source)
    content = stored.content if isinstance(stored.content, Mapping) else {}
    if isinstance(version := content.get("format"), int) and version > FORMAT:
        raise CheckpointError(
            f"{source} was written by a newer version of timesformer: its format is {version}, and this version reads "
            f"up to {FORMAT}. Update timesformer to use it."
        )
    found, is_ema = find_tensors(content, ema=ema)
    if not found:
        raise CheckpointError(
            f"{source} holds no tensors, at the top or under {', '.join((*WRAPPERS, *AVERAGES))}. "
            "Give a file of a model's weights (its state_dict)."
        )
    tensors = _stripped(found, source)
    if _VIT_NAMES <= tensors.keys():
        tensors = _without_distillation(tensors)
        facts = _vit_facts(stored, tensors)
        video = facts["attention_type"] is not None or any("model." in name for name in found)
        kind = "TimeSformer" if video and "timm" not in stored.metadata else "image ViT"
    elif any(name.endswith("encoder.layer.0.attention.attention.qkv.weight") for name in tensors):
        kind, tensors = "Hugging Face TimeSformer", hugging_face.to_our_names(tensors)
        facts = _hugging_face_facts(stored, tensors)
    else:
        kind, facts = "another model", _common_facts(stored)
    return Weights(stored.source, kind, tensors, is_ema=is_ema, **facts)


def find_tensors(content: Mapping[str, Any], *, ema: bool) -> tuple[dict[str, Tensor], bool]:
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


def stored_settings(content: object) -> dict[str, Any]:
    """Dotted key to value of the configuration stored in a checkpoint; empty when there is none of plain values."""
    text = content.get("cfg") if isinstance(content, Mapping) else None
    try:
        tree = yaml.safe_load(text) if isinstance(text, str) else None
    except yaml.YAMLError:  # another program's checkpoint
        tree = None
    return flat_settings(tree) if isinstance(tree, Mapping) else {}


def flat_settings(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key to value of a tree of settings."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= flat_settings(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def strip_prefixes(name: str) -> str:
    """A tensor's name without what wrappers put into it and without a leading `model.` or `backbone.`."""
    parts = [part for part in name.split(".") if part not in _WRAPPED]
    return re.sub(r"^((model|backbone)\.)+", "", ".".join(parts))


def attention_type_of(names: Mapping[str, Tensor]) -> str | None:
    """The attention type that tensors show; None for those of an image ViT, which are those of space-only attention."""
    if "blocks.0.temporal_attn.qkv.weight" in names:
        return "divided_space_time"
    return "joint_space_time" if "time_embed" in names else None


def _stripped(tensors: Mapping[str, Tensor], source: str | Path) -> dict[str, Tensor]:
    by_name: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if type(tensor) not in (Tensor, nn.Parameter) or name.endswith("flat_param"):
            raise CheckpointError(
                f"{source}: {name} is one process's part of a tensor ({type(tensor).__name__}). "
                "Save the full state dict of the sharded model, and give that file."
            )
        if by_name.setdefault(strip_prefixes(name), tensor) is not tensor:
            raise CheckpointError(
                f"{source} holds two tensors called {strip_prefixes(name)}, apart from the prefixes of wrappers. "
                "Save the state dict of one model only."
            )
    return by_name


def _without_distillation(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A DeiT without its distillation token: `pos_embed` is (1, 2 + N, D), the rows cls, distillation, patches."""
    if "dist_token" not in tensors:
        return tensors
    position = tensors["pos_embed"]
    tensors = tensors | {"pos_embed": torch.cat([position[:, :1], position[:, 2:]], dim=1)}
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(("dist_token", "head_dist."))}


def _common_facts(stored: StoredWeights) -> dict[str, Any]:
    """Class names and preprocessing that stand beside the tensors: fields of `Weights`."""
    content = stored.content if isinstance(stored.content, Mapping) else {}
    told = stored.metadata.get("timesformer", content)
    names, fed = told.get("class_names"), told.get("preprocessing")
    return {
        "class_names": list(names) if isinstance(names, (list, tuple)) else [],
        "preprocessing": dict(fed) if fed and isinstance(fed, Mapping) else _fed_in_training(stored_settings(content)),
    }


def _vit_facts(stored: StoredWeights, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """What a ViT of this project, of the original or of timm tells besides its tensors: fields of `Weights`."""
    facts = _common_facts(stored)
    told, settings = stored.metadata.get("timesformer", {}), stored_settings(stored.content)
    attention_type = attention_type_of(tensors) or told.get(
        "attention_type", settings.get("TIMESFORMER.ATTENTION_TYPE")
    )
    num_heads = told.get("num_heads", settings.get("TIMESFORMER.NUM_HEADS", "auto"))
    if num_heads == "auto":  # that is 64 columns a head, as in the original; of a width of one's own it is not known
        width, own_width = tensors["cls_token"].shape[2], settings.get("TIMESFORMER.EMBED_DIM", "auto") != "auto"
        num_heads = width // 64 if settings and not own_width and width % 64 == 0 else None
    if timm := stored.metadata.get("timm"):
        known = {key: list(timm[key.lower()]) for key in ("MEAN", "STD") if timm.get(key.lower())}
        facts["preprocessing"] = known | {"CHANNEL_ORDER": "rgb"}
    elif attention_type and not facts["preprocessing"] and len(tensors.get("head.bias", ())) == _SSV2_CLASSES:
        facts["preprocessing"] = {"CHANNEL_ORDER": "bgr"}  # a released SSv2 model without its configuration
    grid = told.get("grid") or _grid(tensors, settings.get("DATA.TRAIN_CROP_SIZE"))
    return facts | {
        "attention_type": attention_type,
        "num_heads": num_heads,
        "grid": tuple(grid) if grid else None,
    }


def _hugging_face_facts(stored: StoredWeights, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the files beside a Hugging Face TimeSformer's tensors tell: fields of `Weights`."""
    config = stored.metadata.get("config.json")
    sizes = hugging_face.sizes_from_config(config) if config else {}
    files = ("preprocessor_config.json", "video_preprocessor_config.json")
    preprocessing: dict[str, Any] = next((stored.metadata[name] for name in files if name in stored.metadata), {})
    frames = {"NUM_FRAMES": sizes["num_frames"]} if sizes else {}
    # the released SSv2 model is fed BGR, and a folder made of it keeps its weights and says nothing of it
    frames["CHANNEL_ORDER"] = "bgr" if len(tensors.get("head.bias", ())) == _SSV2_CLASSES else "rgb"
    return {
        "class_names": sizes.get("class_names", []),
        "preprocessing": frames | hugging_face.preprocessing_from(preprocessing),
        "attention_type": attention_type_of(tensors) or sizes.get("attention_type"),
        "num_heads": sizes.get("num_heads"),
        "grid": _grid(tensors, sizes.get("image_size")),
    }


def _fed_in_training(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Preprocessing by a stored configuration. The original's have no CHANNEL_ORDER: its SSv2 models are fed BGR."""
    fed = {key: settings[f"DATA.{key}"] for key in _PREPROCESSING if f"DATA.{key}" in settings}
    if "TRAIN.DATASET" in settings:
        fed.setdefault("CHANNEL_ORDER", "bgr" if str(settings["TRAIN.DATASET"]).lower() == "ssv2" else "rgb")
    return fed


def _grid(tensors: Mapping[str, Tensor], size: Any) -> tuple[int, int] | None:
    """(rows, columns) of the patches of a picture of `size` pixels, None where `pos_embed` is not of so many."""
    if size is None or not _VIT_NAMES <= tensors.keys():
        return None
    height, width = (side // tensors["patch_embed.proj.weight"].shape[-1] for side in height_width(size))
    return (height, width) if 1 + height * width == tensors["pos_embed"].shape[1] else None
