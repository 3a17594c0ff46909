"""Write weights for other programs: a Hugging Face folder, a `.pyth` checkpoint, or one safetensors file."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from timesformer.utils.errors import CheckpointError
from timesformer.utils.registry import MODELS
from timesformer.video.clip_spec import ClipSpec
from timesformer.weights.files import CHECKSUM, checksum
from timesformer.weights.hugging_face import INSTEAD, make_config, make_preprocessor, to_their_names
from timesformer.weights.layouts import (
    FORMAT,
    HEAD_WIDTH,
    WEIGHT_TYPES,
    Weights,
    attention_type_of,
    grid_of,
    transformer_arguments,
    vit_sizes,
)

FORMATS = ("hf", "pyth", "safetensors")


def save_weights(weights: Weights, out: str | Path, *, to: str, num_heads: int | None = None) -> str:
    """Write `weights` to `out`, completely or not at all.

    Args:
        out: folder (hf) or file (pyth, safetensors) to make; of what exists, only an empty folder is replaced.
        to: one of `FORMATS`.
        num_heads: attention heads, for a source that does not state them; no tensor's shape does.

    Returns:
        What was written, then what was assumed or changed, one line each.

    Raises:
        CheckpointError: `out` exists or cannot be written, or the format cannot express the weights.
    """
    out = Path(out)
    if to not in FORMATS:
        raise CheckpointError(f"{to!r} is not a format of weights; take one of {', '.join(FORMATS)}")
    if out.exists() and not (to == "hf" and out.is_dir() and not any(out.iterdir())):
        kind = "a folder; name the file to make in it" if out.is_dir() and to != "hf" else "there already"
        raise CheckpointError(f"{out} is {kind}. Nothing was written; give another path.")
    if weights.num_heads is not None and num_heads not in (None, weights.num_heads):
        raise CheckpointError(f"{weights.source} states {weights.num_heads} attention heads; leave --num-heads out")
    if num_heads is not None and num_heads < 1:
        raise CheckpointError(f"--num-heads {num_heads}: a number of attention heads is 1 or more")
    weights, notes = replace(weights, num_heads=weights.num_heads or num_heads), []
    released = {f"model.{name}" if vit_sizes(weights.tensors) else name: t for name, t in weights.tensors.items()}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
            path = Path(folder) / out.name
            if to == "hf":
                notes = _write_hugging_face(weights, path)
            elif to == "safetensors":
                _write_tensors(path, released, {"timesformer": json.dumps(_beside(weights))})
            else:  # the epoch is counted from 0: none of a run is behind these weights
                content = {"format": FORMAT, "model_state": _own_memory(released), "epoch": -1}
                torch.save(content | {"cfg": yaml.safe_dump(_settings(weights))} | _beside(weights), path)
            os.replace(path, out)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors do not raise OSError
        raise CheckpointError(f"{out} could not be written ({error}); nothing is left there") from error
    millions = sum(tensor.numel() for tensor in weights.tensors.values()) / 1e6
    counts = f"{len(weights.tensors)} tensors ({millions:.2f} M parameters), {len(weights.class_names)} class names"
    return "\n".join([f"{out}: {counts}", *notes])


def _write_hugging_face(weights: Weights, folder: Path) -> list[str]:
    attention_type, sizes = attention_type_of(weights.tensors), transformer_arguments(weights)
    reason = ""
    if not sizes:
        reason = "is no TimeSformer, and --to hf writes nothing else"
    elif attention_type is None:
        reason = "has no attention over time, and Hugging Face's space_only does not average the frames as ours does"
    elif attention_type not in ("divided_space_time", "joint_space_time"):
        reason = f"has {attention_type} attention, which Hugging Face's TimeSformer does not have"
    elif (kind := weights.clip.get("input", "rgb")) != "rgb":
        reason = f"sees motion images (DATA.INPUT {kind}), which Hugging Face's processors do not make"
    if reason:
        raise CheckpointError(f"{weights.source} ({weights.kind}) {reason}. {INSTEAD}")
    notes = []
    if weights.num_heads is None:
        sizes["num_heads"] = max(sizes["embed_dim"] // HEAD_WIDTH, 1)
        notes.append(
            f"attention heads: {sizes['num_heads']}, {HEAD_WIDTH} channels each as usual; the source does not state "
            "them. If that is wrong: --num-heads"
        )
    weights = _in_rgb(weights, sizes["in_chans"], notes)
    renamed = to_their_names(weights.tensors)
    _check_complete(weights, sizes)
    height, width = sizes["img_size"]
    if height != width:
        raise CheckpointError(
            f"{weights.source} takes frames of {height} x {width} pixels (height x width), Hugging Face's TimeSformer "
            f"squares only. {INSTEAD}"
        )
    dtype = renamed["timesformer.embeddings.cls_token"].dtype
    files = {
        "config.json": make_config(sizes, dtype=dtype, class_names=weights.class_names, is_ema=weights.is_ema),
        "preprocessor_config.json": make_preprocessor(weights.clip, image_size=height),
    }
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    _write_tensors(folder / "model.safetensors", renamed, {"format": "pt"})
    return notes


def _in_rgb(weights: Weights, in_chans: int, notes: list[str]) -> Weights:
    """The weights for RGB clips, with mean and std; what was assumed or changed for that is added to the notes."""
    tensors, clip, usual = dict(weights.tensors), dict(weights.clip), ClipSpec().to_dict()
    for name in ("mean", "std"):
        if name not in clip:
            clip[name] = usual[name][:1] * in_chans
            notes.append(
                f"DATA.{name.upper()}: {usual[name][0]} in every channel, as in the released models; not stated"
            )
    if "channel_order" not in clip:
        notes.append("channel order: RGB; the source does not state it")
    elif clip["channel_order"] == "bgr":
        tensors["patch_embed.proj.weight"] = tensors["patch_embed.proj.weight"].flip(1)
        clip |= {"mean": clip["mean"][::-1], "std": clip["std"][::-1]}
        notes.append("channel order: BGR made RGB; the channels of the patch embedding, mean and std are flipped")
    return replace(weights, tensors=tensors, clip=clip | {"channel_order": "rgb"})


def _check_complete(weights: Weights, sizes: Mapping[str, Any]) -> None:
    """Compare every name and shape with the model of these `sizes`; an error where they are not equal."""
    tensors = weights.tensors
    wrong = [] if "num_classes" in sizes else ["head.weight"]
    wrong += [name for name, tensor in tensors.items() if tensor.dtype not in WEIGHT_TYPES]
    if not wrong and "img_size" not in sizes:
        raise CheckpointError(
            f"{weights.source} has positions for {tensors['pos_embed'].shape[1] - 1} patches a frame, which is no "
            "square, and does not state their rows and columns. Give a checkpoint of this project, which does."
        )
    if not wrong:
        try:
            with torch.device("meta"):
                model = MODELS.get("TimeSformer")(**sizes).model
        except ValueError as error:
            raise CheckpointError(f"{weights.source}: {error}. Set the heads with --num-heads.") from error
        needed = {name: tensor.shape for name, tensor in model.state_dict().items()}
        found = {name: tensor.shape for name, tensor in tensors.items()}
        wrong = sorted(name for name in needed | found if needed.get(name) != found.get(name))
    if wrong:
        raise CheckpointError(
            f"{weights.source} is not a whole {sizes['attention_type']} TimeSformer: {len(wrong)} tensors "
            f"({', '.join(wrong[:5])}{', ...' if len(wrong) > 5 else ''}) "
            "are missing, unknown or of another shape or type. Nothing was written."
        )
    if len(weights.class_names) not in (0, sizes["num_classes"]):
        raise CheckpointError(
            f"{weights.source} has {len(weights.class_names)} class names for {sizes['num_classes']} classes. "
            "Nothing was written."
        )


def _settings(weights: Weights) -> dict[str, dict[str, Any]]:
    """What is known about the weights as a tree of configuration keys, for the `cfg` of a checkpoint."""
    sizes = transformer_arguments(weights)
    image, num_classes, num_frames = (sizes.pop(name, None) for name in ("img_size", "num_classes", "num_frames"))
    vit = {name.upper(): value for name, value in sizes.items() if name != "in_chans"}
    data = {each.metadata["key"]: weights.clip.get(each.name) for each in fields(ClipSpec)}
    del data["TRAIN_JITTER_SCALES"]  # two sides, of which a clip has one
    shown = {"NUM_FRAMES": num_frames, "TRAIN_CROP_SIZE": image, "TEST_CROP_SIZE": image}
    data |= {key: value for key, value in shown.items() if value is not None}
    tree = {"MODEL": {"NUM_CLASSES": num_classes}, "TIMESFORMER": vit, "DATA": data}
    return {part: {key: value for key, value in keys.items() if value is not None} for part, keys in tree.items()}


def _beside(weights: Weights) -> dict[str, Any]:
    """What stands beside the tensors in this project's files, for `read_weights`."""
    stated = {name: getattr(weights, name) for name in ("class_names", "attention_type", "num_heads", "is_ema")}
    return stated | {"preprocessing": weights.clip, "grid": grid_of(weights)}


def _own_memory(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of their own: safetensors refuses tensors that share memory, torch would save what a view is cut from."""
    return {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}


def _write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    path.touch()
    mode = path.stat().st_mode
    save_file(_own_memory(tensors), path, metadata=metadata | {CHECKSUM: checksum(tensors, metadata)})
    path.chmod(mode)  # as any new file of the user's: safetensors makes files that others cannot read
