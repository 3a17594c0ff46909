"""Which parameters stay as they are: those that match patterns, or all but the last layers."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from timesformer.utils.errors import ConfigError
from timesformer.utils.heads import HEADS


def freeze(model: nn.Module, *, patterns: Sequence[str] = (), trainable_blocks: int | None = None) -> str:
    """Take the gradients from some parameters of `model`; both arguments together freeze what either does.

    Call it before the optimiser is built and before `DistributedDataParallel` wraps the model: both look at
    `requires_grad` once.

    Args:
        patterns: globs (`fnmatch`) on whole parameter names, with or without their leading "model.".
        trainable_blocks: train only the head (0: a linear probe), or head, final norm and the last so many of `blocks`.

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
        last = _last_layers(short.values(), trainable_blocks)
        frozen |= {name for name in short if not short[name].startswith(last)}
    if len(frozen) == len(short):
        told = [f"TRAIN.FREEZE {list(patterns)}"] if patterns else []
        told += [f"TRAIN.TRAINABLE_BLOCKS {trainable_blocks}"] if trainable_blocks is not None else []
        raise ConfigError(
            f"{' with '.join(told)} freezes the whole model, and nothing is left to train. "
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


def _last_layers(names: Iterable[str], num_blocks: int) -> tuple[str, ...]:
    """Beginnings of the names that are trained: of the head and, for `num_blocks` above 0, of norm and last blocks."""
    matches = (re.match(r"blocks\.(\d+)\.", name) for name in names)
    depth = 1 + max((int(match[1]) for match in matches if match), default=-1)
    if num_blocks > depth:
        raise ConfigError(
            f"TRAIN.TRAINABLE_BLOCKS {num_blocks}, but the model has {depth or 'no'} blocks. "
            f"Type TRAIN.TRAINABLE_BLOCKS {depth}"
            + ("" if depth else " to train the head only, or name with TRAIN.FREEZE what stays as it is")
        )
    blocks = [f"blocks.{i}" for i in range(depth - num_blocks, depth)]
    return tuple(f"{layer}." for layer in (*HEADS, *(["norm"] if blocks else []), *blocks))


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
