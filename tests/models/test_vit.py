"""TimeSformer beyond the golden numbers: shapes, messages, dropout, stochastic depth, initialisation."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from timesformer.config.defaults import get_cfg
from timesformer.models.attention import Attention
from timesformer.models.drop_path import DropPath
from timesformer.models.embeddings import sincos_1d, sincos_2d
from timesformer.models.light import LightTimeSformer
from timesformer.models.vit import ATTENTION_TYPES, TimeSformer, VisionTransformer

SMALL = {"img_size": 16, "patch_size": 8, "num_classes": 5, "num_frames": 3}
SMALL |= {"embed_dim": 24, "depth": 2, "num_heads": 2}


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
@pytest.mark.parametrize("height, width", [(16, 32), (32, 16), (32, 8), (8, 8)])
def test_defect_04_non_square_and_one_patch_wide_inputs(attention_type: str, height: int, width: int) -> None:
    model = TimeSformer(**SMALL | {"img_size": (height, width), "attention_type": attention_type}, init="scratch")
    assert model(torch.randn(2, 3, 3, height, width)).shape == (2, 5)


def test_defect_04_same_token_count_in_another_shape_is_an_error() -> None:
    model = TimeSformer(**SMALL | {"img_size": (16, 32)})
    with pytest.raises(ValueError, match=r"\(1, 3, 3, 32, 16\).*3 x 3 x 16 x 32"):
        model(torch.randn(1, 3, 3, 32, 16))


@pytest.mark.parametrize("shape", [(3, 3, 16, 16), (1, 1, 3, 16, 16), (1, 3, 4, 16, 16)])
def test_wrong_input_names_both_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="built for 3 x 3 x 16 x 16"):
        TimeSformer(**SMALL)(torch.randn(shape))


@settings(max_examples=15, deadline=None)
@given(
    attention_type=st.sampled_from(ATTENTION_TYPES),
    rows=st.integers(1, 3),
    columns=st.integers(1, 3),
    frames=st.integers(1, 4),
    batch=st.integers(1, 3),
)
def test_clips_do_not_see_each_other(attention_type: str, rows: int, columns: int, frames: int, batch: int) -> None:
    arguments = SMALL | {"img_size": (8 * rows, 8 * columns), "num_frames": frames, "attention_type": attention_type}
    model = TimeSformer(**arguments, init="scratch").eval()
    clips = torch.randn(batch, 3, frames, 8 * rows, 8 * columns)
    with torch.no_grad():
        one_by_one = torch.cat([model(clip[None]) for clip in clips])
        torch.testing.assert_close(model(clips), one_by_one, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
def test_only_space_only_is_blind_to_order(attention_type: str) -> None:
    model = TimeSformer(**SMALL | {"attention_type": attention_type}, init="scratch").eval()
    clip = torch.randn(1, 3, 3, 16, 16)
    with torch.no_grad():
        same = torch.allclose(model(clip), model(clip.flip(2)), atol=1e-4)
    assert same == (attention_type == "space_only")


@pytest.mark.parametrize("frames", [8, 33])
def test_defect_01_attention_dropout_drops_in_training_only(frames: int) -> None:
    attention = Attention(24, 3, qkv_bias=True, attn_drop=0.5, proj_drop=0.0)
    x = torch.randn(4, frames, 24)
    assert not torch.equal(attention(x), attention(x))
    attention.eval()
    assert torch.equal(attention(x), attention(x))


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
def test_defect_01_drop_rate_drops_in_training_only(attention_type: str) -> None:
    arguments = SMALL | {"attention_type": attention_type, "drop_path_rate": 0.0, "init": "scratch"}
    clip = torch.randn(2, 3, 3, 16, 16)
    plain, dropping = TimeSformer(**arguments), TimeSformer(**arguments, drop_rate=0.5)
    assert torch.equal(plain(clip), plain(clip))
    assert not torch.equal(dropping(clip), dropping(clip))
    dropping.load_state_dict(plain.state_dict())
    torch.testing.assert_close(dropping.eval()(clip), plain.eval()(clip))


def test_drop_path_drops_whole_rows_at_its_rate_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    out = DropPath(0.3).train()(torch.ones(20_000, 2, 3))
    rows = out.flatten(1)
    assert torch.equal(rows.amin(1), rows.amax(1))
    assert rows.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert (rows[:, 0] == 0).float().mean() == pytest.approx(0.3, abs=0.015)  # 4.6 standard errors
    assert DropPath(0.3).eval()(rows) is rows


def test_scratch_initialisation() -> None:
    model = VisionTransformer(32, 8, embed_dim=96, depth=2, num_heads=3, qkv_bias=True, init="scratch")
    for embedding in (model.pos_embed[:, 1:], model.time_embed):
        assert embedding.abs().max() <= 1 and embedding.square().mean().item() == pytest.approx(0.5, abs=1e-5)
    for block in model.blocks:
        for linear in (block.attn.qkv, block.temporal_fc, block.mlp.fc2):
            assert linear.weight.std().item() * linear.in_features**0.5 == pytest.approx(1, abs=0.05)
            assert not linear.bias.any()


def test_vit_initialisation_starts_without_the_temporal_branch() -> None:
    model = VisionTransformer(32, 8, embed_dim=96, depth=2, num_heads=3, qkv_bias=True)
    assert not model.time_embed.any()
    assert not any(p.any() for block in model.blocks for p in block.temporal_fc.parameters())
    assert model.blocks[0].attn.qkv.weight.std().item() == pytest.approx(0.02, abs=0.001)
    assert model.pos_embed.std().item() == pytest.approx(0.02, abs=0.003)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(8, 33))
def test_sincos_tells_every_place_of_a_grid_apart(height: int, width: int, dim: int) -> None:
    table = sincos_2d(height, width, dim)
    assert table.shape == (height * width, dim)
    assert len(table.unique(dim=0)) == height * width
    assert torch.equal(table[:, : dim // 2][::width], sincos_1d(height, dim // 2))


def test_from_config_passes_every_setting() -> None:
    cfg = get_cfg()
    cfg.MODEL.NUM_CLASSES, cfg.MODEL.DROP_RATE, cfg.MODEL.ATTN_DROP_RATE, cfg.MODEL.DROP_PATH_RATE = 5, 0.1, 0.2, 0.3
    cfg.DATA.NUM_FRAMES, cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TEST_CROP_SIZE = 3, [16, 24], [16, 24]
    timesformer = cfg.TIMESFORMER
    timesformer.PATCH_SIZE, timesformer.EMBED_DIM, timesformer.DEPTH, timesformer.NUM_HEADS = 8, 24, 2, 3
    timesformer.MLP_RATIO, timesformer.QKV_BIAS, timesformer.INIT = 2.0, False, "scratch"
    cfg.MODEL.RECOMPUTE = "cheap"
    model = LightTimeSformer.from_config(cfg).model
    block = model.blocks[1]
    assert model.input_shape == (3, 3, 16, 24) and len(model.blocks) == 2 and model.head.out_features == 5
    assert (block.attn.num_heads, block.attn.attn_drop, block.drop_path.drop_prob, model.drop.p) == (3, 0.2, 0.3, 0.1)
    assert model.recompute == "cheap" and block.recompute
    assert block.mlp.fc1.out_features == 48 and block.attn.qkv.bias is None and model.time_embed.any()


def test_auto_sizes_are_those_of_the_class() -> None:
    cfg = get_cfg()
    with torch.device("meta"):
        assert TimeSformer.from_config(cfg).model.head.in_features == 768
        light = LightTimeSformer.from_config(cfg).model
    assert (light.head.in_features, len(light.blocks), light.blocks[0].attn.num_heads) == (384, 12, 6)


@pytest.mark.parametrize(
    "sizes, message", [({"patch_size": 15}, "15x15 patches"), ({"num_heads": 7}, "7 attention heads")]
)
def test_sizes_that_do_not_fit_are_refused(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TimeSformer(**sizes)


def test_defect_20_importing_the_model_imports_nothing_heavy() -> None:
    heavy = "torchvision timm matplotlib av cv2"
    code = f"import sys, timesformer.models.vit; print(*sorted(set('{heavy}'.split()) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
