"""Weights of any known source into a model, with a report of all that was done; or a clear error and no change."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from timesformer.models.foreign_weights import Weights, read_weights, strip_prefixes
from timesformer.models.resizing import adapt_channels, resize_position, resize_time
from timesformer.utils.errors import CheckpointError

HEADS = ("head", "fc", "classifier")  # first part of a classifier's parameter names, here and in torchvision
_TEMPORAL = ("divided_space_time", "joint_space_time")
MIN_COVERAGE = 0.9  # share of the backbone's parameters that a file has to fill
# Tensors of a ViT that change what it computes wherever they are, so that a model without them is another one.
_LAYERS = ("blocks.", "norm_pre.", "reg_token")


@dataclass
class LoadReport:
    """What a load did. Names are without prefixes such as `model.`.

    Attributes:
        source: as the user named it.
        kind: of the source, such as "TimeSformer" or "image ViT".
        is_ema: whether the weights are an average over training.
        num_loaded: tensors of the model that came from the source: as they are, resized or copied.
        num_tensors: tensors of the model.
        share: of all parameters of the model, 0..1, that came from the source.
        coverage: the same of the backbone, which is everything but the head.
        resized: what was resized, from what to what.
        copied: tensors that got the values of another one.
        initialised: tensors that keep their initialisation, with the reason.
        missing: other tensors that the source does not have.
        unexpected: tensors of the source that the model does not have.
        differences: settings in which model and source differ (only with `allow_partial`).
        class_names: of the source; empty when unknown.
        preprocessing: of the source, by the last part of the DATA keys; only what is known.
    """

    source: str
    kind: str
    is_ema: bool
    num_loaded: int
    num_tensors: int
    share: float
    coverage: float
    resized: list[str] = field(default_factory=list)
    copied: list[str] = field(default_factory=list)
    initialised: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    class_names: list[str] = field(default_factory=list)
    preprocessing: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """One line, and one more for each list that is not empty."""
        kind = f"{self.kind}, moving average" if self.is_ema else self.kind
        first = (
            f"{self.source} ({kind}): loaded {self.num_loaded} of {self.num_tensors} tensors, "
            f"{_percent(self.share)} of the parameters, {_percent(self.coverage)} of the backbone's"
        )
        return "\n".join([first, *self.details()])

    def details(self) -> list[str]:
        """One line for each list that is not empty; names of many blocks are joined, long lists cut short."""
        titles = ("resized", "copied", "initialised", "missing", "unexpected", "differences")
        return [f"  {title}: {_some(names)}" for title in titles if (names := getattr(self, title))]


def load_weights(
    model: nn.Module, source: str | Path, *, complete: bool = False, allow_partial: bool = False, ema: bool = True
) -> LoadReport:
    """Copy the weights of `source` into `model`, resizing positions, frames and channels where they differ.

    Weights of an image ViT also start divided attention: its spatial attention is copied to the temporal one,
    which `temporal_fc`, zero at first, then lets in slowly.

    Args:
        source: a file, a Hugging Face folder, "timm:NAME" or "hf:REPO_ID".
        complete: every tensor has to come from the source, as for a test. Otherwise, for fine-tuning, a head of
            another size starts anew, and `MIN_COVERAGE` of the backbone is enough.
        allow_partial: for fine-tuning, load what fits also from other architectures.
        ema: take the average of the weights where the source has one.

    Raises:
        CheckpointError: unreadable source, or one that does not fit; the model is then as it was before.
    """
    weights = read_weights(source, ema=ema)
    own = model.state_dict()
    wanted = {strip_prefixes(name): tensor for name, tensor in own.items()}
    vit = next((module for module in model.modules() if hasattr(module, "attention_type")), None)
    differences = _differences(weights, wanted, vit, complete=complete) if vit is not None else []
    if differences and (complete or not allow_partial):
        raise CheckpointError(
            f"{source} ({weights.kind}) is of another architecture; nothing was loaded.\n"
            + "\n".join(f"  {line}" for line in differences)
            + ("" if complete else "\nTo load only what fits: TRAIN.ALLOW_PARTIAL_LOAD True")
        )
    found, resized, copied = _fitted(weights, wanted, vit)
    head = [name for name in wanted if name.split(".")[0] in HEADS]
    same = {name for name in wanted if name in found and found[name].shape == wanted[name].shape}
    anew = [] if complete or same.issuperset(head) else head
    other_shape = [name for name in wanted if name in found and name not in same and name not in anew]
    # What weights without time cannot tell: the initialisation lets the temporal branch add nothing.
    temporal = [] if complete or weights.attention_type in _TEMPORAL else ["time_embed", "temporal_fc"]
    kept = [name for name in wanted if name not in found and any(part in name.split(".") for part in temporal)]
    new = {name: found[name] for name in same.difference(anew)}

    sizes = {strip_prefixes(name): parameter.numel() for name, parameter in model.named_parameters()}
    backbone = {name: size for name, size in sizes.items() if name not in head}
    report = LoadReport(
        source=weights.source,
        kind=weights.kind,
        is_ema=weights.is_ema,
        num_loaded=len(new),
        num_tensors=len(wanted),
        share=_share(sizes, new),
        coverage=_share(backbone, new),
        resized=resized,
        copied=[name for name in copied if name in new],
        initialised=[*_why_anew(anew, found, wanted), *kept],
        missing=[name for name in wanted if name not in found and name not in anew and name not in kept],
        unexpected=[name for name in found if name not in wanted],
        differences=differences,
        class_names=weights.class_names,
        preprocessing=weights.preprocessing,
    )
    shapes = [f"{name} {_shape(found[name])}, the model has {_shape(wanted[name])}" for name in other_shape]
    if allow_partial and not complete and new:
        report.initialised += shapes
    else:
        _check(report, found, wanted, shapes, complete=complete)
    model.load_state_dict({name: new.get(strip_prefixes(name), tensor) for name, tensor in own.items()})
    return report


def _check(
    report: LoadReport, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], shapes: list[str], *, complete: bool
) -> None:
    """Refuse weights that do not fill the model."""
    common = wanted.keys() & found.keys()
    if 2 * len(common) < len(wanted):
        raise CheckpointError(
            f"{report.source} is of another model; nothing was loaded. {len(common)} of {len(wanted)} names agree: "
            f"its tensors are called {_some(found, 5)}; the model's {_some(wanted, 5)}. "
            "Give weights of the model that MODEL.MODEL_NAME names."
        )
    if complete and (sizes := _class_counts(found, wanted)) and sizes[0] != sizes[1]:
        raise CheckpointError(
            f"{report.source} tells {sizes[0]} classes apart and the model {sizes[1]}; nothing was loaded. "
            f"Set MODEL.NUM_CLASSES {sizes[0]}, or give weights that were trained for {sizes[1]} classes."
        )
    too_little = (complete and report.missing) or report.coverage < MIN_COVERAGE
    if shapes or too_little:
        lists = [f"  of another shape: {_some(shapes)}"] if shapes else []
        needed = "all is needed for a test" if complete else f"at least {MIN_COVERAGE:.0%} is needed"
        raise CheckpointError(
            f"{report.source} ({report.kind}) does not fit the model; nothing was loaded. It covers "
            f"{_percent(report.coverage)} of the backbone's parameters, and {needed}.\n"
            + "\n".join(lists + report.details())
            + "\nBuild the model with the sizes that the weights were trained with"
            + (", or give other weights." if complete else ", or load only what fits: TRAIN.ALLOW_PARTIAL_LOAD True")
        )


def _differences(weights: Weights, wanted: Mapping[str, Tensor], vit: Any, *, complete: bool) -> list[str]:
    """One line for each setting that the model needs to fit the weights; none for weights of another family."""
    tensors = weights.tensors
    theirs, ours = _architecture(tensors), _architecture(wanted)
    if not theirs:
        return []
    theirs["NUM_HEADS"], ours["NUM_HEADS"] = weights.num_heads, vit.blocks[0].attn.num_heads
    theirs["ATTENTION_TYPE"], ours["ATTENTION_TYPE"] = weights.attention_type, vit.attention_type
    if theirs["ATTENTION_TYPE"] not in _TEMPORAL:  # weights of pictures start any model, but are no other whole one
        theirs["ATTENTION_TYPE"] = "space_only" if complete else None
    lines = [
        f"{key}: {value} in the weights, {ours[key]} in the model; set TIMESFORMER.{key} {value}"
        for key, value in theirs.items()
        if value is not None and value != ours[key]
    ]
    extra = [name for name in tensors if name.startswith(_LAYERS) and name not in wanted]
    if extra and not lines:
        lines.append(f"layers that the model does not have: {_some(extra)}; give weights without them")
    if _grid(weights, vit) is None:
        lines.append(
            f"pos_embed is of {tensors['pos_embed'].shape[1] - 1} patches, which is no square: "
            "set DATA.TRAIN_CROP_SIZE and DATA.TEST_CROP_SIZE to the [height, width] that the weights were trained with"
        )
    return lines


def _architecture(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the tensors of a ViT show of its TIMESFORMER settings; nothing of other models."""
    patches, hidden = tensors.get("patch_embed.proj.weight"), tensors.get("blocks.0.mlp.fc1.weight")
    if patches is None or hidden is None or "pos_embed" not in tensors:
        return {}
    return {
        "EMBED_DIM": patches.shape[0],
        "PATCH_SIZE": patches.shape[-1],
        "DEPTH": len({name.split(".")[1] for name in tensors if name.startswith("blocks.")}),
        "MLP_RATIO": hidden.shape[0] / hidden.shape[1],
        "QKV_BIAS": "blocks.0.attn.qkv.bias" in tensors,
    }


def _fitted(weights: Weights, wanted: Mapping[str, Tensor], vit: Any) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """The weights in the model's sizes, and what was resized and copied for that."""
    tensors = dict(weights.tensors)
    resized: list[str] = []
    copied: list[str] = []
    if vit is None:
        return tensors, resized, copied
    width = vit.pos_embed.shape[2]

    position, old_grid = tensors.get("pos_embed"), _grid(weights, vit)
    if position is not None and old_grid not in (None, vit.grid) and position.shape[2] == width:
        tensors["pos_embed"] = resize_position(position, old_grid=old_grid, new_grid=vit.grid)
        resized.append(f"pos_embed {'x'.join(map(str, old_grid))} -> {'x'.join(map(str, vit.grid))} (bicubic)")
    time, num_frames = tensors.get("time_embed"), vit.input_shape[1]
    if time is not None and "time_embed" in wanted and time.shape[1] != num_frames and time.shape[2] == width:
        tensors["time_embed"] = resize_time(time, num_frames)
        resized.append(f"time_embed {time.shape[1]} -> {num_frames} frames (linear)")
    patches, in_chans = tensors.get("patch_embed.proj.weight"), vit.input_shape[0]
    if patches is not None and patches.ndim == 4 and patches.shape[1] != in_chans:
        tensors["patch_embed.proj.weight"] = adapt_channels(patches, in_chans)
        resized.append(f"patch_embed.proj.weight {patches.shape[1]} -> {in_chans} channels")

    if weights.attention_type != "divided_space_time":  # of such weights nothing temporal may be missing
        for name in wanted:
            source = name.replace(".temporal_", ".")
            if source != name and source in tensors:
                tensors[name] = tensors[source]
                copied.append(name)
    return tensors, resized, copied


def _grid(weights: Weights, vit: Any) -> tuple[int, int] | None:
    """(rows, columns) of the weights' `pos_embed`: as told, else a square, else the model's; None if nothing fits."""
    if "pos_embed" not in weights.tensors:
        return None
    num_patches = weights.tensors["pos_embed"].shape[1] - 1
    side = math.isqrt(max(num_patches, 0))
    grids = [weights.grid or (side, side), (side, side), vit.grid]
    return next((grid for grid in grids if math.prod(grid) == num_patches), None)


def _class_counts(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[int, int] | None:
    """Rows of the head in the weights and in the model."""
    for name, tensor in wanted.items():
        if name.split(".")[0] in HEADS and name in found:
            return len(found[name]), len(tensor)
    return None


def _why_anew(anew: list[str], found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """The tensors of a head that starts anew, the last with the reason."""
    if not anew:
        return []
    counts = _class_counts(found, wanted)
    reason = f"{counts[0]} classes in the weights, {counts[1]} in the model" if counts else "the weights have no head"
    return [*anew[:-1], f"{anew[-1]} ({reason})"]


def _share(sizes: Mapping[str, int], loaded: Mapping[str, Tensor]) -> float:
    return sum(size for name, size in sizes.items() if name in loaded) / max(sum(sizes.values()), 1)


def _percent(share: float) -> str:
    return f"{math.floor(1000 * share) / 10}%"  # never 100% of what is not whole


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _some(names: Iterable[str], limit: int = 12) -> str:
    """The names, those that differ in numbers only joined to one with a count, the list cut short after `limit`."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(re.sub(r"(?<=\.)\d+(?=\.)", "*", name), []).append(name)
    parts = [members[0] if len(members) == 1 else f"{group} ({len(members)}x)" for group, members in groups.items()]
    return ", ".join(parts[:limit]) + (f" and {len(parts) - limit} more" if len(parts) > limit else "")
