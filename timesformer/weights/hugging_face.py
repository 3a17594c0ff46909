"""Names, sizes and preprocessing of a TimeSformer as `transformers` writes them, and as this project does."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from timesformer.utils.errors import CheckpointError
from timesformer.utils.sizes import height_width
from timesformer.video.clip_spec import known_fields

LAYER_NORM_EPS = 1e-6  # of this project's models, and of transformers' default
OWN_KEY = "timesformer"  # in their files: what only this project reads
INSTEAD = "Convert with --to safetensors instead."
_BILINEAR = 2  # PIL's number, as preprocessor files have it

# Our module or parameter name -> that of TimesformerForVideoClassification; {} is the number of the block.
_THEIR_NAMES = {
    "cls_token": "timesformer.embeddings.cls_token",
    "pos_embed": "timesformer.embeddings.position_embeddings",
    "time_embed": "timesformer.embeddings.time_embeddings",
    "patch_embed.proj": "timesformer.embeddings.patch_embeddings.projection",
    "blocks.{}.norm1": "timesformer.encoder.layer.{}.layernorm_before",
    "blocks.{}.attn.qkv": "timesformer.encoder.layer.{}.attention.attention.qkv",
    "blocks.{}.attn.proj": "timesformer.encoder.layer.{}.attention.output.dense",
    "blocks.{}.temporal_norm1": "timesformer.encoder.layer.{}.temporal_layernorm",
    "blocks.{}.temporal_attn.qkv": "timesformer.encoder.layer.{}.temporal_attention.attention.qkv",
    "blocks.{}.temporal_attn.proj": "timesformer.encoder.layer.{}.temporal_attention.output.dense",
    "blocks.{}.temporal_fc": "timesformer.encoder.layer.{}.temporal_dense",
    "blocks.{}.norm2": "timesformer.encoder.layer.{}.layernorm_after",
    "blocks.{}.mlp.fc1": "timesformer.encoder.layer.{}.intermediate.dense",
    "blocks.{}.mlp.fc2": "timesformer.encoder.layer.{}.output.dense",
    "norm": "timesformer.layernorm",
    "head": "classifier",
}
_OUR_NAMES = {theirs: ours for ours, theirs in _THEIR_NAMES.items()}


def to_our_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a Hugging Face TimeSformer, with or without its classifier, by our names; unknown names stay."""
    ours = {}
    for name, tensor in tensors.items():  # those of the bare TimesformerModel have no prefix
        whole = name if name.startswith(("timesformer.", "classifier.")) else f"timesformer.{name}"
        ours[_renamed(whole, _OUR_NAMES) or name] = tensor
    if len(ours) < len(tensors):
        raise CheckpointError(
            "the Hugging Face TimeSformer's tensors are there twice, with and without the prefix timesformer. "
            "Save the state dict of one model only."
        )
    return ours


def to_their_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors by the names of `TimesformerForVideoClassification`; an error for one that it does not have."""
    theirs = {name: _renamed(name, _THEIR_NAMES) for name in tensors}
    if unknown := [name for name in theirs if theirs[name] is None]:
        raise CheckpointError(
            f"Hugging Face's TimeSformer does not have {len(unknown)} of {len(theirs)} tensors "
            f"({', '.join(unknown[:5])}{', ...' if len(unknown) > 5 else ''}). {INSTEAD}"
        )
    return {str(theirs[name]): tensor for name, tensor in tensors.items()}


def sizes_from_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a `config.json` says about the model, with Hugging Face's defaults; sizes are in pixels.

    Raises:
        CheckpointError: another model, or one that computes something else than ours.
    """
    patch = height_width(config.get("patch_size", 16))
    facts = (
        ("model_type", config.get("model_type", "timesformer"), "timesformer"),
        ("layer_norm_eps", config.get("layer_norm_eps", LAYER_NORM_EPS), LAYER_NORM_EPS),
        ("hidden_act", config.get("hidden_act", "gelu"), "gelu"),
        ("patch_size", list(patch), [patch[0]] * 2),
    )
    if wrong := [f"{key} is {found!r}, not {needed!r}" for key, found, needed in facts if found != needed]:
        raise CheckpointError(
            f"the Hugging Face config.json describes a model that TimeSformer here cannot be: {'; '.join(wrong)}. "
            "Take a folder of model_type timesformer, such as hf:facebook/timesformer-base-finetuned-k400."
        )
    return {
        "attention_type": config.get("attention_type", "divided_space_time"),
        "num_heads": config.get("num_attention_heads", 12),
        "image_size": height_width(config.get("image_size", 224)),
        "patch_size": patch[0],
        "num_frames": config.get("num_frames", 8),
        "class_names": _class_names(config.get("id2label") or {}),  # none when they are only numbered
    }


def preprocessing_from(preprocessor: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `ClipSpec` that a `preprocessor_config.json` states; a file of ours states them all.

    Mean and std are of pixel values in 0..1, whatever the file's `rescale_factor`. Files of others do not state the
    channel order; `read_weights` assumes rgb, or bgr with the 174 classes of SSv2, whose released weights expect it.
    """
    found = known_fields(preprocessor.get(OWN_KEY) or {})
    scale = 255 * (preprocessor.get("rescale_factor", 1 / 255) if preprocessor.get("do_rescale", True) else 1)
    for name, unchanged in (("mean", 0.0), ("std", 1.0)):
        values = preprocessor.get(f"image_{name}") if preprocessor.get("do_normalize", True) else [unchanged] * 3
        if values is not None:
            values = values if isinstance(values, (list, tuple)) else [values] * 3
            found[name] = tuple(round(value / scale, 9) for value in values)  # 255 * (1 / 255) need not be 1
    cropped = preprocessor.get("do_center_crop", True)
    size = preprocessor.get("crop_size" if cropped else "size")
    if isinstance(size, Mapping):
        size = [size.get(side, size.get("shortest_edge")) for side in ("height", "width")]
    if size is not None:
        found |= known_fields({"size": size, "crop_mode": "crop" if cropped else "full"})
    return found


def make_config(
    sizes: Mapping[str, Any], *, dtype: torch.dtype, class_names: Sequence[str] = (), is_ema: bool = False
) -> dict[str, Any]:
    """The `config.json` of the model with the arguments `sizes` of `VisionTransformer`, of a square `img_size`.

    Without class names the labels are numbered.
    """
    names = list(class_names) or [f"LABEL_{label}" for label in range(sizes["num_classes"])]
    return {
        "model_type": "timesformer",
        "architectures": ["TimesformerForVideoClassification"],
        **{name: sizes[name] for name in ("attention_type", "patch_size", "num_frames", "qkv_bias")},
        "image_size": sizes["img_size"][0],
        "num_channels": sizes["in_chans"],
        "hidden_size": sizes["embed_dim"],
        "num_hidden_layers": sizes["depth"],
        "num_attention_heads": sizes["num_heads"],
        "intermediate_size": round(sizes["embed_dim"] * sizes["mlp_ratio"]),
        "hidden_act": "gelu",
        "layer_norm_eps": LAYER_NORM_EPS,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "drop_path_rate": 0,
        "id2label": {str(label): name for label, name in enumerate(names)},
        "label2id": {name: label for label, name in enumerate(names)},
        OWN_KEY: {"is_ema": is_ema},
        "dtype": str(dtype).removeprefix("torch."),
    }


def make_preprocessor(clip: Mapping[str, Any], *, image_size: int) -> dict[str, Any]:
    """The `preprocessor_config.json` for fields of `ClipSpec`, mean and std among them, and a square image."""
    square = {"height": image_size, "width": image_size}
    cropped = clip.get("crop_mode", "crop") == "crop"
    return {
        "video_processor_type": "TimesformerVideoProcessor",
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": image_size} if cropped else square,
        "resample": _BILINEAR,
        "do_center_crop": cropped,
        "crop_size": square,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(clip["mean"]),
        "image_std": list(clip["std"]),
        OWN_KEY: {name: value for name, value in clip.items() if name not in ("mean", "std", "size")},
    }


def _renamed(name: str, table: Mapping[str, str]) -> str | None:
    stem, leaf = re.fullmatch(r"(.+?)(\.weight|\.bias)?", name, re.DOTALL).groups(default="")  # type: ignore[union-attr]
    number = "".join(re.findall(r"\.(\d+)\.", stem)[:1])
    found = table.get(re.sub(r"\.\d+\.", ".{}.", stem, count=1))
    return None if found is None else found.format(number) + leaf


def _class_names(id2label: Mapping[Any, str]) -> list[str]:
    by_label = {int(label): name for label, name in id2label.items()}
    if sorted(by_label) != list(range(len(by_label))):
        raise CheckpointError(f"the labels in id2label of config.json are not 0 to {len(by_label) - 1}, each once")
    names = [str(by_label[label]) for label in range(len(by_label))]
    return [] if names == [f"LABEL_{label}" for label in sorted(by_label)] else names
