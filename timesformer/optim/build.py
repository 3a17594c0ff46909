"""From the configuration to what is trained, an optimiser, a schedule and an average of the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from fvcore.common.config import CfgNode
from torch import nn

from timesformer.optim.freezing import freeze
from timesformer.optim.schedule import make_schedule
from timesformer.utils.compute import is_sharded
from timesformer.utils.logging import get_logger

if TYPE_CHECKING:
    from timm.utils import ModelEmaV3

log = get_logger(__name__)


def freeze_parameters(model: nn.Module, cfg: CfgNode) -> None:
    """`freeze` what TRAIN.FREEZE and TRAIN.TRAINABLE_BLOCKS name, and log it; call it before `build_optimizer`.

    Raises:
        ConfigError: see `freeze`.
    """
    blocks = cfg.TRAIN.TRAINABLE_BLOCKS
    report = freeze(model, patterns=cfg.TRAIN.FREEZE, trainable_blocks=None if blocks == "auto" else blocks)
    if report:
        log.info(report)


def build_optimizer(model: Any, cfg: CfgNode) -> torch.optim.Optimizer:
    """SGD, Adam or AdamW over the parameters that have gradients, in torch's fused form where it has one.

    Weight decay is for matrices only: biases, norms and what `model.no_weight_decay()` names go without. With
    SOLVER.LAYER_DECAY d below 1 a group's `lr_scale` is d per layer below the head (as in BEiT, Bao et al., ICLR 2022).
    """
    solver = cfg.SOLVER
    if solver.LAYER_DECAY == 1:
        groups = weight_decay_groups(model, solver.WEIGHT_DECAY)
    else:
        from timm.optim import param_groups_layer_decay  # imports torchvision: seconds

        groups = param_groups_layer_decay(
            model,  # which has the `group_matcher` that timm requires
            solver.WEIGHT_DECAY,
            no_weight_decay_list=model.no_weight_decay(),
            layer_decay=solver.LAYER_DECAY,
        )
    base_lr = solver.BASE_LR * rate_scale(cfg)
    if solver.OPTIMIZING_METHOD == "sgd":
        return torch.optim.SGD(
            groups,
            lr=base_lr,
            momentum=solver.MOMENTUM,
            dampening=solver.DAMPENING,
            nesterov=solver.NESTEROV,
            fused=None if is_sharded(next(model.parameters())) else True,  # torch has none for shards
        )
    optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[solver.OPTIMIZING_METHOD]
    return optimizer(groups, lr=base_lr, betas=tuple(solver.BETAS), fused=True)


def weight_decay_groups(model: Any, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters without weight decay (biases, norms, what `model.no_weight_decay()` names), then those with it.

    The groups are those of timm's `param_groups_weight_decay`, whose import takes two seconds.
    """
    exempt: set[str] = getattr(model, "no_weight_decay", set)()
    groups: list[dict[str, Any]] = [{"params": [], "weight_decay": 0.0}, {"params": [], "weight_decay": weight_decay}]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_matrix = parameter.ndim > 1 and not name.endswith(".bias") and name not in exempt
            groups[is_matrix]["params"].append(parameter)
    return groups


def rate_scale(cfg: CfgNode) -> float:
    """What every learning rate is multiplied by: GLOBAL_BATCH_SIZE over SOLVER.BASE_LR_BATCH_SIZE.

    The linear rule of Goyal et al. (2017), "Accurate, Large Minibatch SGD", section 2.1; for "auto" 1.
    """
    reference = cfg.SOLVER.BASE_LR_BATCH_SIZE
    return 1.0 if reference == "auto" else cfg.GLOBAL_BATCH_SIZE / reference


def describe_rate(cfg: CfgNode) -> str:
    """The learning rate that the schedule starts from and the batch it is for, in words."""
    base, batch, reference = cfg.SOLVER.BASE_LR, cfg.GLOBAL_BATCH_SIZE, cfg.SOLVER.BASE_LR_BATCH_SIZE
    scale = rate_scale(cfg)
    message = f"learning rate {base * scale:.4g} for {batch} clips a step"
    if scale == 1:
        return message
    return f"{message}: SOLVER.BASE_LR {base:.4g} is for {reference}, so every rate of the schedule is x {scale:.4g}"


def build_schedule(cfg: CfgNode) -> Callable[[float], float]:
    """The schedule that SOLVER describes, for GLOBAL_BATCH_SIZE; only the keys that it depends on are read."""
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
        scale=rate_scale(cfg),
    )


def build_ema(model: nn.Module, cfg: CfgNode) -> ModelEmaV3 | None:
    """The moving average of the weights and running statistics, a copy on the model's device; None without EMA.ENABLED.

    Call it on the bare model when its weights are loaded. `ema.module` is the average as a model.
    """
    if not cfg.EMA.ENABLED:
        return None
    from timm.utils import ModelEmaV3  # imports torchvision: seconds

    return ModelEmaV3(model, decay=cfg.EMA.DECAY, use_warmup=cfg.EMA.WARMUP)
