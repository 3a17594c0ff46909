"""TimeSformer computes what the published implementation computes: outputs, activations, gradients, sizes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from timesformer.models.light import LightTimeSformer
from timesformer.models.summary import summarize
from timesformer.models.vit import TimeSformer, VisionTransformer

DATA = Path(__file__).parents[1] / "data"
ATTENTION_TYPES = ("divided_space_time", "joint_space_time", "space_only")  # those of the published implementation
FACTS = json.loads((DATA / "full_size_facts.json").read_text())


def tiny(attention_type: str, drop_path_rate: float = 0.0) -> VisionTransformer:
    """The model of the golden files, with their weights."""
    model = VisionTransformer(
        img_size=32,
        patch_size=8,
        num_classes=7,
        embed_dim=48,
        depth=3,
        num_heads=4,
        qkv_bias=True,
        num_frames=4,
        drop_path_rate=drop_path_rate,
        attention_type=attention_type,
    )
    model.load_state_dict(load_file(DATA / f"tiny_{attention_type}.safetensors"))
    return model


def relative(got: Tensor, wanted: Tensor) -> float:
    return float((got.detach() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
def test_logits_loss_and_gradients_match(attention_type: str) -> None:
    golden = load_file(DATA / f"tiny_{attention_type}_io.safetensors")
    model = tiny(attention_type).eval()
    logits = model(golden["clip"])
    loss = F.cross_entropy(logits, golden["labels"])
    loss.backward()
    torch.testing.assert_close(logits, golden["logits"], atol=1e-5, rtol=0)
    torch.testing.assert_close(model.forward_features(golden["clip"]), golden["features"], atol=1e-5, rtol=0)
    torch.testing.assert_close(loss[None], golden["loss"], atol=1e-5, rtol=0)
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert {f"grad.{name}" for name in gradients} == {name for name in golden if name.startswith("grad.")}
    assert {name: e for name, g in gradients.items() if (e := relative(g, golden[f"grad.{name}"])) > 1e-4} == {}
    double = model.double()(golden["clip"].double())
    torch.testing.assert_close(double, golden["logits_f64"], atol=1e-9, rtol=0)


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
def test_activations_match(attention_type: str) -> None:
    golden = load_file(DATA / f"tiny_{attention_type}_io.safetensors")
    model = tiny(attention_type).eval()
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
            seen[name] = join(output)
            if name == "block0":
                seen["block0_input"] = join(inputs if len(inputs) > 1 else inputs[0])

        return hook

    def join(value: Tensor | tuple[Tensor, ...]) -> Tensor:  # cls and tokens (B, H, W, T, D) -> (B, 1 + N*T, D)
        return value if isinstance(value, Tensor) else torch.cat([value[0], value[1].flatten(1, 3)], dim=1)

    model.patch_embed.register_forward_hook(keep("patch_embed"))
    for i, block in enumerate(model.blocks):
        block.register_forward_hook(keep(f"block{i}"))
        if attention_type == "divided_space_time":
            block.attn.register_forward_hook(keep(f"block{i}.attn"))
            block.temporal_attn.register_forward_hook(keep(f"block{i}.temporal_attn"))
    model.forward_features(golden["clip"], all_tokens=True)
    patches = seen["patch_embed"]  # (B, T, N, D) or (B, N, T, D); the golden rows are (b t)
    seen["patch_embed"] = (patches if attention_type == "space_only" else patches.transpose(1, 2)).flatten(0, 1)
    names = {name.removeprefix("act.") for name in golden if name.startswith("act.")}
    assert names <= seen.keys()
    assert {name: e for name in names if (e := relative(seen[name], golden[f"act.{name}"])) > 1e-5} == {}


def test_stochastic_depth_matches_in_training() -> None:
    """With the same random draws the same rows go: temporal rows (b h w) before temporal_fc, spatial (b t), MLP b."""
    golden = json.loads((DATA / "tiny_drop_path.json").read_text())
    clip, labels = (load_file(DATA / "tiny_divided_space_time_io.safetensors")[key] for key in ("clip", "labels"))
    model = tiny("divided_space_time", golden["drop_path_rate"]).train()
    assert [block.drop_path.drop_prob for block in model.blocks] == golden["rates"]
    torch.manual_seed(golden["torch_manual_seed"])
    loss = F.cross_entropy(model(clip), labels)
    loss.backward()
    assert loss.item() == pytest.approx(golden["loss"], abs=1e-5)
    norms = {name: p.grad.norm().item() for name, p in model.named_parameters()}
    assert norms == pytest.approx(golden["grad_l2_f32"], rel=1e-4)


def saved_multiply_accumulates(model: VisionTransformer, frames: int) -> int:
    """Fewer than published, for one clip: one map for two, less taking their product; a last block for cls alone."""
    patches, width, depth = model.grid[0] * model.grid[1], model.head.in_features, len(model.blocks)
    folding = depth * (frames * patches - width - 1) * width**2 if model.attention_type == "divided_space_time" else 0
    rows, tokens = (1, 1 + frames * patches) if model.attention_type == "joint_space_time" else (frames, 1 + patches)
    cls_mlps = frames if model.attention_type == "space_only" else 1
    all_mlps = cls_mlps + frames * patches
    queries = rows * (tokens - 1) * (2 * width**2 + 2 * tokens * width)  # q, projection, q k^T, weights v
    return folding + queries + (all_mlps - cls_mlps) * 8 * width**2


@pytest.mark.parametrize("facts", FACTS.values(), ids=FACTS.keys())
def test_parameters_and_work_of_full_size_models(facts: dict) -> None:
    kw = facts["kw"]
    frames, size = kw.get("frames", 8), kw.get("img", 224)
    with torch.device("meta"):
        model = TimeSformer(
            img_size=size,
            num_frames=frames,
            num_classes=kw.get("classes", 400),
            attention_type=kw.get("att", "divided_space_time"),
        )
    summary = summarize(model)
    assert model.input_shape == (3, frames, size, size)
    assert len(model.state_dict()) == facts["n_tensors"]
    assert summary.num_parameters == summary.num_trainable == facts["params"]
    saved = saved_multiply_accumulates(model.model, frames)
    assert (summary.multiply_accumulates_per_clip + saved) * 2 == facts["torch_flop_counter_total"]


@pytest.mark.parametrize(
    "attention_type, file",
    [
        ("divided_space_time", "keys_divided_8x224_k400.json"),
        ("joint_space_time", "keys_joint_space_time_8x224_k400.json"),
        ("space_only", "keys_space_only_8x224_k400.json"),
    ],
)
def test_state_dict_has_the_released_names_shapes_and_order(attention_type: str, file: str) -> None:
    with torch.device("meta"):
        model = TimeSformer(attention_type=attention_type)
    keys = [[name, list(tensor.shape)] for name, tensor in model.state_dict().items()]
    assert keys == [[f"model.{name}", shape] for name, shape in json.loads((DATA / file).read_text())]


@pytest.mark.parametrize(
    "arguments, shape, num_parameters, giga",
    [
        ({}, (3, 32, 224, 224), 30_562_188, 183.4),
        ({"embed_dim": 192, "num_heads": 3}, (3, 32, 224, 224), 7_760_844, 49.3),
        (
            {"img_size": 32, "patch_size": 8, "num_frames": 8, "embed_dim": 96, "depth": 3, "num_heads": 3}
            | {"mlp_ratio": 2.0},
            (3, 8, 32, 32),
            386_988,
            None,
        ),
    ],
    ids=["light", "tiny", "demo"],
)
def test_light_timesformer_sizes(
    arguments: dict, shape: tuple[int, ...], num_parameters: int, giga: float | None
) -> None:
    with torch.device("meta"):
        model = LightTimeSformer(**arguments)
    summary = summarize(model)
    assert model.input_shape == shape
    assert summary.num_parameters == num_parameters
    if giga is not None:
        assert round(summary.multiply_accumulates_per_clip / 1e9, 1) == giga
