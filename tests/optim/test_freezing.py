"""What is frozen gets no gradient and does not change; what cannot be frozen is said before the model is touched."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from timesformer.config import load_config
from timesformer.config.defaults import get_cfg
from timesformer.models.build import build_model
from timesformer.models.vit import TimeSformer
from timesformer.optim.build import freeze_parameters
from timesformer.optim.freezing import freeze, set_training_mode
from timesformer.utils.errors import ConfigError


def make_model(**settings: object) -> TimeSformer:
    sizes = {"img_size": 4, "patch_size": 2, "num_frames": 2, "embed_dim": 8, "depth": 3, "num_heads": 2}
    return TimeSformer(num_classes=4, **(sizes | settings))


def trained(model: nn.Module) -> set[str]:
    return {name.removeprefix("model.") for name, p in model.named_parameters() if p.requires_grad}


def names(model: nn.Module) -> set[str]:
    return {name.removeprefix("model.") for name, _ in model.named_parameters()}


@pytest.mark.parametrize("pattern", ["blocks.0.*", "model.blocks.0.*", "*blocks.0.*", "blocks.[0].*"])
def test_patterns_go_with_and_without_the_leading_model(pattern: str) -> None:
    model = make_model()
    report = freeze(model, patterns=[pattern, "pos_embed"])
    assert names(model) - trained(model) == {n for n in names(model) if n.startswith("blocks.0.")} | {"pos_embed"}
    assert report.startswith("frozen: 1.3 k of 4.0 k parameters; trained: all or part of cls_token, time_embed, patch_")


def test_defect_11_a_linear_probe_trains_the_head_only() -> None:
    model = make_model()
    assert freeze(model, trainable_blocks=0).endswith("trained: all or part of head")
    assert trained(model) == {"head.weight", "head.bias"}


@pytest.mark.parametrize("num_blocks", [1, 2, 3])
def test_the_last_blocks_norm_and_head(num_blocks: int) -> None:
    model = make_model()
    freeze(model, trainable_blocks=num_blocks)
    layers = {
        ".".join(name.split(".")[:2]) if name.startswith("blocks") else name.split(".")[0] for name in trained(model)
    }
    assert layers == {"head", "norm", *(f"blocks.{i}" for i in range(3 - num_blocks, 3))}


def test_patterns_and_blocks_together_freeze_what_either_does() -> None:
    model = make_model()
    freeze(model, patterns=["*.temporal_fc.*", "head.bias"], trainable_blocks=1)
    assert trained(model) == {
        name
        for name in names(model)
        if name.startswith(("head.weight", "norm.", "blocks.2.")) and "temporal_fc" not in name
    }


def test_nothing_to_freeze() -> None:
    model = make_model()
    assert freeze(model) == "" and trained(model) == names(model)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patterns": ["blocks.0"]}, "'blocks.0' matches no parameter of the model; near it are blocks.0.*"),
        ({"patterns": ["temporal_attn"]}, "matches no parameter of the model; near it are *.temporal_attn.*. For"),
        ({"patterns": ["block.0.*"]}, "near it are blocks.0.*, "),
        ({"patterns": ["pos_embeding"]}, "near it are pos_embed. For example TRAIN.FREEZE \"['pos_embed']\""),
        ({"patterns": ["head.*", "xyz"]}, "'xyz' matches no parameter of the model; patterns are compared with whole"),
        ({"patterns": ["*"]}, "TRAIN.FREEZE ['*'] freezes the whole model, and nothing is left to train. Take"),
        ({"patterns": ["head.*"], "trainable_blocks": 0}, "FREEZE ['head.*'] with TRAIN.TRAINABLE_BLOCKS 0 freezes"),
        ({"trainable_blocks": 4}, "TRAINABLE_BLOCKS 4, but the model has 3 blocks. Type TRAIN.TRAINABLE_BLOCKS 3"),
    ],
)  # fmt: skip
def test_what_cannot_be_frozen_is_reported_and_nothing_is_frozen(settings: dict, message: str) -> None:
    model = make_model()
    with pytest.raises(ConfigError) as caught:
        freeze(model, **settings)
    assert message in str(caught.value)
    assert trained(model) == names(model)


def test_a_baseline_has_blocks_and_a_head() -> None:
    cfg = get_cfg()
    cfg.MODEL.MODEL_NAME, cfg.MODEL.NUM_CLASSES = "r3d_18", 3
    cfg.DATA.TRAIN_CROP_SIZE = cfg.DATA.TEST_CROP_SIZE = 16
    model = build_model(cfg)
    with pytest.raises(ConfigError, match="the model has 4 blocks. Type TRAIN.TRAINABLE_BLOCKS 4"):
        freeze(model, trainable_blocks=5)
    freeze(model, trainable_blocks=1)
    assert {name.split(".")[0] for name in trained(model)} == {"layer4", "fc"}
    freeze(model, trainable_blocks=0)
    assert trained(model) == {"fc.weight", "fc.bias"}
    set_training_mode(model)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm3d)]
    before = [norm.running_mean.clone() for norm in norms if norm.running_mean is not None]
    model(torch.randn(2, 3, 4, 16, 16))
    assert len(before) > 10
    torch.testing.assert_close([norm.running_mean for norm in norms], before, rtol=0, atol=0)


def test_what_is_frozen_as_a_whole_runs_in_eval_mode() -> None:
    model = make_model(drop_rate=0.5, drop_path_rate=0.5)
    freeze(model, patterns=["blocks.1.attn.*"], trainable_blocks=2)
    set_training_mode(model)
    vit = model.model
    assert not any(module.training for part in (vit.patch_embed, vit.blocks[0]) for module in part.modules())
    assert not vit.blocks[1].attn.proj_drop.training and vit.blocks[1].mlp.drop.training
    assert model.training and vit.drop.training and vit.head.training
    assert all(module.training for module in (vit.norm, *vit.blocks[2].modules()))
    unfrozen = make_model().eval()
    set_training_mode(unfrozen)
    assert all(module.training for module in unfrozen.modules())


def test_the_configuration_freezes() -> None:
    model = make_model()
    freeze_parameters(model, load_config(None, []).cfg)
    assert trained(model) == names(model)
    words = ["TRAIN.FREEZE", "['*.bias', blocks.2.*]", "TRAIN.TRAINABLE_BLOCKS", "1"]
    freeze_parameters(model, load_config(None, words).cfg)
    assert trained(model) == {"head.weight", "norm.weight"}
