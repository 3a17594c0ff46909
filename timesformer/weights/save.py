"""Write weights for others: a Hugging Face folder, a `.pyth` checkpoint, or one safetensors file."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from timesformer.models.vit import VisionTransformer
from timesformer.utils.errors import CheckpointError
from timesformer.weights.hugging_face import INSTEAD, make_config, make_preprocessor, to_their_names
from timesformer.weights.read import FORMAT, Weights, grid_of
from timesformer.weights.state_dicts import WEIGHT_TYPES, attention_type_of, vit_sizes

TIMESFORMER_MEAN, TIMESFORMER_STD = 0.45, 0.225  # of pixel values in 0..1 (paper's released models)
HEAD_WIDTH = 64  # channels per attention head of every released ViT and TimeSformer


def export_weights(weights: Weights, out: str | Path, *, to: str, num_heads: int | None = None) -> str:
    """Write `weights` to `out`, whole or not at all.

    Args:
        out: folder (hf) or file (pyth, safetensors) to make; of what is there, only an empty folder is replaced.
        to: one of `FORMATS`: hf, pyth or safetensors.
        num_heads: attention heads, for a source that does not tell; no tensor's shape does.

    Returns:
        What was written, then what was assumed or changed on the way, one line each.

    Raises:
        CheckpointError: `out` is taken or cannot be written, or the format cannot express the weights.
    """
    out = Path(out)
    if to not in FORMATS:
        raise CheckpointError(f"{to!r} is not a format of weights; take one of {', '.join(FORMATS)}")
    if out.exists() and not (to == "hf" and out.is_dir() and not any(out.iterdir())):
        kind = "a folder; name the file to make in it" if out.is_dir() and to != "hf" else "there already"
        raise CheckpointError(f"{out} is {kind}. Nothing was written; give another place.")
    if weights.num_heads is not None and num_heads not in (None, weights.num_heads):
        raise CheckpointError(f"{weights.source} tells its {weights.num_heads} attention heads; leave --num-heads away")
    if num_heads is not None and num_heads < 1:
        raise CheckpointError(f"--num-heads {num_heads}: a number of attention heads is 1 or more")
    weights = replace(weights, num_heads=weights.num_heads or num_heads)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
            notes = FORMATS[to](weights, Path(folder) / out.name)
            os.replace(Path(folder) / out.name, out)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors do not raise OSError
        raise CheckpointError(f"{out} could not be written ({error}); nothing is left there") from error
    millions = sum(tensor.numel() for tensor in weights.tensors.values()) / 1e6
    told = (
        f"{out}: {len(weights.tensors)} tensors ({millions:.2f} M parameters), {len(weights.class_names)} class names"
    )
    return "\n".join([told, *notes])


def _write_hugging_face(weights: Weights, folder: Path) -> list[str]:
    tensors = dict(weights.tensors)
    if not vit_sizes(tensors):
        raise CheckpointError(
            f"{weights.source} ({weights.kind}) is no TimeSformer, and --to hf writes nothing else. {INSTEAD}"
        )
    attention_type = attention_type_of(tensors)
    if attention_type is None:
        raise CheckpointError(
            f"{weights.source} ({weights.kind}) has no attention over time, and Hugging Face's TimeSformer only has "
            f"models with it that compute the same as ours (its space_only does not average the frames). {INSTEAD}"
        )
    if attention_type not in ("divided_space_time", "joint_space_time"):
        raise CheckpointError(
            f"{weights.source} has {attention_type} attention, which Hugging Face's TimeSformer has not. {INSTEAD}"
        )
    notes = []
    if weights.num_heads is None:
        weights = replace(weights, num_heads=max(vit_sizes(tensors)["embed_dim"] // HEAD_WIDTH, 1))
        notes.append(
            f"attention heads: {weights.num_heads}, {HEAD_WIDTH} channels each as usual; the source does not tell. "
            "If that is wrong: --num-heads"
        )
    if weights.preprocessing.get("CHANNEL_ORDER") == "bgr":
        tensors["patch_embed.proj.weight"] = tensors["patch_embed.proj.weight"].flip(1)
    renamed = to_their_names(tensors)
    sizes = _checked_sizes(weights, attention_type)
    if (side := sizes["img_size"][0]) != sizes["img_size"][1]:
        raise CheckpointError(
            f"{weights.source} takes pictures of {side} x {sizes['img_size'][1]} pixels (height x width), Hugging "
            f"Face's TimeSformer squares only. {INSTEAD}"
        )
    preprocessing, told = _in_rgb(weights.preprocessing, in_chans=sizes["in_chans"])
    described = make_config(
        weights.tensors,
        attention_type=attention_type,
        num_heads=sizes["num_heads"],
        image_size=side,
        class_names=weights.class_names,
        is_ema=weights.is_ema,
    )
    folder.mkdir()
    _write_json(folder / "config.json", described)
    _write_json(folder / "preprocessor_config.json", make_preprocessor(preprocessing, image_size=side))
    _write_tensors(folder / "model.safetensors", renamed, metadata={"format": "pt"})
    return notes + told


def _write_pyth(weights: Weights, path: Path) -> list[str]:
    content = {
        "format": FORMAT,
        "model_state": _own_memory(_by_released_names(weights.tensors)),
        "is_ema": weights.is_ema,
        "num_heads": weights.num_heads,
        "epoch": -1,  # counted from 0: no epoch of a run is behind these weights
        "cfg": yaml.safe_dump(_settings(weights)),
        "class_names": list(weights.class_names),
        "preprocessing": dict(weights.preprocessing),
    }
    torch.save(content, path)
    return []


def _write_safetensors(weights: Weights, path: Path) -> list[str]:
    about = {
        "class_names": weights.class_names,
        "preprocessing": weights.preprocessing,
        "attention_type": weights.attention_type,
        "num_heads": weights.num_heads,
        "grid": weights.grid,
        "is_ema": weights.is_ema,
    }
    _write_tensors(path, _by_released_names(weights.tensors), metadata={"timesformer": json.dumps(about)})
    return []


FORMATS = {"hf": _write_hugging_face, "pyth": _write_pyth, "safetensors": _write_safetensors}


def _sizes(weights: Weights) -> dict[str, Any]:
    """Arguments of `VisionTransformer` as far as the source tells them; {} for another model."""
    sizes, grid = vit_sizes(weights.tensors), grid_of(weights)
    if sizes and grid:
        sizes["img_size"] = (grid[0] * sizes["patch_size"], grid[1] * sizes["patch_size"])
    told = {"num_heads": weights.num_heads, "attention_type": weights.attention_type} if sizes else {}
    return {name: value for name, value in told.items() if value is not None} | sizes


def _checked_sizes(weights: Weights, attention_type: str) -> dict[str, Any]:
    """`_sizes`, after comparing every name and shape with the model that they should make up.

    Raises:
        CheckpointError: tensors are missing or do not fit together.
    """
    tensors, sizes = weights.tensors, _sizes(weights)
    wrong = [] if "num_classes" in sizes else ["head.weight"]
    wrong += [name for name, tensor in tensors.items() if tensor.dtype not in WEIGHT_TYPES]
    if not wrong and "img_size" not in sizes:
        raise CheckpointError(
            f"{weights.source} has positions for {tensors['pos_embed'].shape[1] - 1} patches a frame, which is no "
            "square, and does not tell their rows and columns. Give a checkpoint of this project, which does."
        )
    if not wrong:
        try:
            with torch.device("meta"):
                model = VisionTransformer(**sizes)
        except ValueError as error:
            raise CheckpointError(f"{weights.source}: {error}. Set the heads with --num-heads.") from error
        shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        found = {name: tensor.shape for name, tensor in tensors.items()}
        wrong = sorted(name for name in shapes | found if shapes.get(name) != found.get(name))
    if wrong:
        raise CheckpointError(
            f"{weights.source} is not a whole {attention_type} TimeSformer: {len(wrong)} tensors "
            f"({', '.join(wrong[:5])}{', ...' if len(wrong) > 5 else ''}) "
            "are missing, unknown or of another shape or type. Nothing was written."
        )
    if len(weights.class_names) not in (0, sizes["num_classes"]):
        raise CheckpointError(
            f"{weights.source} has {len(weights.class_names)} class names for {sizes['num_classes']} classes. "
            "Nothing was written."
        )
    return sizes


def _in_rgb(preprocessing: Mapping[str, Any], *, in_chans: int) -> tuple[dict[str, Any], list[str]]:
    """Preprocessing with mean, deviation and RGB order, and what the user should know about it."""
    made, notes = dict(preprocessing), []
    for key, usual in (("MEAN", TIMESFORMER_MEAN), ("STD", TIMESFORMER_STD)):
        if key not in made:
            made[key] = [usual] * in_chans
            notes.append(f"DATA.{key}: {usual} in every channel, as of the released models; the source does not tell")
    order = made.get("CHANNEL_ORDER")
    if order == "bgr":
        made |= {"MEAN": made["MEAN"][::-1], "STD": made["STD"][::-1]}
        notes.append("channel order: BGR made RGB; the channels of the patch embedding, mean and deviation are flipped")
    elif order is None:
        notes.append("channel order: RGB; the source does not tell")
    return made | {"CHANNEL_ORDER": "rgb"}, notes


def _settings(weights: Weights) -> dict[str, Any]:
    """What is known about the weights as a tree of configuration keys, for the `cfg` of a checkpoint."""
    sizes = _sizes(weights)
    names = {
        "MODEL": {"NUM_CLASSES": "num_classes"},
        "TIMESFORMER": {
            key: key.lower()
            for key in ("ATTENTION_TYPE", "PATCH_SIZE", "EMBED_DIM", "DEPTH", "NUM_HEADS", "MLP_RATIO", "QKV_BIAS")
        },
        "DATA": {"NUM_FRAMES": "num_frames"},
    }
    tree = {
        section: {key: sizes[name] for key, name in keys.items() if name in sizes} for section, keys in names.items()
    }
    if "img_size" in sizes:
        tree["DATA"] |= {key: list(sizes["img_size"]) for key in ("TRAIN_CROP_SIZE", "TEST_CROP_SIZE")}
    tree["DATA"] = dict(weights.preprocessing) | tree["DATA"]
    return tree


def _by_released_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A TimeSformer's tensors by the names of the released files; those of other networks keep theirs."""
    prefix = "model." if vit_sizes(tensors) else ""
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def _own_memory(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of their own: safetensors refuses tensors that share memory, torch would save what a view is cut from."""
    return {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}


def _write_tensors(path: Path, tensors: Mapping[str, Tensor], *, metadata: dict[str, str]) -> None:
    path.touch()
    mode = path.stat().st_mode
    save_file(_own_memory(tensors), path, metadata=metadata)
    path.chmod(mode)  # as any new file of the user's: safetensors makes files that others cannot read


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
