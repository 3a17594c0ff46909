"""Weights of any known source into a model, with a report of all that was done; or a clear error and no change."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from timesformer.utils.errors import CheckpointError
from timesformer.utils.heads import HEADS
from timesformer.weights.load_report import LoadReport, percent, some
from timesformer.weights.read import Weights, grid_of, read_weights
from timesformer.weights.resizing import adapt_channels, resize_position, resize_time
from timesformer.weights.state_dicts import WEIGHT_TYPES, strip_prefixes, vit_sizes

MIN_COVERAGE = 0.9  # share of the backbone's parameters that a file has to fill
_TEMPORAL = ("divided_space_time", "joint_space_time", "sparse_local_global", "axial")
_STEPS = re.compile(r"\.(temporal|height|local)_")  # the first steps of a block, which weights of pictures do not have
_SETTINGS = ("embed_dim", "patch_size", "depth", "mlp_ratio", "qkv_bias")
# Tensors of a ViT that change what it computes wherever they are, so that a model without them is another one.
_LAYERS = ("blocks.", "norm_pre.", "reg_token")
_PARTLY = "only what fits: allow_partial=True (TRAIN.ALLOW_PARTIAL_LOAD True)"


def load_weights(
    model: nn.Module,
    source: str | Path,
    *,
    complete: bool = False,
    allow_partial: bool = False,
    ema: bool = True,
    class_names: Sequence[str] = (),
) -> LoadReport:
    """Copy the weights of `source` into `model`, resizing positions, frames and channels where they differ.

    Weights of an image ViT also start attention over time. For the divided one, the spatial attention is copied to the
    temporal, and `temporal_fc` and `time_embed` are set to zero, however the model was initialised: at first a still
    clip gets the image model's features, and training lets time in.

    Args:
        model: on torch's meta device it takes the tensors themselves, and what does not come from `source` stays there.
        source: a file, a Hugging Face folder, "timm:NAME" or "hf:REPO_ID".
        complete: every tensor has to come from the source, as for a test. Otherwise, for fine-tuning, a head of
            another size starts anew, and `MIN_COVERAGE` of the backbone is enough.
        allow_partial: for fine-tuning, load what fits also from other architectures.
        ema: take the average of the weights where the source has one.
        class_names: of the data, by label; empty when unknown. Where the source knows the same in another order,
            the head's rows are put into this one; for fine-tuning, a head for other classes starts anew.

    Raises:
        CheckpointError: unreadable source, or one that does not fit; the model is then as it was before.
    """
    weights = read_weights(source, ema=ema)
    allow_partial = allow_partial and not complete
    new, report = _plan(model, weights, complete=complete, allow_partial=allow_partial, class_names=list(class_names))
    own = model.state_dict()
    state = {name: new.get(strip_prefixes(name), tensor).to(tensor.dtype) for name, tensor in own.items()}
    model.load_state_dict(state, assign=next(model.parameters()).is_meta)
    return report


def _plan(
    model: nn.Module, weights: Weights, *, complete: bool, allow_partial: bool, class_names: list[str]
) -> tuple[dict[str, Tensor], LoadReport]:
    """New values by the model's names without prefixes, and the report of loading them; the model is only looked at."""
    wanted = {strip_prefixes(name): tensor for name, tensor in model.state_dict().items()}
    _check_types(weights, wanted)
    vit = next((module for module in model.modules() if hasattr(module, "attention_type")), None)
    differences, advice = _differences(weights, wanted, vit, complete=complete)
    if differences and not allow_partial:
        raise CheckpointError(
            f"{weights.source} ({weights.kind}) is of another architecture; nothing was loaded.\n"
            + "\n".join(f"  {line}" for line in differences)
            + f"\nTo use them, {'; '.join(advice)}"
            + ("" if complete else f"\nTo load {_PARTLY}")
        )
    found, resized, copied = _fitted(weights, wanted, vit)
    head = [name for name in wanted if name.split(".")[0] in HEADS]
    order, classes = _compare_classes(weights, found, head, class_names)
    found |= {name: tensor[order] for name, tensor in _output_layer(found, head).items() if order}
    other_classes = bool(classes) and not order

    same = {name for name in wanted if name in found and found[name].shape == wanted[name].shape}
    anew = [] if complete or (same.issuperset(head) and not other_classes) else head
    other_shape = [name for name in wanted if name in found and name not in same and name not in anew]
    pictures = weights.attention_type in (None, "joint_space_time", "space_only")  # one attention in each block
    untold = ("time_embed", "temporal_fc", "height_fc", "local_fc") if vit and not complete and pictures else ()
    zeroed = [name for name in wanted if name not in found and any(part in name.split(".") for part in untold)]
    new = {name: found[name] for name in same.difference(anew)}

    sizes = {strip_prefixes(name): parameter.numel() for name, parameter in model.named_parameters()}
    report = LoadReport(
        source=weights.source,
        kind=weights.kind,
        is_ema=weights.is_ema,
        has_ema=weights.has_ema,
        num_loaded=len(new),
        num_tensors=len(wanted),
        share=_share(sizes, new),
        coverage=_share({name: size for name, size in sizes.items() if name not in head}, new),
        resized=resized,
        copied=[name for name in copied if name in new],
        zeroed=zeroed,
        initialised=_why_anew(anew, found, wanted, classes),
        missing=[name for name in wanted if name not in found and name not in anew and name not in zeroed],
        unexpected=[name for name in found if name not in wanted],
        differences=differences,
        classes=[] if anew else classes,
        class_names=weights.class_names,
        preprocessing=weights.preprocessing,
    )
    shapes = [f"{name} {_shape(found[name])}, the model has {_shape(wanted[name])}" for name in other_shape]
    if allow_partial and new:
        report.initialised += shapes
    else:
        hint = ", or give other weights." if complete or allow_partial else f", or load {_PARTLY}"
        _check(report, found, wanted, shapes, complete=complete, hint=hint)
    return new | {name: torch.zeros_like(wanted[name]) for name in zeroed}, report


def _check_types(weights: Weights, wanted: Mapping[str, Tensor]) -> None:
    """Refuse whole numbers and packed values where the model has weights; counters and indices may be whole."""
    for name, tensor in wanted.items():
        found = weights.tensors.get(name)
        if found is not None and tensor.is_floating_point() and found.dtype not in WEIGHT_TYPES:
            raise CheckpointError(
                f"{weights.source}: {name} is of type {found.dtype}, and weights are floating-point numbers of 16 to "
                "64 bits; nothing was loaded. Give the model as it was before it was quantised or converted."
            )


def _check(
    report: LoadReport,
    found: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    shapes: list[str],
    *,
    complete: bool,
    hint: str,
) -> None:
    """Refuse weights that do not fill the model."""
    common = wanted.keys() & found.keys()
    if 2 * len(common) < len(wanted):
        raise CheckpointError(
            f"{report.source} is of another model; nothing was loaded. {len(common)} of {len(wanted)} names agree: "
            f"its tensors are called {some(found, 5)}; the model's {some(wanted, 5)}. "
            "Give weights of the model that MODEL.MODEL_NAME names."
        )
    if complete and (sizes := _class_counts(found, wanted)) and sizes[0] != sizes[1]:
        raise CheckpointError(
            f"{report.source} tells {sizes[0]} classes apart and the model {sizes[1]}; nothing was loaded. "
            f"Set MODEL.NUM_CLASSES {sizes[0]}, or give weights that were trained for {sizes[1]} classes."
        )
    too_little = (complete and report.missing) or report.coverage < MIN_COVERAGE
    if shapes or too_little:
        lists = [f"  of another shape: {some(shapes)}"] if shapes else []
        needed = "all is needed for a test" if complete else f"at least {MIN_COVERAGE:.0%} is needed"
        raise CheckpointError(
            f"{report.source} ({report.kind}) does not fit the model; nothing was loaded. It covers "
            f"{percent(report.coverage)} of the backbone's parameters, and {needed}.\n"
            + "\n".join(lists + report.details())
            + f"\nBuild the model with the sizes that the weights were trained with{hint}"
        )


def _differences(
    weights: Weights, wanted: Mapping[str, Tensor], vit: Any, *, complete: bool
) -> tuple[list[str], list[str]]:
    """What keeps a vision transformer's weights from a `vit`, and what mends it; nothing for weights of other kinds."""
    tensors = weights.tensors
    theirs, ours = vit_sizes(tensors), vit_sizes(wanted)
    if vit is None or not theirs:
        return [], []
    attention_type = weights.attention_type
    if attention_type not in _TEMPORAL:  # weights of pictures start any model, but are no other whole one
        attention_type = "space_only" if complete else None
    found = {name.upper(): theirs[name] for name in _SETTINGS}
    found |= {"NUM_HEADS": weights.num_heads, "ATTENTION_TYPE": attention_type}
    here = {name.upper(): ours[name] for name in _SETTINGS}
    here |= {"NUM_HEADS": vit.blocks[0].attn.num_heads, "ATTENTION_TYPE": vit.attention_type}
    settings = {key: value for key, value in found.items() if value not in (None, here[key])}
    lines = [f"{key}: {value} in the weights, {here[key]} in the model" for key, value in settings.items()]
    advice = [f"set {' '.join(f'TIMESFORMER.{key} {value}' for key, value in settings.items())}"] if settings else []
    if weights.num_heads is None and found["EMBED_DIM"] % here["NUM_HEADS"]:
        advice.append("and TIMESFORMER.NUM_HEADS to what they were trained with, which they do not tell")
    extra = [name for name in tensors if name.startswith(_LAYERS) and name not in wanted]
    if extra and not lines:
        lines.append(f"layers that the model does not have: {some(extra)}")
        advice.append("take weights without these layers instead, for no setting adds them")
    if weights.kind == "image ViT" and not _has_class_row(weights, vit):
        lines.append("pos_embed: positions without a class token, which this project's models have")
        advice.append("take a ViT whose class token has a position instead, for no setting goes without")
    elif grid_of(weights, vit.grid) is None:
        lines.append(f"pos_embed is of {tensors['pos_embed'].shape[1] - 1} patches, which is no square")
        advice.append(
            "set DATA.TRAIN_CROP_SIZE and DATA.TEST_CROP_SIZE to the [height,width] that they were trained with"
        )
    return lines, advice


def _has_class_row(weights: Weights, vit: Any) -> bool:
    """Whether the first row of an image ViT's `pos_embed` is the class token's."""
    rows = weights.tensors["pos_embed"].shape[1]
    is_square = int(rows**0.5) ** 2 == rows
    return "cls_token" in weights.tensors and (grid_of(weights, vit.grid) is not None or not is_square)


def _fitted(weights: Weights, wanted: Mapping[str, Tensor], vit: Any) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """The weights in the model's sizes, and what was resized and copied for that."""
    tensors = dict(weights.tensors)
    resized: list[str] = []
    copied: list[str] = []
    if vit is None or not vit_sizes(tensors):
        return tensors, resized, copied
    width = vit.pos_embed.shape[2]

    position, old_grid = tensors["pos_embed"], grid_of(weights, vit.grid)
    if old_grid not in (None, vit.grid) and position.shape[::2] == (1, width):
        tensors["pos_embed"] = resize_position(position, old_grid=old_grid, new_grid=vit.grid)
        resized.append(f"pos_embed {'x'.join(map(str, old_grid))} -> {'x'.join(map(str, vit.grid))} (bicubic)")
    time, num_frames = tensors.get("time_embed"), vit.input_shape[1]
    if time is not None and "time_embed" in wanted and time.numel() and time.shape == (1, time.numel() // width, width):
        tensors["time_embed"] = resize_time(time, num_frames)
        if time.shape[1] != num_frames:
            resized.append(f"time_embed {time.shape[1]} -> {num_frames} frames (linear)")
    patches, in_chans = tensors["patch_embed.proj.weight"], vit.input_shape[0]
    if patches.shape[1] != in_chans:
        tensors["patch_embed.proj.weight"] = adapt_channels(patches, in_chans)
        resized.append(f"patch_embed.proj.weight {patches.shape[1]} -> {in_chans} channels")

    if weights.attention_type in (None, "joint_space_time", "space_only"):  # of others nothing may be missing
        for name in wanted:
            source = _STEPS.sub(".", name)
            if source != name and source in tensors:
                tensors[name] = tensors[source]
                copied.append(name)
    return tensors, resized, copied


def _output_layer(found: Mapping[str, Tensor], head: Sequence[str]) -> dict[str, Tensor]:
    """The weights' tensors of the last layer of the head, which have a row for each class."""
    layer = head[-1].rpartition(".")[0] if head else ""
    return {name: found[name] for name in head if name in found and name.rpartition(".")[0] == layer}


def _compare_classes(
    weights: Weights, found: Mapping[str, Tensor], head: Sequence[str], mine: list[str]
) -> tuple[list[int], list[str]]:
    """Where the weights' head has the rows of the data's classes `mine`, and a sentence, unless it is the same order.

    The places are empty for other classes.
    """
    theirs = weights.class_names
    rows = {tuple(tensor.shape[:1]) for tensor in _output_layer(found, head).values()}
    if not mine or mine == theirs or rows != {(len(theirs),)}:
        return [], []
    if sorted(mine) == sorted(theirs) and len(set(mine)) == len(mine):
        order = [theirs.index(name) for name in mine]
        label = next(label for label, place in enumerate(order) if label != place)
        return order, [
            f"the head's rows were put into the data's order of classes (label {label}: {mine[label]!r} in the data, "
            f"{theirs[label]!r} in the weights)"
        ]
    other = ([name for name in names if name not in known] for names, known in ((theirs, mine), (mine, theirs)))
    there, here = (some(names, 5) or "repeated names" for names in other)
    return [], [f"the weights know other classes: {there}; the data: {here}"]


def _class_counts(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[int, int] | None:
    """Rows of the head in the weights and in the model."""
    for name, tensor in wanted.items():
        if name.split(".")[0] in HEADS and name in found and found[name].ndim and tensor.ndim:
            return len(found[name]), len(tensor)
    return None


def _why_anew(
    anew: list[str], found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], classes: list[str]
) -> list[str]:
    """The tensors of a head that starts anew, the last with the reason."""
    if not anew:
        return []
    counts = _class_counts(found, wanted)
    if counts and counts[0] != counts[1]:
        reason = f"{counts[0]} classes in the weights, {counts[1]} in the model"
    else:
        reason = next(iter(classes), "the weights' head has another shape" if counts else "the weights have no head")
    return [*anew[:-1], f"{anew[-1]} ({reason})"]


def _share(sizes: Mapping[str, int], loaded: Mapping[str, Tensor]) -> float:
    return sum(size for name, size in sizes.items() if name in loaded) / max(sum(sizes.values()), 1)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
