"""The optimiser gets the right parameters in the right groups."""

from __future__ import annotations

import pytest
import torch
from fvcore.common.config import CfgNode
from timm.optim import param_groups_weight_decay

from timesformer.config.defaults import get_cfg
from timesformer.models.build import build_model
from timesformer.models.vit import TimeSformer
from timesformer.optim.build import build_ema, build_optimizer, weight_decay_groups
from timesformer.optim.freezing import freeze


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
    assert all(
        group["lr"] == 0.01 and group["fused"] and settings.items() <= group.items() for group in optimizer.param_groups
    )


def test_weight_decay_zero_still_trains_everything() -> None:
    cfg = config("adamw")
    cfg.SOLVER.WEIGHT_DECAY = 0.0
    optimizer = build_optimizer(model(), cfg)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model().parameters()))


def group_of_each(timesformer: TimeSformer, cfg: CfgNode) -> dict[str, dict]:
    names = {parameter: name for name, parameter in timesformer.named_parameters()}
    optimizer = build_optimizer(timesformer, cfg)
    return {names[p]: group for group in optimizer.param_groups for p in group["params"]}


@pytest.mark.parametrize("attention", ["divided_space_time", "joint_space_time", "space_only"])
def test_layer_decay_of_three_blocks_in_numbers(attention: str) -> None:
    """The head and the final norm learn at the full rate; each block half as fast as what is above it; so the stem."""
    timesformer = TimeSformer(16, 8, 5, 3, attention, embed_dim=24, depth=3, num_heads=2)
    cfg = config("adamw")
    cfg.SOLVER.LAYER_DECAY = 0.5
    scale = {"head": 1.0, "norm": 1.0, "2": 0.5, "1": 0.25, "0": 0.125}
    groups = group_of_each(timesformer, cfg)
    assert {name: group["lr_scale"] for name, group in groups.items()} == {
        name: scale.get(name.split(".")[2 if ".blocks." in name else 1], 0.0625)
        for name, _ in timesformer.named_parameters()
    }
    alike = group_of_each(timesformer, config("adamw"))
    assert {name: group["weight_decay"] for name, group in groups.items()} == {
        name: group["weight_decay"] for name, group in alike.items()
    }
    assert not any("lr_scale" in group for group in alike.values())


def test_frozen_layers_do_not_change_the_rates_of_the_others() -> None:
    timesformer = TimeSformer(16, 8, 5, 3, embed_dim=24, depth=3, num_heads=2)
    freeze(timesformer, patterns=["patch_embed.*", "blocks.1.*"])
    cfg = config("sgd")
    cfg.SOLVER.LAYER_DECAY = 0.5
    groups = group_of_each(timesformer, cfg)
    assert not any(".blocks.1." in name or "patch_embed" in name for name in groups)
    assert groups["model.blocks.0.attn.qkv.weight"]["lr_scale"] == 0.125
    assert groups["model.cls_token"]["lr_scale"] == 0.0625


def test_layer_decay_of_a_baseline() -> None:
    cfg = config("sgd")
    cfg.SOLVER.LAYER_DECAY, cfg.MODEL.MODEL_NAME = 0.75, "r3d_18"
    groups = group_of_each(build_model(cfg), cfg)
    names = ("fc.weight", "layer4.0.conv1.0.weight", "layer1.0.conv1.0.weight", "stem.0.weight")
    assert [groups[name]["lr_scale"] for name in names] == [1.0, 0.75, 0.75**4, 0.75**5]


@pytest.mark.parametrize("frozen", [(), ("patch_embed.*",)])
def test_groups_of_weight_decay_are_those_of_timm(frozen: tuple[str, ...]) -> None:
    timesformer = model()
    freeze(timesformer, patterns=frozen)
    ours = weight_decay_groups(timesformer, 0.1)
    theirs = param_groups_weight_decay(timesformer, 0.1, no_weight_decay_list=timesformer.no_weight_decay())
    assert [[*map(id, group["params"])] for group in ours] == [[*map(id, group["params"])] for group in theirs]
    assert [group["weight_decay"] for group in ours] == [group["weight_decay"] for group in theirs]


def test_the_average_of_the_weights_is_an_option() -> None:
    cfg, timesformer = get_cfg(), model()
    assert build_ema(timesformer, cfg) is None
    cfg.EMA.ENABLED, cfg.EMA.DECAY, cfg.EMA.WARMUP = True, 0.9, False
    ema = build_ema(timesformer, cfg)
    assert ema is not None and (ema.decay, ema.use_warmup, ema.module.training) == (0.9, False, False)
    assert ema.module is not timesformer
    torch.testing.assert_close(ema.module.state_dict(), timesformer.state_dict(), rtol=0, atol=0)
