"""Which parameters are frozen: those that match patterns, or all but the last layers."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from timesformer.utils.errors import ConfigError


def freeze(model: nn.Module, *, patterns: Sequence[str] = (), trainable_blocks: int | None = None) -> str:
    """Take the gradients from some parameters of `model`; both arguments together freeze what either does.

    Call it before the optimiser is built and before `DistributedDataParallel` wraps the model: both look at
    `requires_grad` once.

    Args:
        patterns: globs (`fnmatch`) on whole parameter names, with or without their leading "model.".
        model: with the contract of models/contract.py where `trainable_blocks` is given.
        trainable_blocks: train only the head (0: a linear probe), or the last so many of `model.blocks` and what is
            above them, final norm and head.

    Returns:
        What is frozen and what is trained, in one line; empty when nothing is frozen.

    Raises:
        ConfigError: a pattern without a match, more blocks than there are, or nothing left to train; the model is
            then as it was.
    """
    short = {name: name.removeprefix("model.") for name, _ in model.named_parameters()}
    matches = {
        pattern: {name for name in short if fnmatchcase(name, pattern) or fnmatchcase(short[name], pattern)}
        for pattern in patterns
    }
    if unmatched := [pattern for pattern, names in matches.items() if not names]:
        raise ConfigError("\n".join(_no_match(pattern, list(short.values())) for pattern in unmatched))
    frozen = set().union(*matches.values())
    if trainable_blocks is not None:
        frozen |= short.keys() - _last_layers(model, trainable_blocks)
    if len(frozen) == len(short):
        settings = [f"TRAIN.FREEZE {list(patterns)}"] if patterns else []
        settings += [f"TRAIN.TRAINABLE_BLOCKS {trainable_blocks}"] if trainable_blocks is not None else []
        raise ConfigError(
            f"{' with '.join(settings)} freezes the whole model, and nothing is left to train. "
            "Take a pattern out, or type TRAIN.FREEZE [] TRAIN.TRAINABLE_BLOCKS 0 to train the head only"
        )
    for name, parameter in model.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
    return _report(model, short) if frozen else ""


def set_training_mode(model: nn.Module) -> None:
    """`model.train()`, but what is frozen as a whole stays in eval mode.

    A module all of whose parameters are frozen, with everything below it, has no dropout and no stochastic depth and
    keeps its running statistics. Modules without parameters go with the module that holds them.
    """
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def _last_layers(model: Any, num_blocks: int) -> set[str]:
    """Names of the parameters of the head and, for `num_blocks` above 0, of the last blocks and all above them."""
    depth = len(model.blocks)
    if num_blocks > depth:
        raise ConfigError(
            f"TRAIN.TRAINABLE_BLOCKS {num_blocks}, but the model has {depth} blocks. "
            f"Type TRAIN.TRAINABLE_BLOCKS {depth}"
        )
    layers = [model.head, *(list(model.blocks)[depth - num_blocks :])]
    trained = {id(parameter) for layer in layers for parameter in layer.parameters()}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in trained}
    if num_blocks:
        below = "|".join(model.group_matcher().values())
        names |= {name for name, _ in model.named_parameters() if not re.match(below, name)}
    return names


def _no_match(pattern: str, names: Collection[str]) -> str:
    """One sentence about a pattern that matches nothing, with near patterns that would match."""
    modules = {name[: dot.start()] + ".*": None for name in names for dot in re.finditer(r"\.", name)}
    wider = [f"{pattern}.*", f"*.{pattern}", f"*.{pattern}.*"]
    near = [candidate for candidate in wider if any(fnmatchcase(name, candidate) for name in names)]
    near = near or difflib.get_close_matches(pattern, [*modules, *names], n=3)
    return (
        f"TRAIN.FREEZE: {pattern!r} matches no parameter of the model; "
        + (f"near it are {', '.join(near)}. " if near else "patterns are compared with whole names. ")
        + f"For example TRAIN.FREEZE \"['{next(iter([*near, *modules]))}']\""
    )


def _report(model: nn.Module, short: dict[str, str]) -> str:
    """One line: how much is frozen and which layers are trained."""
    sizes = {name: (parameter.numel(), parameter.requires_grad) for name, parameter in model.named_parameters()}
    total = sum(size for size, _ in sizes.values())
    frozen = sum(size for size, trained in sizes.values() if not trained)
    scale, unit = (1e6, "M") if total >= 1e6 else (1e3, "k")
    layers = [re.match(r"(blocks\.\d+|[^.]+)", short[name]) for name, (_, trained) in sizes.items() if trained]
    trained = list(dict.fromkeys(layer[0] for layer in layers if layer))
    more = f" and {len(trained) - 8} more" if len(trained) > 8 else ""
    return (
        f"frozen: {frozen / scale:.1f} {unit} of {total / scale:.1f} {unit} parameters; "
        f"trained: all or part of {', '.join(trained[:8])}{more}"
    )
