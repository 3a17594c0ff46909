"""The optimiser gets the right parameters in the right groups."""

from __future__ import annotations

import pytest
import torch
from fvcore.common.config import CfgNode

from timesformer.config.defaults import get_cfg
from timesformer.models.vit import TimeSformer
from timesformer.optim.build import build_optimizer


def config(method: str) -> CfgNode:
    cfg = get_cfg()
    cfg.SOLVER.OPTIMIZING_METHOD, cfg.SOLVER.BASE_LR = method, 0.01
    cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.BETAS = 0.05, [0.8, 0.95]
    return cfg


def model() -> TimeSformer:
    return TimeSformer(img_size=16, patch_size=8, num_classes=5, num_frames=3, embed_dim=24, depth=1, num_heads=2)


@pytest.mark.parametrize("method", ["sgd", "adam", "adamw"])
def test_defect_10_no_decay_of_biases_norms_and_embeddings(method: str) -> None:
    timesformer = model()
    names = {parameter: name for name, parameter in timesformer.named_parameters()}
    optimizer = build_optimizer(timesformer, config(method))
    decay = {names[p]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    matrices = ["attn.qkv", "attn.proj", "temporal_attn.qkv", "temporal_attn.proj", "temporal_fc", "mlp.fc1", "mlp.fc2"]
    decayed = {f"model.blocks.0.{name}.weight" for name in matrices}
    decayed |= {"model.patch_embed.proj.weight", "model.head.weight"}
    assert decay == {name: 0.05 if name in decayed else 0.0 for name in names.values()}


def test_frozen_parameters_are_left_out() -> None:
    timesformer = model()
    timesformer.model.patch_embed.requires_grad_(False)
    optimizer = build_optimizer(timesformer, config("sgd"))
    count = sum(len(group["params"]) for group in optimizer.param_groups)
    assert count == len(list(timesformer.parameters())) - 2


@pytest.mark.parametrize(
    "method, kind, settings",
    [
        ("sgd", torch.optim.SGD, {"momentum": 0.9, "dampening": 0.0, "nesterov": True}),
        ("adam", torch.optim.Adam, {"betas": (0.8, 0.95)}),
        ("adamw", torch.optim.AdamW, {"betas": (0.8, 0.95)}),
    ],
)
def test_settings_reach_the_optimiser(method: str, kind: type, settings: dict) -> None:
    optimizer = build_optimizer(model(), config(method))
    assert type(optimizer) is kind
    assert all(group["lr"] == 0.01 and settings.items() <= group.items() for group in optimizer.param_groups)


def test_weight_decay_zero_still_trains_everything() -> None:
    cfg = config("adamw")
    cfg.SOLVER.WEIGHT_DECAY = 0.0
    optimizer = build_optimizer(model(), cfg)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model().parameters()))
