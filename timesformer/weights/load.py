"""Fit weights of any known source into a model and report what was done; or an error, and the model is as it was."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from timesformer.utils.errors import CheckpointError
from timesformer.weights.layouts import WEIGHT_TYPES, Weights, grid_of, read_weights, strip_prefixes, vit_sizes
from timesformer.weights.resizing import adapt_channels, resize_position, resize_time

MIN_COVERAGE = 0.9  # share of the backbone's parameters that a file has to fill
_SETTINGS = ("embed_dim", "patch_size", "depth", "mlp_ratio", "qkv_bias", "num_heads", "attention_type")
_ONE_ATTENTION = (None, "joint_space_time", "space_only")  # attention types with one attention a block, as image models
_STEPS = re.compile(r"\.(temporal|height|local)_")  # the first steps of a block, which weights of images do not have
_ZEROED = {"time_embed", "temporal_fc", "height_fc", "local_fc"}  # what lets time in; zero without weights for it
# Tensors of a ViT that change what it computes wherever they are, so that a model without them is another one.
_LAYERS = ("blocks.", "norm_pre.", "reg_token")
_PARTLY = "only what fits: allow_partial=True (TRAIN.ALLOW_PARTIAL_LOAD True)"


@dataclass
class LoadReport:
    """What a load did. Names are without prefixes such as `model.`."""

    source: str  # as the user named it
    kind: str  # of the source, such as "TimeSformer" or "image ViT"
    is_ema: bool  # the weights are an average over training
    has_ema: bool  # the source holds such an average, which was not used
    num_loaded: int = 0  # tensors of the model that came from the source: as they are, resized or copied
    num_tensors: int = 0  # of the model
    share: float = 0.0  # of all parameters of the model that came from the source, 0..1
    coverage: float = 0.0  # the same of the backbone, which is everything but the head
    resized: list[str] = field(default_factory=list)  # from what to what
    copied: list[str] = field(default_factory=list)  # tensors that got the values of another one
    zeroed: list[str] = field(default_factory=list)  # set to zero, so that what they scale adds nothing at first
    reinitialised: list[str] = field(default_factory=list)  # tensors of a head that keeps the model's values, and why
    other_shape: list[str] = field(default_factory=list)  # other tensors that do not fit
    missing: list[str] = field(default_factory=list)  # other tensors that the source does not have
    unexpected: list[str] = field(default_factory=list)  # tensors of the source that the model does not have
    differences: list[str] = field(default_factory=list)  # settings that differ (only with `allow_partial`)
    classes: list[str] = field(default_factory=list)  # what was done about class names that are not the data's
    class_names: list[str] = field(default_factory=list)  # of the source; empty: unknown
    clip: dict[str, Any] = field(default_factory=dict)  # fields of a `ClipSpec` that the source states
    settings: dict[str, Any] = field(default_factory=dict)  # of the training, by dotted key, if stated
    notes: list[str] = field(default_factory=list)  # how the tensors were found in the source
    kernels: dict[str, Any] = field(default_factory=dict)  # see `Weights`

    def __str__(self) -> str:
        """One line, and one more for each list that is not empty."""
        kind = f"{self.kind}, moving average" if self.is_ema else self.kind
        shares = f"{_percent(self.share)} of parameters, {_percent(self.coverage)} of the backbone"
        first = f"{self.source} ({kind}): loaded {self.num_loaded}/{self.num_tensors} tensors ({shares})"
        return "\n".join([first, *(f"  {note}" for note in self.notes), *self.details()])

    def details(self) -> list[str]:
        """One line for each list that is not empty; names of many blocks are joined, long lists cut short."""
        titles = {"zeroed": "set to zero", "other_shape": "of another shape"}
        lists = ("resized", "copied", "zeroed", "reinitialised", "other_shape", "missing", "unexpected", "differences")
        found = {name: getattr(self, name) for name in (*lists, "classes")}
        return [f"  {titles.get(name, name)}: {_join(names)}" for name, names in found.items() if names]


def load_weights(
    model: nn.Module,
    source: str | Path | Weights,
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
        model: its `head`, if any, is the classifier, whose last layer has a row for each class. A model on torch's meta
            device takes the tensors themselves, and what does not come from `source` stays there.
        source: a file, a Hugging Face folder, "timm:NAME" or "hf:REPO_ID", or what `read_weights` gave of it.
        complete: every tensor has to come from the source, as for a test. Otherwise, for fine-tuning, a head of
            another size is reinitialised, and `MIN_COVERAGE` of the backbone is enough.
        allow_partial: for fine-tuning, load what fits also from other architectures.
        ema: use the average of the weights where the source has one.
        class_names: of the data, by label; empty when unknown. Where the source has the same in another order, the
            head's rows are put into this one; for fine-tuning, a head for other classes is reinitialised.

    Raises:
        CheckpointError: unreadable source, or one that does not fit; the model is then as it was before.
    """
    weights = source if isinstance(source, Weights) else read_weights(source, ema=ema)
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
    wanted = {strip_prefixes(name): tensor for name, tensor in model.state_dict(keep_vars=True).items()}
    report = LoadReport(weights.source, weights.kind, is_ema=weights.is_ema, has_ema=weights.has_ema)
    report.class_names, report.clip, report.num_tensors = weights.class_names, weights.clip, len(wanted)
    report.notes, report.settings, report.kernels = weights.notes, weights.settings, weights.kernels
    vit = next((module for module in model.modules() if hasattr(module, "attention_type")), None)
    advice = _compare(weights, wanted, vit, report, complete=complete)
    if report.differences and not allow_partial:
        raise CheckpointError(
            f"{weights.source} ({weights.kind}) is of another architecture; nothing was loaded.\n"
            + "\n".join(f"  {line}" for line in report.differences)
            + f"\nTo use them, {'; '.join(advice)}"
            + ("" if complete else f"\nTo load {_PARTLY}")
        )
    found = _fit(weights, wanted, vit, report)
    fitting = {name for name in wanted if name in found and found[name].shape == wanted[name].shape}
    if not (allow_partial and fitting):
        _check_names(weights.source, found, wanted)
    head = _head_names(model, wanted)
    reason = _fit_head(found, {name: wanted[name] for name in head}, class_names, report, complete=complete)
    if reason and not complete:
        fitting -= set(head)
        report.reinitialised = [*head[:-1], f"{head[-1]} ({reason})"]
        report.classes = []
    zeroed = _ZEROED if vit and not complete and weights.attention_type in _ONE_ATTENTION else set()
    _list_the_rest(report, found, wanted, fitting, head=set(head) if report.reinitialised else set(), zeroed=zeroed)
    sizes = {strip_prefixes(name): parameter.numel() for name, parameter in model.named_parameters()}
    report.num_loaded, report.share = len(fitting), _share(sizes, fitting)
    report.coverage = _share({name: size for name, size in sizes.items() if name not in head}, fitting)
    if not (allow_partial and fitting):
        _check_coverage(report, complete=complete, allow_partial=allow_partial)
    new = {name: found[name] for name in fitting}
    return new | {name: torch.zeros_like(wanted[name]) for name in report.zeroed}, report


def _check_names(source: str, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Refuse weights of another model, most of whose names do not agree."""
    common = wanted.keys() & found.keys()
    if 2 * len(common) < len(wanted):
        raise CheckpointError(
            f"{source} is of another model; nothing was loaded. {len(common)} of {len(wanted)} names agree: "
            f"its tensors are called {_join(found, 5)}; the model's {_join(wanted, 5)}. "
            "Give weights of the model that MODEL.MODEL_NAME names."
        )


def _check_coverage(report: LoadReport, *, complete: bool, allow_partial: bool) -> None:
    """Refuse weights that fill too little of the model, or tensors of another shape."""
    if not (report.other_shape or (complete and report.missing) or report.coverage < MIN_COVERAGE):
        return
    needed = "all is needed for a test" if complete else f"at least {MIN_COVERAGE:.0%} is needed"
    raise CheckpointError(
        f"{report.source} ({report.kind}) does not fit the model; nothing was loaded. It covers "
        f"{_percent(report.coverage)} of the backbone's parameters, and {needed}.\n"
        + "\n".join(report.details())
        + "\nBuild the model with the sizes that the weights were trained with, or "
        + ("give other weights." if complete or allow_partial else f"load {_PARTLY}")
    )


def _list_the_rest(
    report: LoadReport,
    found: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    fitting: set[str],
    *,
    head: set[str],
    zeroed: set[str],
) -> None:
    """Report the tensors that are not loaded, apart from a reinitialised `head`; layers `zeroed` become 0."""
    report.zeroed = [name for name in wanted if name not in found and zeroed.intersection(name.split("."))]
    others = [name for name in wanted if name not in fitting | head]
    report.missing = [name for name in others if name not in found and name not in report.zeroed]
    report.other_shape = [
        f"{name} {_shape(found[name].shape)}, the model has {_shape(wanted[name].shape)}"
        for name in others
        if name in found
    ]
    report.unexpected = [name for name in found if name not in wanted]
    report.copied = [name for name in report.copied if name in fitting]


def _compare(
    weights: Weights, wanted: Mapping[str, Tensor], vit: Any, report: LoadReport, *, complete: bool
) -> list[str]:
    """Report how a vision transformer's weights differ from the `vit`; what to do about it.

    Refused are whole numbers and packed values where the model has weights; counters and indices may be whole.
    """
    tensors = weights.tensors
    for name, tensor in wanted.items():
        if name in tensors and tensor.is_floating_point() and tensors[name].dtype not in WEIGHT_TYPES:
            raise CheckpointError(
                f"{weights.source}: {name} is of type {tensors[name].dtype}, and weights are floating-point numbers of "
                "16 to 64 bits; nothing was loaded. Give the model as it was before it was quantised or converted."
            )
    theirs, ours = vit_sizes(tensors), vit_sizes(wanted)
    if vit is None or not theirs:
        return []
    theirs |= {"num_heads": weights.num_heads, "attention_type": weights.attention_type}
    if weights.attention_type in (None, "space_only"):  # weights of images start any model, but complete no other one
        theirs["attention_type"] = "space_only" if complete else None
    ours |= {"num_heads": vit.blocks[0].attn.num_heads, "attention_type": vit.attention_type}
    settings = {name: theirs[name] for name in _SETTINGS if theirs[name] not in (None, ours[name])}
    report.differences = [
        f"{name.upper()}: {value} in the weights, {ours[name]} in the model" for name, value in settings.items()
    ]
    keys = " ".join(f"TIMESFORMER.{name.upper()} {value}" for name, value in settings.items())
    advice = [f"set {keys}"] if settings else []
    if weights.num_heads is None and theirs["embed_dim"] % ours["num_heads"]:
        advice.append("and TIMESFORMER.NUM_HEADS to what they were trained with, which they do not state")
    extra = [name for name in tensors if name.startswith(_LAYERS) and name not in wanted]
    if extra and not report.differences:
        report.differences.append(f"layers that the model does not have: {_join(extra)}")
        advice.append("take weights without these layers instead, for no setting adds them")
    num_rows, grid = tensors["pos_embed"].shape[1], grid_of(weights, vit.grid)
    has_class_row = "cls_token" in tensors and (grid is not None or math.isqrt(num_rows) ** 2 != num_rows)
    if weights.kind == "image ViT" and not has_class_row:
        report.differences.append("pos_embed: positions without a class token, which this project's models have")
        advice.append("take a ViT whose class token has a position instead, for no setting removes it")
    elif grid is None:
        report.differences.append(f"pos_embed is of {num_rows - 1} patches, which is no square")
        advice.append("set DATA.TRAIN_CROP_SIZE and DATA.TEST_CROP_SIZE to the [height,width] of their training")
    return advice


def _fit(weights: Weights, wanted: Mapping[str, Tensor], vit: Any, report: LoadReport) -> dict[str, Tensor]:
    """The weights in the model's sizes; what was resized and copied for that goes into the report."""
    tensors = dict(weights.tensors)
    if vit is None or not vit_sizes(tensors):
        return tensors
    (in_chans, num_frames), width = vit.input_shape[:2], wanted["pos_embed"].shape[2]
    position, old_grid = tensors["pos_embed"], grid_of(weights, vit.grid)
    if old_grid not in (None, vit.grid) and position.shape[::2] == (1, width):
        tensors["pos_embed"] = resize_position(position, old_grid=old_grid, new_grid=vit.grid)
        report.resized.append(f"pos_embed {_shape(old_grid)} -> {_shape(vit.grid)} (bicubic)")
    time = tensors.get("time_embed") if "time_embed" in wanted else None
    if time is not None and time.ndim == 3 and time.shape[::2] == (1, width) and time.shape[1] not in (0, num_frames):
        tensors["time_embed"] = resize_time(time, num_frames)
        report.resized.append(f"time_embed {time.shape[1]} -> {num_frames} frames (linear)")
    patches = tensors["patch_embed.proj.weight"]
    if patches.shape[1] != in_chans:
        tensors["patch_embed.proj.weight"] = adapt_channels(patches, in_chans)
        report.resized.append(f"patch_embed.proj.weight {patches.shape[1]} -> {in_chans} channels")
    if weights.attention_type in _ONE_ATTENTION:  # of others nothing may be missing
        sources = {name: _STEPS.sub(".", name) for name in wanted}
        report.copied = [name for name, source in sources.items() if name != source and source in tensors]
        tensors |= {name: tensors[sources[name]] for name in report.copied}
    return tensors


def _head_names(model: nn.Module, wanted: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors of the model's `head`, in order; none for a model without one."""
    heads = (getattr(module, "head", None) for module in model.modules())  # of the model inside its wrappers
    head = next((head for head in heads if isinstance(head, nn.Module)), nn.Identity())
    tensors = {id(tensor) for tensor in head.state_dict(keep_vars=True).values()}
    return [name for name, tensor in wanted.items() if id(tensor) in tensors]


def _fit_head(
    found: dict[str, Tensor], head: dict[str, Tensor], ours: list[str], report: LoadReport, *, complete: bool
) -> str:
    """Put the rows of the head's last layer, one for each class, into the order of the data's classes `ours`.

    Returns:
        Why the weights' head cannot be used; empty where it can.
    """
    layer = next(reversed(head), "").rpartition(".")[0]
    output = [name for name in head if name in found and name.rpartition(".")[0] == layer]
    rows = [(len(found[name]), len(head[name])) for name in output if found[name].ndim and head[name].ndim]
    if rows and rows[0][0] != rows[0][1]:
        there, here = rows[0]
        if complete:
            raise CheckpointError(
                f"{report.source} has {there} classes and the model {here}; nothing was loaded. "
                f"Set MODEL.NUM_CLASSES {there}, or give weights that were trained for {here} classes."
            )
        return f"{there} classes in the weights, {here} in the model"
    if any(name not in found or found[name].shape != tensor.shape for name, tensor in head.items()):
        return "the weights' head has another shape" if output else "the weights have no head"
    theirs = report.class_names
    if not ours or ours == theirs or {len(found[name]) for name in output} != {len(theirs)}:
        return ""
    if sorted(ours) == sorted(theirs) and len(set(ours)) == len(ours):
        order = [theirs.index(name) for name in ours]
        found |= {name: found[name][order] for name in output}
        label = next(label for label, row in enumerate(order) if label != row)
        report.classes = [
            f"the head's rows were put into the data's order of classes (label {label}: {ours[label]!r} in the data, "
            f"{theirs[label]!r} in the weights)"
        ]
        return ""
    other = ([name for name in names if name not in known] for names, known in ((theirs, ours), (ours, theirs)))
    in_weights, in_data = (_join(names, 5) or "repeated names" for names in other)
    report.classes = [f"the weights have other classes: {in_weights}; the data: {in_data}"]
    return report.classes[0]


def _share(sizes: Mapping[str, int], loaded: set[str]) -> float:
    return sum(size for name, size in sizes.items() if name in loaded) / max(sum(sizes.values()), 1)


def _percent(share: float) -> str:
    return f"{math.floor(1000 * share) / 10:g}%"  # rounded down: never 100% of what is not complete


def _shape(sizes: Iterable[int]) -> str:
    return "x".join(map(str, sizes)) or "scalar"


def _join(names: Iterable[str], limit: int = 12) -> str:
    """The names, those that differ in numbers only joined to one with a count, the list cut short after `limit`."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(re.sub(r"(?<=\.)\d+(?=\.)", "*", name), []).append(name)
    parts = [members[0] if len(members) == 1 else f"{group} ({len(members)}x)" for group, members in groups.items()]
    return ", ".join(parts[:limit]) + (f" and {len(parts) - limit} more" if len(parts) > limit else "")
