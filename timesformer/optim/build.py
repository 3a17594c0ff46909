"""From the configuration to an optimiser and a learning-rate schedule."""

from __future__ import annotations

from collections.abc import Callable

import torch
from fvcore.common.config import CfgNode
from torch import nn

from timesformer.optim.schedule import make_schedule


def build_optimizer(model: nn.Module, cfg: CfgNode) -> torch.optim.Optimizer:
    """SGD, Adam or AdamW over the parameters that have gradients.

    Weight decay is for matrices only: biases, norms and what `model.no_weight_decay()` names go without.
    """
    from timm.optim import param_groups_weight_decay  # imports torchvision: seconds

    solver = cfg.SOLVER
    no_weight_decay: Callable[[], set[str]] = getattr(model, "no_weight_decay", set)
    groups = param_groups_weight_decay(model, solver.WEIGHT_DECAY, no_weight_decay_list=no_weight_decay())
    if solver.OPTIMIZING_METHOD == "sgd":
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
    """The schedule that SOLVER describes; only the keys that it depends on are read."""
    solver = cfg.SOLVER
    cosine = solver.LR_POLICY == "cosine"
    return make_schedule(
        policy=solver.LR_POLICY,
        base_lr=solver.BASE_LR,
        max_epoch=solver.MAX_EPOCH,
        cosine_end_lr=solver.COSINE_END_LR if cosine else 0.0,
        steps=() if cosine else solver.STEPS,
        relative_lrs=() if cosine else solver.LRS,
        warmup_epochs=solver.WARMUP_EPOCHS,
        warmup_start_lr=solver.WARMUP_START_LR if solver.WARMUP_EPOCHS > 0 else 0.0,
    )
