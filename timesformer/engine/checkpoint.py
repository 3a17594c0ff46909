"""Save and restore a run: files `checkpoints/checkpoint_epoch_00015.pyth`, written whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from fvcore.common.config import CfgNode
from torch import nn

from timesformer.models.pretrained import read_file
from timesformer.utils.errors import CheckpointError

# Keys that may differ between the run that wrote a checkpoint and the one that goes on from it.
_MAY_DIFFER = re.compile(
    r"OUTPUT_DIR|NUM_GPUS|NUM_SHARDS|SHARD_ID|DIST_BACKEND|LOG_PERIOD|PRECISION|TEST\..*|TENSORBOARD\..*|DATA_LOADER\..*"
    r"|TRAIN\.(ENABLE|BATCH_SIZE|AUTO_RESUME|CHECKPOINT_PERIOD|CHECKPOINT_FILE_PATH|CHECKPOINT_EPOCH_RESET|EVAL_PERIOD|FINETUNE)"
    r"|TIMESFORMER\.PRETRAINED_MODEL|DATA\.(CLASS_NAMES_PATH|PATH_TO_DATA_DIR|PATH_PREFIX|DECODING_BACKEND|MAX_FAILED_FRACTION|ENSEMBLE_METHOD)|SOLVER\.MAX_EPOCH"
)


def checkpoint_path(output_dir: str | Path, epoch: int) -> Path:
    """File of the checkpoint after `epoch` finished epochs (counted from 1)."""
    return Path(output_dir) / "checkpoints" / f"checkpoint_epoch_{epoch:05d}.pyth"


def best_path(output_dir: str | Path) -> Path:
    """File of the checkpoint with the best validation score."""
    return Path(output_dir) / "checkpoints" / "checkpoint_best.pyth"


def newest_checkpoint(output_dir: str | Path) -> Path | None:
    """The checkpoint of the latest epoch in `output_dir`, None when there is none."""
    return max((Path(output_dir) / "checkpoints").glob("checkpoint_epoch_*.pyth"), default=None)


def save_checkpoint(
    output_dir: str | Path,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler_state: Mapping[str, Any],
    epoch: int,
    cfg: CfgNode,
    class_names: list[str],
    metrics: Mapping[str, float],
    best_score: float,
    is_best: bool,
) -> Path:
    """Write the checkpoint of the finished epoch `epoch` (counted from 0), and a copy of it when it is the best so far.

    The file holds `model_state`, `optimizer_state`, `scaler_state`, `epoch`, `cfg` (YAML text), `class_names`,
    `metrics` and `best_score`: tensors and plain values only.
    """
    path = checkpoint_path(output_dir, epoch + 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "model_state": model.state_dict(),
        "optimizer_state": optimizer.state_dict(),
        "scaler_state": dict(scaler_state),
        "epoch": epoch,
        "cfg": cfg.dump(),
        "class_names": class_names,
        "metrics": dict(metrics),
        "best_score": best_score,
    }
    temporary = path.with_suffix(".writing")
    torch.save(content, temporary)
    os.replace(temporary, path)
    if is_best:
        shutil.copyfile(path, temporary)
        os.replace(temporary, best_path(output_dir))
    return path


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read one of our checkpoints; only tensors and plain values are unpickled.

    Raises:
        CheckpointError: no such file, a damaged file, or one without a run's state.
    """
    read = read_file(path)
    content: dict[str, Any] = read if isinstance(read, dict) else {}
    lacking = {"model_state", "optimizer_state", "epoch", "cfg"} - set(content)
    if lacking:
        raise CheckpointError(
            f"{path}: holds no {', '.join(sorted(lacking))}, so a run cannot go on from it. "
            "To start from its weights only, add: TRAIN.FINETUNE True"
        )
    return content


def restore(
    content: Mapping[str, Any], path: str | Path, *, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Put the weights and the optimiser's state back.

    Raises:
        CheckpointError: the weights do not fit the model.
    """
    try:
        model.load_state_dict(content["model_state"])
        optimizer.load_state_dict(content["optimizer_state"])
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path}: does not fit this model: {error}") from error


def check_same_run(content: Mapping[str, Any], path: str | Path, cfg: CfgNode) -> None:
    """Refuse to go on from a checkpoint of another experiment.

    Raises:
        CheckpointError: with every setting that differs (paths, devices, logging and MAX_EPOCH may).
    """
    before, now = stored_settings(content), _flat(yaml.safe_load(cfg.dump()))
    names = sorted(name for name in before.keys() | now.keys() if not _MAY_DIFFER.fullmatch(name))
    lines = [
        f"  {name}: {before.get(name, 'unset')} there, {now.get(name, 'unset')} here"
        for name in names
        if before.get(name) != now.get(name)
    ]
    if lines:
        raise CheckpointError(
            f"{path} is of another run; training does not go on from it. What differs:\n" + "\n".join(lines) + "\n"
            "Choose another OUTPUT_DIR, or take only its weights: TRAIN.CHECKPOINT_FILE_PATH "
            f"{path} TRAIN.FINETUNE True"
        )


def stored_settings(content: object) -> dict[str, Any]:
    """Dotted key to value of the configuration stored in a checkpoint; empty when there is none of plain values."""
    text = content.get("cfg") if isinstance(content, Mapping) else None
    try:
        tree = yaml.safe_load(text) if isinstance(text, str) else None
    except yaml.YAMLError:  # another program's checkpoint
        tree = None
    return _flat(tree) if isinstance(tree, Mapping) else {}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat
