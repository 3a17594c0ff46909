"""From the configuration to an optimiser and a learning-rate schedule."""

from __future__ import annotations

from collections.abc import Callable

import torch
from fvcore.common.config import CfgNode
from torch import nn

from timesformer.optim.schedule import make_schedule
from timesformer.utils.errors import ConfigError


def build_optimizer(model: nn.Module, cfg: CfgNode) -> torch.optim.Optimizer:
    """SGD, Adam or AdamW over the parameters that have gradients.

    Weight decay is for matrices only: biases, norms and what `model.no_weight_decay()` names go without.

    Raises:
        ConfigError: settings of SGD that exclude each other.
    """
    from timm.optim import param_groups_weight_decay  # imports torchvision: seconds

    solver = cfg.SOLVER
    no_weight_decay: Callable[[], set[str]] = getattr(model, "no_weight_decay", set)
    groups = param_groups_weight_decay(model, solver.WEIGHT_DECAY, no_weight_decay_list=no_weight_decay())
    if solver.OPTIMIZING_METHOD == "sgd":
        if solver.NESTEROV and (solver.MOMENTUM == 0 or solver.DAMPENING != 0):
            raise ConfigError(
                f"SOLVER.NESTEROV True needs momentum and no dampening, but SOLVER.MOMENTUM is {solver.MOMENTUM} and "
                f"SOLVER.DAMPENING {solver.DAMPENING}; set SOLVER.NESTEROV False"
            )
        return torch.optim.SGD(
            groups,
            lr=solver.BASE_LR,
            momentum=solver.MOMENTUM,
            dampening=solver.DAMPENING,
            nesterov=solver.NESTEROV,
        )
    optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[solver.OPTIMIZING_METHOD]
    return optimizer(groups, lr=solver.BASE_LR, betas=tuple(solver.BETAS))


def build_schedule(cfg: CfgNode) -> Callable[[float], float]:
    """The schedule that SOLVER describes."""
    solver = cfg.SOLVER
    return make_schedule(
        policy=solver.LR_POLICY,
        base_lr=solver.BASE_LR,
        max_epoch=solver.MAX_EPOCH,
        cosine_end_lr=solver.COSINE_END_LR,
        steps=solver.STEPS,
        relative_lrs=solver.LRS,
        warmup_epochs=solver.WARMUP_EPOCHS,
        warmup_start_lr=solver.WARMUP_START_LR,
    )
