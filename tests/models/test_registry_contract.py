"""What every registered model keeps: it builds from the configuration, gives logits, and all of it learns."""

from __future__ import annotations

import re

import pytest
import torch
from fvcore.common.config import CfgNode
from torch import nn

from timesformer.config.defaults import get_cfg
from timesformer.models.attention import Attention
from timesformer.models.build import MODELS, build_model
from timesformer.models.contract import VideoModel
from timesformer.models.summary import summarize
from timesformer.models.vit import ATTENTION_TYPES
from timesformer.utils.errors import ConfigError

# The cls token, all that leaves the last block, has neither a position nor a pooled query: torchvision's own waste.
UNUSED = {"mvit_v2_s": ("blocks.15.attn.rel_pos_", "blocks.15.attn.pool_q.")}
SLOW = {"s3d", "mvit_v1_b", "mvit_v2_s", "swin3d_t", "swin3d_s", "swin3d_b"}
OURS = {"TimeSformer", "vit_base_patch16_224", "LightTimeSformer", "StreamTimeSformer"}
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in MODELS.names()]


def small_config(name: str) -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.MODEL_NAME, cfg.MODEL.NUM_CLASSES = name, 5
    cfg.DATA.NUM_FRAMES, size = {"s3d": (16, 224), "mvit_v1_b": (16, 224), "mvit_v2_s": (16, 224)}.get(name, (4, 32))
    cfg.DATA.TRAIN_CROP_SIZE = cfg.DATA.TEST_CROP_SIZE = size
    vit = cfg.TIMESFORMER
    vit.PATCH_SIZE, vit.EMBED_DIM, vit.DEPTH, vit.NUM_HEADS = 8, 24, 2, 2
    return cfg


def test_the_registry_has_the_promised_names() -> None:
    baselines = {"r3d_18", "mc3_18", "r2plus1d_18"} | SLOW
    assert set(MODELS.names()) == OURS | baselines


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    cfg = small_config(name)
    model = build_model(cfg).eval()
    if name in OURS:  # temporal_fc starts at zero
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.2)
    size = cfg.DATA.TRAIN_CROP_SIZE
    logits = model(torch.randn(2, 3, cfg.DATA.NUM_FRAMES, size, size))
    assert logits.shape == (2, 5)
    logits.square().sum().backward()
    without = [parameter for parameter, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert [parameter for parameter in without if not parameter.startswith(UNUSED.get(name, "-"))] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_contract(name: str) -> None:
    """Input shape, blocks, head, features, all tokens, layers of parameters (see models/contract.py)."""
    torch.manual_seed(0)
    cfg = small_config(name)
    model = build_model(cfg).eval()
    size = cfg.DATA.TRAIN_CROP_SIZE
    assert isinstance(model, VideoModel) and model.input_shape == (3, cfg.DATA.NUM_FRAMES, size, size)
    clips = torch.randn(2, *model.input_shape)
    with torch.no_grad():
        features, logits = model.forward_features(clips), model(clips)
        again, tokens = model.forward_features(clips, all_tokens=True)
        scores = model.head(features) if name != "s3d" else model.head(features[..., None, None, None]).flatten(1)
    assert features.ndim == 2 and tokens.ndim == 5 and tokens.shape[4] == features.shape[1] and len(tokens) == 2
    torch.testing.assert_close(again, features, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(scores, logits, atol=1e-5, rtol=1e-4)
    assert len(model.blocks) > 1 and [module for module in model.head.modules() if hasattr(module, "weight")]
    names = dict(model.named_parameters())
    assert model.no_weight_decay() <= names.keys() | {"model.time_embed"}
    matcher = model.group_matcher()
    stem = {each for each in names if re.match(matcher["stem"], each)}
    blocks = {each: int(found[1]) for each in names if (found := re.match(matcher["blocks"], each))}
    head = {each for each, parameter in names.items() if any(parameter is own for own in model.head.parameters())}
    assert stem and head and not (stem - blocks.keys()) & head and not blocks.keys() & head
    of_blocks = {id(parameter) for block in model.blocks for parameter in block.parameters()}
    assert {id(names[each]) for each in blocks if each not in stem} <= of_blocks


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
@pytest.mark.parametrize("recompute", ["none", "cheap", "blocks"])
def test_hooks_fire_on_every_attention(attention_type: str, recompute: str) -> None:
    cfg = small_config("TimeSformer")
    cfg.TIMESFORMER.ATTENTION_TYPE, cfg.MODEL.RECOMPUTE = attention_type, recompute
    model = build_model(cfg).train()
    attentions = {each: module for each, module in model.named_modules() if isinstance(module, Attention)}
    fired: list[str] = []
    for each, module in attentions.items():
        module.register_forward_hook(lambda *_, each=each: fired.append(each))
    model(torch.randn(2, *model.input_shape))
    assert fired == list(attentions) or sorted(fired) == sorted(attentions)
    assert all(f"model.blocks.{i}.attn" in attentions for i in range(2))
    with_time = ("divided_space_time", "axial", "frame_cls", "frame_cls_causal")
    assert ("model.blocks.0.temporal_attn" in attentions) == (attention_type in with_time)


def test_a_hook_sees_what_the_published_attention_computes() -> None:
    """Folding joins the projection with the map after it; not where somebody looks."""
    torch.manual_seed(0)
    model = build_model(small_config("TimeSformer")).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    clips, seen = torch.randn(2, *model.input_shape), []
    with torch.no_grad():
        folded = model(clips)
        attention = model.blocks[0].temporal_attn
        handle = attention.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
        watched = model(clips)
        handle.remove()
        rows, output = seen[0]
        expected = attention.proj(attention.mix(attention.qkv(rows)))
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(watched, folded, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_summary_counts_without_touching_the_model(name: str) -> None:
    model = build_model(small_config(name))
    summary = summarize(model)
    assert summary.num_parameters == sum(p.numel() for p in model.parameters())
    assert summary.multiply_accumulates_per_clip > summary.num_parameters / 10
    assert model.training and not any(p.is_meta for p in model.parameters())


def test_summary_is_one_readable_line() -> None:
    cfg = small_config("LightTimeSformer")
    vit = cfg.TIMESFORMER
    vit.EMBED_DIM, vit.DEPTH, vit.NUM_HEADS, vit.MLP_RATIO = 96, 3, 3, 2.0
    cfg.DATA.NUM_FRAMES, cfg.MODEL.NUM_CLASSES = 8, 12
    model = build_model(cfg)
    line = "387.0 k parameters, 0.04 G multiply-accumulates a clip (torch's counter)"
    assert str(summarize(model)) == line
    model.model.patch_embed.requires_grad_(False)
    assert "387.0 k parameters (368.5 k trained), " in str(summarize(model))


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'TimeSformer'.*r3d_18"):
        build_model(small_config("Timesformer"))


@pytest.mark.parametrize("name", ["s3d", pytest.param("mvit_v2_s", marks=pytest.mark.slow)])
def test_baselines_say_what_clips_they_cannot_take(name: str) -> None:
    cfg = small_config(name)
    cfg.DATA.NUM_FRAMES = 1
    with pytest.raises(ConfigError, match=rf"{name} cannot take clips of 1 frames.*DATA.NUM_FRAMES 16"):
        build_model(cfg)


@pytest.mark.slow
def test_mvit_of_one_size_refuses_another_at_test() -> None:
    cfg = small_config("mvit_v2_s")
    cfg.DATA.TEST_CROP_SIZE = 96
    with pytest.raises(ConfigError, match="16 frames of 96x96 pixels.*DATA.TEST_CROP_SIZE 224"):
        build_model(cfg)
