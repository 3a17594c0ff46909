"""Weights from a file into a model: all of them or a clear error, never a part in silence."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from timesformer.utils.errors import CheckpointError

WRAPPERS = ("model_state", "model", "state_dict")
HEADS = ("head", "fc", "classifier")  # first part of a classifier's parameter names, here and in torchvision


def load_weights(model: nn.Module, path: str | Path, *, new_head: bool = True) -> str:
    """Copy the weights of a file into `model`.

    The names may have any of the prefixes `module.` and `model.`, on either side. With `new_head` the
    classifier may differ in its number of classes; it then keeps its initialisation.

    Args:
        path: a `.safetensors` file, or one that torch can load without running code (`.pyth`, `.pt`).
        new_head: whether the classifier may have another number of classes.

    Returns:
        What was loaded and what was not, in one or two sentences.

    Raises:
        CheckpointError: unreadable file, or missing, unexpected or wrongly shaped tensors (all listed).
    """
    path = str(path)
    found = _without_prefixes(read_tensors(path), path)
    own = model.state_dict()
    wanted = {_strip(name): tensor for name, tensor in own.items()}
    resized_head = sorted(
        name
        for name in wanted.keys() & found.keys()
        if new_head
        and name.split(".")[0] in HEADS
        and wanted[name].shape != found[name].shape
        and wanted[name].shape[1:] == found[name].shape[1:]
    )
    problems = {
        "missing": [name for name in wanted if name not in found],
        "unexpected": [name for name in found if name not in wanted],
        "of another shape": [
            f"{name} {_shape(found[name])}, the model has {_shape(wanted[name])}"
            for name in wanted
            if name in found and name not in resized_head and wanted[name].shape != found[name].shape
        ],
    }
    if any(problems.values()):
        lists = "\n".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in problems.items() if names)
        raise CheckpointError(
            f"{path} does not fit the model; nothing was loaded.\n{lists}\n"
            "Build the model with the sizes, frames and attention type that the file was trained with."
        )
    model.load_state_dict({name: own[name] if _strip(name) in resized_head else found[_strip(name)] for name in own})
    report = f"{path}: {len(own) - len(resized_head)} of {len(own)} tensors loaded."
    if resized_head:
        in_file, in_model = found[resized_head[0]].shape[0], wanted[resized_head[0]].shape[0]
        report += f" The head starts anew ({in_file} classes in the file, {in_model} in the model): "
        report += f"{', '.join(resized_head)}."
    return report


def read_file(path: str | Path) -> object:
    """What a checkpoint or a file of weights holds, on the CPU: tensors and plain values; no code is run.

    Raises:
        CheckpointError: the file is missing or damaged, is of another kind, or brings code.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        if Path(path).suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many types; torch's own text would advise to run the code in the file
        kind = type(error).__name__
        raise CheckpointError(
            f"{path}: not a file of weights that torch can read without running code ({kind})"
        ) from error


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Names and tensors of a file of weights, out of the wrappers that training frameworks put around them.

    Raises:
        CheckpointError: as `read_file`, or no tensors in it.
    """
    found = read_file(path)
    content = found if isinstance(found, dict) else {}
    while inner := next((content[key] for key in WRAPPERS if isinstance(content.get(key), dict)), None):
        content = inner
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f"{path}: holds no tensors, at the top or under {', '.join(WRAPPERS)}")
    return tensors


def _without_prefixes(tensors: dict[str, Tensor], path: str) -> dict[str, Tensor]:
    stripped = {_strip(name): tensor for name, tensor in tensors.items()}
    if len(stripped) < len(tensors):
        raise CheckpointError(f"{path}: two tensors have the same name apart from the prefixes module. and model.")
    return stripped


def _strip(name: str) -> str:
    return re.sub(r"^((module|model)\.)+", "", name)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _some(names: Iterable[str], limit: int = 20) -> str:
    names = list(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
