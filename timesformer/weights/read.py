"""What the tensors of a file mean: names of this project, class names, preprocessing and attention type."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from timesformer.utils.errors import CheckpointError
from timesformer.weights import hugging_face
from timesformer.weights.sources import StoredWeights, read_source
from timesformer.weights.state_dicts import (
    AVERAGES,
    WRAPPERS,
    attention_type_of,
    find_tensors,
    plain_tensors,
    vit_sizes,
    without_distillation,
)

FORMAT = 1  # of this project's checkpoints, as this version writes them
# What a clip goes through before the model sees it, by the names below DATA.
PREPROCESSING = (
    *("MEAN", "STD", "CHANNEL_ORDER", "CROP_MODE", "TRAIN_JITTER_SCALES", "TRAIN_CROP_SIZE", "TEST_CROP_SIZE"),
    *("NUM_FRAMES", "SAMPLING_RATE", "TARGET_FPS"),
)
_SSV2_CLASSES = 174
_AUTO_HEADS = {"LightTimeSformer": 6}  # of MODEL.MODEL_NAME with TIMESFORMER.NUM_HEADS auto; of the others:
_USUAL_HEADS = 12
_IMAGE_VIT_WIDTHS = (192, 384, 768, 1024)  # Ti, S, B, L (ViT, DeiT): 64 columns a head


@dataclass
class Weights:
    """Tensors by this project's names without prefixes ("blocks.0.attn.qkv.weight"), and what their source tells.

    Attributes:
        source: as the user named it.
        kind: for people: "TimeSformer", "image ViT", "Hugging Face TimeSformer" or "another network,
            by its own names".
        tensors: on the CPU, as stored.
        class_names: in the order of the head's rows; empty when unknown.
        preprocessing: by the last part of the DATA keys ("MEAN", "CHANNEL_ORDER", ...), only what is known.
        attention_type: None when the source does not tell.
        num_heads: None when the source does not tell; no tensor's shape depends on it.
        grid: (rows, columns) of patches of `pos_embed`; None when the source does not tell.
        is_ema: whether these are an exponential moving average of the trained weights.
        has_ema: whether the source holds such an average beside them.
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
    has_ema: bool = False


def read_weights(source: str | Path, *, ema: bool = True) -> Weights:
    """Read weights of any kind that this project knows; the content tells the kind, never the file's name.

    Args:
        source: a file, a Hugging Face folder, "timm:NAME" or "hf:REPO_ID".
        ema: take the exponential moving average of the weights where there is one beside them.

    Raises:
        CheckpointError: unreadable (as `read_source`), of a newer version, without tensors, or with some that cannot
            be weights (as `plain_tensors`).
    """
    stored = read_source(source)
    content = stored.content if isinstance(stored.content, Mapping) else {}
    check_format(content, source)
    found, is_ema = find_tensors(content, ema=ema)
    has_ema = not ema and not is_ema and find_tensors(content, ema=True)[1]
    if not found:
        raise CheckpointError(
            f"{source} holds no tensors, at the top or under {', '.join((*WRAPPERS, *AVERAGES))}. "
            "Give a file of a model's weights (its state_dict)."
        )
    tensors = plain_tensors(found, source)
    told: Mapping[str, Any] = stored.metadata.get("timesformer", content)
    if vit_sizes(tensors):
        tensors = without_distillation(tensors)
        video = attention_type_of(tensors) is not None or any("model." in name for name in found)
        kind = "TimeSformer" if video and "timm" not in stored.metadata else "image ViT"
        facts = _vit_facts(stored, told, tensors, kind)
    elif any(name.endswith("encoder.layer.0.attention.attention.qkv.weight") for name in tensors):
        kind, tensors = "Hugging Face TimeSformer", hugging_face.to_our_names(tensors)
        config = stored.metadata.get("config.json", {})
        told = config.get("timesformer") if isinstance(config.get("timesformer"), Mapping) else {}
        facts = _hugging_face_facts(stored, tensors)
    else:
        kind, facts = "another network, by its own names", _common_facts(stored, told)
    return Weights(stored.source, kind, tensors, is_ema=is_ema or told.get("is_ema") is True, has_ema=has_ema, **facts)


def check_format(content: object, source: str | Path) -> None:
    """Refuse what a newer version of this project wrote. Another program's `format`, not a number, says nothing.

    Raises:
        CheckpointError: the number under `format` is above `FORMAT`.
    """
    version = content.get("format") if isinstance(content, Mapping) else None
    if isinstance(version, int) and version > FORMAT:
        raise CheckpointError(
            f"{source} was written by a newer version of timesformer: its format is {version}, and this version reads "
            f"up to {FORMAT}. Update timesformer to use it."
        )


def stored_settings(content: object) -> dict[str, Any]:
    """Dotted key to value of the configuration stored in a checkpoint; empty when there is none of plain values."""
    text = content.get("cfg") if isinstance(content, Mapping) else None
    try:
        tree = yaml.safe_load(text) if isinstance(text, str) else None
        return flat_settings(tree) if isinstance(tree, Mapping) else {}
    except (yaml.YAMLError, ValueError, RecursionError):  # another program's checkpoint
        return {}


def flat_settings(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key to value of a tree of settings."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= flat_settings(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def grid_of(weights: Weights, default: tuple[int, int] | None = None) -> tuple[int, int] | None:
    """(rows, columns) of the weights' `pos_embed`: as told, else a square, else `default`; None where none fits."""
    position = weights.tensors.get("pos_embed")
    if position is None or position.ndim != 3 or position.shape[1] < 2:
        return None
    num_patches = position.shape[1] - 1
    grids = (weights.grid, (math.isqrt(num_patches),) * 2, default)
    return next((grid for grid in grids if grid and math.prod(grid) == num_patches), None)


def _common_facts(stored: StoredWeights, told: Mapping[str, Any]) -> dict[str, Any]:
    """Class names and preprocessing that stand beside the tensors: fields of `Weights`."""
    names, fed = told.get("class_names"), told.get("preprocessing")
    known = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
    settings = _fed_in_training(stored_settings(stored.content))
    return {
        "class_names": list(names) if known and names else [],
        "preprocessing": _readable(fed if fed and isinstance(fed, Mapping) else settings),
    }


def _vit_facts(
    stored: StoredWeights, told: Mapping[str, Any], tensors: Mapping[str, Tensor], kind: str
) -> dict[str, Any]:
    """What a ViT of this project, of the original or of timm tells besides its tensors: fields of `Weights`."""
    facts, settings, sizes = _common_facts(stored, told), stored_settings(stored.content), vit_sizes(tensors)
    header = stored.metadata.get("timesformer", {})
    attention_type = sizes.get("attention_type") or header.get(
        "attention_type", settings.get("TIMESFORMER.ATTENTION_TYPE")
    )
    if timm := stored.metadata.get("timm"):
        known = {key: timm[key.lower()] for key in ("MEAN", "STD") if key.lower() in timm}
        facts["preprocessing"] = _readable(known | {"CHANNEL_ORDER": "rgb"})
    elif attention_type and not facts["preprocessing"] and sizes.get("num_classes") == _SSV2_CLASSES:
        facts["preprocessing"] = {"CHANNEL_ORDER": "bgr"}  # a released SSv2 model without its configuration
    stated = (told.get("num_heads"), settings.get("TIMESFORMER.NUM_HEADS"), (timm or {}).get("num_heads"))
    heads = next((count for count in stated if type(count) is int and count > 0), None)
    return facts | {
        "attention_type": attention_type,
        "num_heads": heads or _usual_heads(settings, sizes["embed_dim"], kind),
        "grid": _pair(header.get("grid")) or _grid(tensors, settings.get("DATA.TRAIN_CROP_SIZE")),
    }


def _usual_heads(settings: Mapping[str, Any], width: int, kind: str) -> int | None:
    """Attention heads of a model whose source gives no number, where that is known all the same."""
    if "MODEL.MODEL_NAME" in settings:
        heads = _AUTO_HEADS.get(str(settings["MODEL.MODEL_NAME"]), _USUAL_HEADS)
        return heads if width % heads == 0 else None
    return width // 64 if kind == "image ViT" and width in _IMAGE_VIT_WIDTHS else None


def _hugging_face_facts(stored: StoredWeights, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the files beside a Hugging Face TimeSformer's tensors tell: fields of `Weights`."""
    config = stored.metadata.get("config.json")
    preprocessor = stored.metadata.get("preprocessor_config.json", {})
    try:
        sizes = hugging_face.sizes_from_config(config) if config else {}
        fed = hugging_face.preprocessing_from(preprocessor)
        if odd := [key for key in ("num_heads", "num_frames") if sizes and not isinstance(sizes[key], int)]:
            raise ValueError(f"{odd[0]} is {sizes[odd[0]]!r}")
    except (TypeError, ValueError, AttributeError, LookupError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"{stored.source}: config.json or preprocessor_config.json has a value of another form than transformers "
            f"writes ({error}). Save the model and its processor again with save_pretrained."
        ) from error
    # the released SSv2 model is fed BGR, and a folder made of it keeps its weights and says nothing of it
    order = "bgr" if vit_sizes(tensors).get("num_classes") == _SSV2_CLASSES else "rgb"
    frames = {"NUM_FRAMES": sizes["num_frames"]} if sizes else {}
    return {
        "class_names": sizes.get("class_names", []),
        "preprocessing": _readable({"CHANNEL_ORDER": order} | frames | fed),
        "attention_type": attention_type_of(tensors) or sizes.get("attention_type"),
        "num_heads": sizes.get("num_heads"),
        "grid": _grid(tensors, sizes.get("image_size")),
    }


def _fed_in_training(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Preprocessing by a stored configuration. The original's have no CHANNEL_ORDER: its SSv2 models are fed BGR."""
    fed = {key: settings[f"DATA.{key}"] for key in PREPROCESSING if f"DATA.{key}" in settings}
    if "TRAIN.DATASET" in settings:
        fed.setdefault("CHANNEL_ORDER", "bgr" if str(settings["TRAIN.DATASET"]).lower() == "ssv2" else "rgb")
    return fed


def _readable(fed: Mapping[str, Any]) -> dict[str, Any]:
    """Of stored preprocessing what this project has words for, in the form that it needs."""
    known = {key: fed[key] for key in PREPROCESSING if key in fed}
    for key in {"MEAN", "STD"} & known.keys():
        values = known.pop(key)
        if isinstance(values, (list, tuple)) and all(isinstance(value, (int, float)) for value in values):
            known[key] = list(values)
    return known


def _pair(value: object) -> tuple[int, int] | None:
    """(height, width) of a size as users write it, None of anything else."""
    pair = [value, value] if isinstance(value, int) else value
    if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not all(isinstance(s, int) and s > 0 for s in pair):
        return None
    return pair[0], pair[1]


def _grid(tensors: Mapping[str, Tensor], size: object) -> tuple[int, int] | None:
    """(rows, columns) of the patches of a picture of `size` pixels, None where `pos_embed` is not of so many."""
    sizes, pixels = vit_sizes(tensors), _pair(size)
    if not sizes or pixels is None:
        return None
    height, width = (side // sizes["patch_size"] for side in pixels)
    return (height, width) if 1 + height * width == tensors["pos_embed"].shape[1] else None
