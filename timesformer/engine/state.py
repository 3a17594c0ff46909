"""Everything that training changes: what a checkpoint holds, and what resuming puts back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from timesformer.distributed import group as distributed
from timesformer.distributed.parallel import full_state, load_full_state
from timesformer.engine.checkpoint import Position
from timesformer.engine.failures import FailureLog
from timesformer.engine.setup import Run
from timesformer.engine.start import Start
from timesformer.engine.step import StepTotals
from timesformer.evaluation.calibration import Calibration
from timesformer.utils.env import collect_versions
from timesformer.utils.errors import CheckpointError
from timesformer.utils.memory import PassSize
from timesformer.weights.layouts import FORMAT


def decisive_metric(setting: str, *, multi_label: bool) -> str:
    """The metric that decides which validation is the best: TRAIN.BEST_METRIC, of auto mAP or top1."""
    return setting if setting != "auto" else "mAP" if multi_label else "top1"


def decisive_score(metrics: Mapping[str, float | None], setting: str) -> float:
    """What TRAIN.BEST_METRIC `setting` makes of a validation, higher is better: of a loss its negative.

    NaN where the metric is missing or None, as in a validation of no video.
    """
    name = decisive_metric(setting, multi_label="mAP" in metrics)
    value = metrics.get(name)
    return math.nan if value is None else -value if name == "loss" else value


@dataclass
class TrainingState:
    """The parts of a training that change from step to step.

    Attributes:
        ema: the model with the averaged weights; None without EMA.
        failures: clips of the epoch under way that could not be read.
        since_log: what this process adds to the next log line.
        metrics: of the last epoch's validation; empty without one.
        calibration: of that validation's scores; on the first process.
        best_metric: the metric that decides, "auto" for mAP or top1.
        best_score: of all validations so far; of a loss its negative.
        best_epoch: finished epochs when it was measured.
        stale_epochs: epochs from there to the last validation.
        pass_size: the most clips of a forward pass of this process, where memory has limited it.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: nn.Module | None
    failures: FailureLog
    since_log: StepTotals = field(default_factory=StepTotals)
    metrics: Mapping[str, float] = field(default_factory=dict)
    calibration: Calibration | None = None
    best_metric: str = "auto"
    best_score: float = -math.inf
    best_epoch: int = 0
    stale_epochs: int = 0
    pass_size: PassSize = field(default_factory=partial(PassSize, key="TRAIN.BATCH_SIZE"))

    @property
    def tested_model(self) -> nn.Module:
        """The averaged weights when there are any."""
        return self.model if self.ema is None else self.ema

    def score(self, metrics: Mapping[str, float], *, epoch: int) -> bool:
        """Take note of a validation after so many epochs; whether it is the best so far."""
        self.metrics = metrics
        score = decisive_score(metrics, self.best_metric)
        is_best = score > self.best_score  # never of NaN, the score of no video
        if is_best:
            self.best_score, self.best_epoch = score, epoch
        self.stale_epochs = epoch - self.best_epoch
        return is_best

    def content(self, position: Position) -> dict[str, Any]:
        """What a checkpoint at `position` holds of the training (see engine/checkpoint.py); called on all processes."""
        learned = {
            "model_state": self.model.state_dict(),
            **({} if self.ema is None else {"ema_state": self.ema.state_dict()}),
            "optimizer_state": self.optimizer.state_dict(),
        }
        return {
            **full_state(learned, keep=distributed.rank() == 0),
            "scaler_state": self.scaler.state_dict(),
            "epoch": position.epoch - 1,
            "step": position.step,
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            "stale_epochs": self.stale_epochs,
            "clips_tried": self.failures.tried,
            "clips_failed": self.failures.failed,
            "since_log": distributed.all_gather(self.since_log.plain()),
            "metrics": dict(self.metrics),
            "clips_per_pass": distributed.all_gather(self.pass_size.clips),
            # Inside an epoch the weights are not those that were validated.
            **({"calibration": self.calibration.to_dict()} if self.calibration and not position.step else {}),
        }

    def restore(self, start: Start) -> None:
        """Put back what the checkpoint that training starts from holds; the model has its weights already.

        Raises:
            CheckpointError: it does not fit the model.
        """
        content = start.content
        if content is None:
            return
        if self.ema is not None and "ema_state" not in content:
            raise CheckpointError(f"{start.path}: holds no average of the weights. Add: EMA.ENABLED False")
        self._restore_optimizer(content["optimizer_state"], start.path)
        if content["scaler_state"]:  # of fp16 only
            self.scaler.load_state_dict(content["scaler_state"])
        if self.ema is not None:
            load_full_state(self.ema, content["ema_state"])
        if start.position > Position():
            self.metrics = content["metrics"]
            self.failures.tried, self.failures.failed = content["clips_tried"], content["clips_failed"]
            own = content["since_log"][distributed.rank() :: distributed.world_size()]
            self.since_log = StepTotals.from_plain(*own)
            sizes = content.get("clips_per_pass", [])  # older checkpoints have none
            if len(sizes) == distributed.world_size() and start.same_batch_size:
                self.pass_size.clips = sizes[distributed.rank()]
            if start.best_is_there:  # without the file, what comes next is the best that can be tested
                self.best_score = content["best_score"]
                self.stale_epochs = content.get("stale_epochs", 0)  # older checkpoints have none
                self.best_epoch = content.get("best_epoch", start.position.epoch)
            else:
                self.best_epoch = start.position.epoch

    def _restore_optimizer(self, saved: Mapping[str, Any], path: str) -> None:
        """Moments and step counts of the checkpoint; rates, decay and the like stay those of this run."""
        groups, theirs = self.optimizer.param_groups, saved["param_groups"]
        shapes = [[(len(g["params"]), "betas" in g) for g in one] for one in (theirs, groups)]  # SGD has no betas
        if shapes[0] != shapes[1]:
            raise CheckpointError(
                f"{path} was trained with another SOLVER.OPTIMIZING_METHOD, SOLVER.LAYER_DECAY, TRAIN.FREEZE or "
                "TRAIN.TRAINABLE_BLOCKS, and its optimiser's state does not fit. Set these as they were there, or "
                "start a new training from its weights: TRAIN.FINETUNE True"
            )
        merged = [own | {"params": group["params"]} for own, group in zip(groups, theirs, strict=True)]
        load_full_state(self.optimizer, {**saved, "param_groups": merged})


def description(
    run: Run,
    model: nn.Module,
    *,
    class_names: Sequence[str],
    dataset: Mapping[str, str],
    computed: Mapping[str, Any],
) -> dict[str, Any]:
    """What every checkpoint of a run holds besides the training's state: what the weights are and what they expect.

    Args:
        run: the run.
        model: of it.
        class_names: by label.
        dataset: fingerprints of the lists.
        computed: how, which decides the last bits: forms of operations, threads.
    """
    return {
        "format": FORMAT,
        "num_processes": run.processes.world_size,
        "precision": run.precision,
        **computed,
        "cfg": run.cfg.dump(),
        "class_names": list(class_names),
        "preprocessing": run.spec.to_dict(),
        "num_heads": next((module.num_heads for module in model.modules() if hasattr(module, "num_heads")), None),
        "versions": collect_versions(),
        "dataset": dict(dataset),
    }
