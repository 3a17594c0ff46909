"""A run's checkpoints: their names, what they hold, reading them back, and whether they are of this run.

A checkpoint is self-contained: tensors and plain values only, in one dictionary.

    format            1; a larger number is of a newer version
    model_state       the weights, under the names of the released TimeSformer files
    ema_state         their moving average, with EMA.ENABLED
    optimizer_state   scaler_state
    epoch             index of the last finished epoch, -1 before the first
    step              optimiser steps done of the epoch under way, 0 between two epochs
    num_processes, precision          of the run that wrote it
    best_score        of the validations so far  best_epoch  stale_epochs      when it was, and how long before the last
    clips_tried, clips_failed         of the epoch under way
    since_log         of each process, what it adds to the next log line
    clips_per_pass    of each process, the most of a forward pass where memory has limited it: resumed runs keep it
    cfg               the resolved configuration, YAML text
    num_heads         of the model's attention, which no tensor tells
    calibration       of the scores of the validation of these weights, or what `timesformer calibrate` put there
    class_names  preprocessing  metrics  versions  dataset       what explains the weights, and what feeds them

No state of a random generator is among it: every random number is a function of the seed, the epoch and the sample
(augmentation, mixing) or the step and the process (dropout, stochastic depth).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fvcore.common.config import CfgNode

from timesformer.config.defaults import KEY_BY_NAME, is_identity
from timesformer.utils.errors import CheckpointError, DamagedFileError
from timesformer.utils.logging import get_logger
from timesformer.video.clip_spec import ClipSpec
from timesformer.weights.files import read_file
from timesformer.weights.layouts import check_format, stored_settings

log = get_logger(__name__)

BEST_NAME = "checkpoint_best.pyth"
_NEEDED = {"format", "model_state", "optimizer_state", "epoch", "step", "cfg"}
_FILE_NAME = re.compile(r"checkpoint_epoch_(\d+)(?:_step_(\d+))?\.pyth")


class Position(NamedTuple):
    """A moment of training between two optimiser steps."""

    epoch: int = 0  # finished epochs
    step: int = 0  # finished optimiser steps of the epoch under way

    def __str__(self) -> str:
        epochs = f"{self.epoch} epoch{'' if self.epoch == 1 else 's'}"
        return f"{epochs} and {self.step} steps" if self.step else epochs


def checkpoint_path(output_dir: str | Path, position: Position) -> Path:
    """File of the checkpoint at `position`: checkpoint_epoch_00002.pyth, or ..._step_000030.pyth inside an epoch."""
    inside = f"_step_{position.step:06d}" if position.step else ""
    return Path(output_dir) / "checkpoints" / f"checkpoint_epoch_{position.epoch:05d}{inside}.pyth"


def best_path(output_dir: str | Path) -> Path:
    """File of the checkpoint with the best validation score."""
    return Path(output_dir) / "checkpoints" / BEST_NAME


def list_checkpoints(output_dir: str | Path) -> list[Path]:
    """The run's checkpoints, the newest first; the best one's copy is not among them."""

    def position(match: re.Match[str]) -> Position:
        return Position(int(match[1]), int(match[2] or 0))

    files = (Path(output_dir) / "checkpoints").glob("checkpoint_epoch_*.pyth")
    found = [(position(match), path) for path in files if (match := _FILE_NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def newest_checkpoint(output_dir: str | Path) -> Path | None:
    """The newest checkpoint of the run in `output_dir`, None when there is none."""
    return next(iter(list_checkpoints(output_dir)), None)


def tested_checkpoint(output_dir: str | Path, which: str = "last") -> Path | None:
    """The checkpoint of a run that TEST.CHECKPOINT names, "last" or "best"; None when it is not there."""
    path = best_path(output_dir) if which == "best" else newest_checkpoint(output_dir)
    return path if path is not None and path.is_file() else None


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint that a run can resume from; only tensors and plain values are unpickled.

    Raises:
        DamagedFileError: a file that is proven damaged.
        CheckpointError: no such file, a newer one, one that cannot be read now, or one without a run's state.
    """
    read = read_file(path)
    content: dict[str, Any] = read if isinstance(read, dict) else {}
    check_format(content, path)
    if lacking := sorted(_NEEDED - set(content)):
        raise CheckpointError(
            f"{path}: not a run of this project ({', '.join(lacking)} missing), so training cannot resume from it. "
            "To start from its weights only, add: TRAIN.FINETUNE True"
        )
    return content


def read_newest(output_dir: str | Path, *, rename: bool = False) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint that can be read, and its content; None when there is no checkpoint at all.

    One that is proven damaged is reported, renamed to *.damaged with `rename`, and the one before it taken.

    Raises:
        CheckpointError: all of them are damaged, or one cannot be used for another reason (a newer format, no
            permission, an error of the disk): that one may be sound, and training does not go back by itself.
    """
    problems: dict[Path, str] = {}
    for path in list_checkpoints(output_dir):
        try:
            content = read_checkpoint(path)
        except DamagedFileError as error:
            problems[path] = str(error)
            continue
        for damaged, problem in problems.items():
            log.warning("%s\nGoing back to %s", problem, path.name)
            if rename:  # so that it counts no more as the newest
                damaged.rename(damaged.with_suffix(".damaged"))
        return path, content
    if problems:
        raise CheckpointError("no checkpoint of this run can be read:\n" + "\n".join(problems.values()))
    return None


def position_of(content: Mapping[str, Any]) -> Position:
    """Where in the training a checkpoint was taken."""
    return Position(content["epoch"] + 1, content["step"])


def settings_of(cfg: CfgNode) -> dict[str, Any]:
    """Dotted key to plain value; it does not count as reading the keys."""
    return stored_settings({"cfg": cfg.dump()})


def preprocessing_of(cfg: CfgNode) -> dict[str, Any]:
    """The run's clips, as a checkpoint carries them along (`ClipSpec.to_dict`)."""
    return ClipSpec.from_config(cfg).to_dict()


def differences(
    content: Mapping[str, Any], cfg: CfgNode, dataset: Mapping[str, str], *, also: Collection[str] = ()
) -> list[str]:
    """One line for each thing that makes a checkpoint one of another run: model, data or recipe.

    Process counts, workers, devices, paths, logging and MAX_EPOCH make no other run.

    Args:
        content: of the checkpoint.
        cfg: of this run.
        dataset: fingerprint of each list of this run (train, val).
        also: keys that count besides.
    """
    before = {name: key.default for name, key in KEY_BY_NAME.items()} | stored_settings(content)
    now = settings_of(cfg)
    names = sorted(name for name in before.keys() | now.keys() if is_identity(name) or name in also)
    lines = [
        f"  {name}: {before.get(name, 'no such key')} there, {now.get(name, 'no such key')} here"
        for name in names
        if before.get(name) != now.get(name)
    ]
    lists = content.get("dataset", {})
    lines += [
        f"  the {split} list: {short(lists[split])} there, {short(found)} here"
        for split, found in dataset.items()
        if split in lists and lists[split] != found
    ]
    return lines


def check_same_run(content: Mapping[str, Any], path: str | Path, cfg: CfgNode, dataset: Mapping[str, str]) -> None:
    """Refuse to resume from a checkpoint of another run.

    Raises:
        CheckpointError: with everything that differs.
    """
    if lines := differences(content, cfg, dataset):
        raise CheckpointError(
            f"{path} is of another run, and training does not resume from it. What differs:\n" + "\n".join(lines) + "\n"
            "Choose another OUTPUT_DIR; to start there from these weights add: "
            f"TRAIN.CHECKPOINT_FILE_PATH {path} TRAIN.FINETUNE True"
        )


def short(fingerprint: str) -> str:
    """The fingerprint of a list without its histogram, the hash cut to eight digits."""
    sha, _, rest = fingerprint.removeprefix("sha256 ").partition(", ")
    return f"{rest.partition(',')[0]} ({sha[:8]})"
