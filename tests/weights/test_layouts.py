"""Whatever the wrapping, the tensors come out by this project's names, with what the source says about itself."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from timesformer.config import get_cfg
from timesformer.models.build import build_model
from timesformer.models.vit import TimeSformer, VisionTransformer
from timesformer.utils.errors import CheckpointError
from timesformer.video.clip_spec import ClipSpec
from timesformer.weights import layouts
from timesformer.weights.hugging_face import to_their_names
from timesformer.weights.layouts import check_format, read_weights, stored_settings, transformer_arguments
from timesformer.weights.load import load_weights
from timesformer.weights.sources import StoredWeights

SMALL: dict[str, Any] = {"img_size": 16, "patch_size": 8, "num_classes": 5, "num_frames": 3}
SMALL |= {"embed_dim": 24, "depth": 2, "num_heads": 2, "qkv_bias": True}
CONFIG = {
    "TRAIN": {"DATASET": "kinetics", "BATCH_SIZE": 8},
    "DATA": {"MEAN": [0.45] * 3, "STD": [0.225] * 3, "NUM_FRAMES": 8, "SAMPLING_RATE": 32, "TRAIN_CROP_SIZE": 16},
    "TIMESFORMER": {"ATTENTION_TYPE": "divided_space_time", "PRETRAINED_MODEL": ""},
}


CLIP = {"mean": (0.45,) * 3, "std": (0.225,) * 3, "num_frames": 8, "sampling_rate": 32}  # what CONFIG says


def state(attention_type: str = "divided_space_time", **sizes: Any) -> dict[str, Tensor]:
    return VisionTransformer(**SMALL | sizes, attention_type=attention_type).state_dict()


def prefixed(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def stored(monkeypatch: pytest.MonkeyPatch, content: Any, metadata: dict[str, Any] | None = None) -> None:
    monkeypatch.setattr(layouts, "read_source", lambda source: StoredWeights(str(source), content, metadata or {}))


def equal(tensors: dict[str, Tensor], others: dict[str, Tensor]) -> bool:
    return tensors.keys() == others.keys() and all(torch.equal(tensors[name], others[name]) for name in tensors)


def inside(name: str, wrapper: str, after: str) -> str:
    """The name with `wrapper` put behind each part that matches `after`."""
    return ".".join(f"{part}.{wrapper}" if part.isdigit() and after == "digit" else part for part in name.split("."))


WRAPPINGS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "bare": lambda tensors: tensors,
    "released": lambda tensors: {"model_state": prefixed(tensors, "model."), "epoch": 25, "cfg": yaml.dump(CONFIG)},
    "DDP": lambda tensors: {"state_dict": prefixed(tensors, "module.model."), "optimizer": {}},
    "two wrappers": lambda tensors: {"model": {"state_dict": prefixed(tensors, "model.module.")}},
    "torch.compile": lambda tensors: {"model": prefixed(tensors, "_orig_mod.model.")},
    "compile in DDP": lambda tensors: {"model": prefixed(tensors, "module._orig_mod.")},
    "FSDP": lambda tensors: {
        "model": {"_fsdp_wrapped_module." + inside(k, "_fsdp_wrapped_module", "digit"): v for k, v in tensors.items()}
    },
    "activation checkpointing": lambda tensors: {
        inside(k, "_checkpoint_wrapped_module", "digit"): v for k, v in tensors.items()
    },
    "backbone": lambda tensors: {"state_dict": prefixed(tensors, "backbone.")},
    "DeepSpeed": lambda tensors: {"module": tensors, "dp_world_size": 8},
    **{
        f"under {key}": lambda tensors, key=key: {
            "epoch": torch.tensor(3),
            key: tensors,
            "optimizer": {"big": torch.zeros(10**6)},
        }
        for key in ("model_state_dict", "net", "params", "generator", "my weights", "network_fn")
    },
    "nested": lambda tensors: {"checkpoint": {"state": {"net": prefixed(tensors, "module.")}}},
    **{
        f"prefix {prefix}": lambda tensors, prefix=prefix: {"state_dict": prefixed(tensors, prefix)}
        for prefix in ("net.", "encoder.", "model.encoder.", "module.visual.backbone.", "a.b.c.")
    },
    "in a larger model": lambda tensors: prefixed(tensors, "video_encoder.") | {"text.weight": torch.zeros(3)},
    "only an average": lambda tensors: {"state_dict_ema": tensors, "args": {"lr": 0.1}},
}


@pytest.mark.parametrize("name", WRAPPINGS)
def test_wrappings(tmp_path: Path, name: str) -> None:
    tensors = state()
    torch.save(WRAPPINGS[name](tensors), tmp_path / "w.pyth")
    weights = read_weights(tmp_path / "w.pyth")
    weights.tensors.pop("text.weight", None)
    assert equal(weights.tensors, tensors) and weights.is_ema == (name == "only an average")
    assert bool(weights.notes) == name.startswith(("under", "nested", "prefix", "in a larger"))
    assert (weights.kind, weights.attention_type) == ("TimeSformer", "divided_space_time")


@pytest.mark.parametrize("key", ["ema_state", "model_ema", "state_dict_ema", "ema"])
@pytest.mark.parametrize("wrapper", [None, "module", "state_dict"])
def test_the_average_is_preferred_unless_the_caller_says_otherwise(
    tmp_path: Path, key: str, wrapper: str | None
) -> None:
    plain, average = state(), state()
    torch.save({"model_state": plain, key: {wrapper: average} if wrapper else average}, tmp_path / "w.pyth")
    weights = read_weights(tmp_path / "w.pyth")
    assert weights.is_ema and equal(weights.tensors, average)
    weights = read_weights(tmp_path / "w.pyth", ema=False)
    assert not weights.is_ema and equal(weights.tensors, plain)


def test_an_average_that_was_switched_off_is_not_taken(tmp_path: Path) -> None:
    torch.save({"model_state": state(), "ema_state": None, "ema": {}}, tmp_path / "w.pyth")
    assert not read_weights(tmp_path / "w.pyth").is_ema


def test_two_tensors_of_one_name_and_parts_of_tensors_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(state() | {"module.norm.weight": torch.zeros(24)}, tmp_path / "w.pyth")
    with pytest.raises(CheckpointError, match=r"two tensors called norm\.weight"):
        read_weights(tmp_path / "w.pyth")

    class Shard(Tensor):
        pass

    stored(monkeypatch, {"model": {"norm.weight": torch.zeros(4).as_subclass(Shard)}})
    with pytest.raises(CheckpointError, match=r"norm\.weight is one process's part of a model \(Shard\).*full state"):
        read_weights("w.pyth")
    stored(monkeypatch, {"_fsdp_wrapped_module._flat_param": torch.zeros(4)})
    with pytest.raises(CheckpointError, match="full state dict"):
        read_weights("w.pyth")


@pytest.mark.parametrize("content", [{"epoch": 3}, {"model_state": {}}, [1, 2], torch.zeros(3)])
def test_no_tensors(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pyth")
    keys = "Its keys are " + (", ".join(map(repr, content)) if isinstance(content, dict) else "none: it is of type")
    with pytest.raises(CheckpointError, match=f"holds no tensors, at the top or in a mapping such as.*{keys}"):
        read_weights(tmp_path / "w.pyth")


def test_what_was_found_is_announced(tmp_path: Path) -> None:
    torch.save({"net": prefixed(state(), "encoder.")}, tmp_path / "w.pyth")
    report = str(load_weights(TimeSformer(**SMALL), tmp_path / "w.pyth"))
    assert "  the weights were found under 'net'\n  the prefix 'encoder.' was stripped from the names" in report


def test_two_models_in_one_file_are_not_guessed_at(tmp_path: Path) -> None:
    torch.save(prefixed(state(), "student.vit.") | prefixed(state(), "teacher.vit."), tmp_path / "w.pyth")
    with pytest.raises(CheckpointError, match=r"several models, by the prefixes student.vit., teacher.vit.. Save"):
        read_weights(tmp_path / "w.pyth")


def test_a_teacher_is_an_average(tmp_path: Path) -> None:
    student, teacher = state(), state()
    torch.save({"student": student, "teacher": teacher}, tmp_path / "w.pyth")
    for ema, expected in ((True, teacher), (False, student)):
        weights = read_weights(tmp_path / "w.pyth", ema=ema)
        assert weights.is_ema == ema and equal(weights.tensors, expected)


def in_mmaction(name: str, *, divided: bool) -> str:
    """The name that mmaction2 gives a tensor of a TimeSformer."""
    table = {
        "patch_embed.proj": "backbone.patch_embed.projection",
        "head": "cls_head.fc_cls",
        "temporal_norm1": "attentions.0.norm",
        "temporal_attn.qkv.": "attentions.0.attn.in_proj_",
        "temporal_attn.proj": "attentions.0.attn.out_proj",
        "temporal_fc": "attentions.0.temporal_fc",
        "norm1": "attentions.1.norm" if divided else "norms.0",
        "attn.qkv.": f"attentions.{int(divided)}.attn.in_proj_",
        "attn.proj": f"attentions.{int(divided)}.attn.out_proj",
        "norm2": "ffns.0.norm" if divided else "norms.1",
        "mlp.fc1": "ffns.0.layers.0.0",
        "mlp.fc2": "ffns.0.layers.1",
    }
    block = re.match(r"blocks\.(\d+)\.", name)
    prefix = f"backbone.transformer_layers.layers.{block[1]}." if block else ""
    rest = name[block.end() :] if block else name
    start = next((start for start in table if rest.startswith(start)), None)
    return f"backbone.{name}" if start is None else prefix + table[start] + rest.removeprefix(start)


@pytest.mark.parametrize("attention_type", ["divided_space_time", "joint_space_time"])
def test_mmaction2(tmp_path: Path, attention_type: str) -> None:
    torch.manual_seed(0)
    model = TimeSformer(**{**SMALL, "attention_type": attention_type}, init="scratch")
    tensors, divided = model.model.state_dict(), attention_type == "divided_space_time"
    theirs = {in_mmaction(name, divided=divided): tensor for name, tensor in tensors.items()}
    assert "backbone.transformer_layers.layers.0.attentions.0.attn.in_proj_weight" in theirs
    torch.save({"meta": {"epoch": 15}, "state_dict": theirs}, tmp_path / "timesformer.pth")
    report = load_weights(TimeSformer(**{**SMALL, "attention_type": attention_type}), tmp_path / "timesformer.pth")
    assert report.share == 1 and not report.unexpected and "mmaction2" in str(report)
    weights = read_weights(tmp_path / "timesformer.pth")
    assert equal(weights.tensors, dict(tensors)) and weights.attention_type == attention_type


def test_a_newer_format_is_refused_by_name(tmp_path: Path) -> None:
    torch.save({"format": 2, "model_state": state()}, tmp_path / "w.pyth")
    with pytest.raises(CheckpointError, match="newer version of timesformer: its format is 2.*Update"):
        read_weights(tmp_path / "w.pyth")


@pytest.mark.parametrize("version", ["2.0", None, 1, 0, [7], 3.5])
def test_a_format_of_another_program_says_nothing(tmp_path: Path, version: Any) -> None:
    torch.save({"format": version, "model_state": state()}, tmp_path / "w.pyth")
    assert read_weights(tmp_path / "w.pyth").kind == "TimeSformer"
    check_format([version], "w.pyth")


def test_every_setting_of_the_input_is_taken_from_a_stored_configuration(tmp_path: Path) -> None:
    cfg = get_cfg()
    torch.save({"model_state": state(), "cfg": cfg.dump()}, tmp_path / "w.pyth")
    assert ClipSpec(**read_weights(tmp_path / "w.pyth").clip) == ClipSpec.from_config(cfg)


@pytest.mark.parametrize("dataset, order", [("kinetics", "rgb"), ("ssv2", "bgr"), ("Ssv2", "bgr")])
def test_a_released_file_states_its_clip_by_its_configuration(tmp_path: Path, dataset: str, order: str) -> None:
    text = yaml.dump(CONFIG | {"TRAIN": {"DATASET": dataset}})
    torch.save({"model_state": prefixed(state(), "model."), "cfg": text}, tmp_path / "w.pyth")
    weights = read_weights(tmp_path / "w.pyth")
    assert weights.clip == CLIP | {"channel_order": order}
    assert weights.grid == (2, 2) and weights.class_names == []


def test_where_the_heads_come_from(tmp_path: Path) -> None:
    for name, width, own, heads in (
        ("vit_base_patch16_224", 48, {}, 12),  # the released files: no such keys
        ("TimeSformer", 48, {"EMBED_DIM": 48, "NUM_HEADS": "auto"}, 12),
        ("LightTimeSformer", 48, {"EMBED_DIM": "auto", "NUM_HEADS": "auto"}, 6),
        ("TimeSformer", 128, {"NUM_HEADS": 4}, 4),
        ("TimeSformer", 128, {"NUM_HEADS": "auto"}, None),  # no such model can be made
    ):
        text = yaml.dump({"MODEL": {"MODEL_NAME": name}, "TIMESFORMER": own})
        torch.save({"model_state": prefixed(state(embed_dim=width), "model."), "cfg": text}, tmp_path / "w.pyth")
        assert read_weights(tmp_path / "w.pyth").num_heads == heads, (name, own)
    for beside, heads in (({}, None), ({"num_heads": 3}, 3), ({"num_heads": "many"}, None)):
        torch.save({"model_state": state(), **beside}, tmp_path / "w.pyth")
        assert read_weights(tmp_path / "w.pyth").num_heads == heads


@pytest.mark.parametrize("name", ["TimeSformer", "LightTimeSformer"])
def test_automatic_heads_are_those_of_the_built_model(tmp_path: Path, name: str) -> None:
    cfg = get_cfg()
    cfg.MODEL.MODEL_NAME, cfg.TIMESFORMER.DEPTH, cfg.TIMESFORMER.EMBED_DIM = name, 1, 384
    model = build_model(cfg)
    torch.save({"model_state": model.state_dict(), "cfg": cfg.dump()}, tmp_path / "w.pyth")
    assert read_weights(tmp_path / "w.pyth").num_heads == model.model.blocks[0].attn.num_heads


@pytest.mark.parametrize("width, heads", [(192, 3), (384, 6), (768, 12), (1024, 16), (256, None)])
def test_an_image_vit_of_a_usual_width_has_64_columns_a_head(tmp_path: Path, width: int, heads: int | None) -> None:
    torch.save(tensors := state("space_only", embed_dim=width, num_heads=2, depth=1), tmp_path / "w.pth")
    assert read_weights(tmp_path / "w.pth").num_heads == heads
    torch.save(prefixed(tensors, "model."), tmp_path / "w.pth")
    assert read_weights(tmp_path / "w.pth").num_heads is None, "this project's models may have any number"


def test_174_classes_without_a_configuration_are_ssv2_and_bgr(tmp_path: Path) -> None:
    torch.save({"model_state": prefixed(state(num_classes=174), "model.")}, tmp_path / "w.pyth")
    assert read_weights(tmp_path / "w.pyth").clip == {"channel_order": "bgr"}
    torch.save({"model_state": prefixed(state(num_classes=400), "model.")}, tmp_path / "w.pyth")
    assert read_weights(tmp_path / "w.pyth").clip == {}


OWN_CLIP = {"mean": (0.5,) * 3, "channel_order": "bgr", "num_frames": 3, "crop_mode": "full", "short_side": 0}
BEFORE_CLIP_SPEC = {"MEAN": [0.5] * 3, "CHANNEL_ORDER": "bgr", "NUM_FRAMES": 3, "CROP_MODE": "full"}
BEFORE_CLIP_SPEC |= {"TRAIN_JITTER_SCALES": [8, 9], "TRAIN_CROP_SIZE": [8, 32]}


@pytest.mark.parametrize("clip", [OWN_CLIP, OWN_CLIP | {"mean": [0.5] * 3}, BEFORE_CLIP_SPEC])
def test_our_own_checkpoint_states_everything(tmp_path: Path, clip: dict[str, Any]) -> None:
    config = {"TIMESFORMER": {"ATTENTION_TYPE": "space_only", "NUM_HEADS": 2, "EMBED_DIM": 24}}
    config["DATA"] = {"TRAIN_CROP_SIZE": [8, 32], "CHANNEL_ORDER": "rgb"}
    content = {"format": 1, "model_state": prefixed(state("space_only", img_size=(8, 32)), "model.")}
    content |= {"cfg": yaml.dump(config), "class_names": list("abcde"), "preprocessing": clip, "optimizer_state": {}}
    torch.save(content, tmp_path / "w.pyth")
    weights = read_weights(tmp_path / "w.pyth")
    assert (weights.kind, weights.attention_type, weights.num_heads) == ("TimeSformer", "space_only", 2)
    assert (weights.class_names, weights.clip, weights.grid) == (list("abcde"), OWN_CLIP, (1, 4))


def test_safetensors_with_what_this_project_writes_beside(tmp_path: Path) -> None:
    beside = {"class_names": ["a"], "preprocessing": {"num_frames": 3}, "attention_type": "space_only"}
    header = {"timesformer": json.dumps(beside | {"num_heads": 2, "grid": [1, 4]})}
    save_file(prefixed(state("space_only"), "model."), tmp_path / "w.safetensors", metadata=header)
    weights = read_weights(tmp_path / "w.safetensors")
    assert (weights.class_names, weights.clip, weights.num_heads) == (["a"], {"num_frames": 3}, 2)
    assert (weights.attention_type, weights.grid, weights.kind) == ("space_only", (1, 4), "TimeSformer")


def test_an_image_vit_and_what_timm_says_about_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = state("space_only", num_classes=174)
    save_file(tensors, tmp_path / "w.safetensors")
    weights = read_weights(tmp_path / "w.safetensors")
    assert (weights.kind, weights.attention_type, weights.clip) == ("image ViT", None, {})
    settings = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "num_heads": 8}
    stored(monkeypatch, tensors, {"timm": settings})
    weights = read_weights("timm:vit_tiny_patch16_224")
    assert weights.num_heads == 8
    assert weights.clip == {"mean": (0.5,) * 3, "std": (0.5,) * 3, "channel_order": "rgb"}
    assert (weights.kind, weights.source) == ("image ViT", "timm:vit_tiny_patch16_224")


def test_a_distilled_deit_loses_its_distillation_token(tmp_path: Path) -> None:
    """Pinned to timm's own model, whose first two position rows are cls and distillation."""
    import timm

    model = timm.create_model("deit_tiny_distilled_patch16_224", depth=1, img_size=32)
    torch.nn.init.normal_(model.pos_embed)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    kept, found = read_weights(tmp_path / "w.pth").tensors, model.state_dict()
    assert kept.keys() == found.keys() - {"dist_token", "head_dist.weight", "head_dist.bias"}
    assert torch.equal(kept["pos_embed"], found["pos_embed"][:, [0, 2, 3, 4, 5]])


@pytest.mark.parametrize("beside", [{"class_names": 3, "preprocessing": "rgb"}, {"class_names": {}, "cfg": {"A": 1}}])
def test_what_another_program_means_by_the_same_keys_is_not_taken(tmp_path: Path, beside: dict[str, Any]) -> None:
    torch.save({"model_state": state(), **beside}, tmp_path / "w.pth")
    weights = read_weights(tmp_path / "w.pth")
    assert (weights.class_names, weights.clip) == ([], {})


@pytest.mark.parametrize("prefix", ["timesformer.", ""])
def test_hugging_face_names_configuration_and_preprocessor(monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    tensors = state("joint_space_time")
    theirs = {name.replace("timesformer.", prefix): value for name, value in to_their_names(tensors).items()}
    config = {"model_type": "timesformer", "attention_type": "joint_space_time", "num_attention_heads": 2}
    config |= {"image_size": 16, "patch_size": 8, "num_frames": 3, "id2label": {"0": "a", "1": "b"}}
    mean = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "size": {"shortest_edge": 16}, "do_center_crop": False}
    stored(monkeypatch, theirs, {"config.json": config, "preprocessor_config.json": mean})
    weights = read_weights("folder")
    assert weights.kind == "Hugging Face TimeSformer" and equal(weights.tensors, tensors)
    assert (weights.attention_type, weights.num_heads, weights.grid) == ("joint_space_time", 2, (2, 2))
    clip = weights.clip
    assert (weights.class_names, clip["mean"], clip["num_frames"]) == (["a", "b"], (0.5,) * 3, 3)


@pytest.mark.parametrize(
    "config, preprocessor",
    [
        ({"patch_size": "x"}, {}),
        ({"num_attention_heads": "12"}, {}),
        ({"id2label": ["a"]}, {}),
        ({}, {"image_mean": "x", "timesformer": 3}),
        ({}, {"rescale_factor": 0, "image_std": [1, 1, 1]}),
    ],
)
def test_odd_values_in_hugging_faces_files(
    monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], preprocessor: dict[str, Any]
) -> None:
    beside = {"config.json": {"model_type": "timesformer"} | config, "preprocessor_config.json": preprocessor}
    stored(monkeypatch, to_their_names(state()), beside)
    with pytest.raises(CheckpointError, match="value of another form than transformers writes"):
        read_weights("folder")


def test_hugging_face_tensors_with_and_without_the_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = to_their_names(state())
    stored(monkeypatch, theirs | {"layernorm.bias": theirs["timesformer.layernorm.bias"].clone()})
    with pytest.raises(CheckpointError, match="there twice"):
        read_weights("folder")


def test_another_model_keeps_its_names(tmp_path: Path) -> None:
    content = {"model_state": {"stem.0.weight": torch.zeros(2)}, "class_names": ["a"], "preprocessing": {"MEAN": [0.4]}}
    torch.save(content, tmp_path / "w.pyth")
    weights = read_weights(tmp_path / "w.pyth")
    assert (weights.kind, *weights.tensors) == ("another network, by its own names", "stem.0.weight")
    assert (weights.class_names, weights.clip) == (["a"], {"mean": (0.4,)})


@pytest.mark.parametrize("text", [None, "a: [", "!!python/object:os.system {}", "just text"])
def test_settings_that_cannot_be_read_are_none(text: str | None) -> None:
    assert stored_settings({"cfg": text}) == {}
    assert stored_settings({"cfg": "day: 2024-13-45"}) == stored_settings({"cfg": "&a {b: *a}"}) == {}
    assert stored_settings({"cfg": "A: {B: {C: 1}, D: [2]}\nE: x"}) == {"A.B.C": 1, "A.D": [2], "E": "x"}


def test_the_arguments_of_the_model_that_weights_are_of(tmp_path: Path) -> None:
    model = TimeSformer(**SMALL | {"img_size": (16, 32), "attention_type": "joint_space_time"})
    clip = {"size": [16, 32], "num_frames": 3}
    config = yaml.dump({"DATA": {"TRAIN_CROP_SIZE": [16, 32]}, "TIMESFORMER": {"NUM_HEADS": 2}})
    torch.save({"model_state": model.state_dict(), "preprocessing": clip, "cfg": config}, tmp_path / "w.pyth")
    weights = read_weights(tmp_path / "w.pyth")
    assert weights.settings == {"DATA.TRAIN_CROP_SIZE": [16, 32], "TIMESFORMER.NUM_HEADS": 2}
    arguments = transformer_arguments(weights)
    assert arguments == SMALL | {
        "img_size": (16, 32), "attention_type": "joint_space_time", "in_chans": 3, "mlp_ratio": 4.0
    }  # fmt: skip
    again = TimeSformer(**arguments)
    assert load_weights(again, weights, complete=True).num_loaded == len(model.state_dict())
    assert equal(again.state_dict(), model.state_dict())


def test_arguments_that_no_tensor_shows(tmp_path: Path) -> None:
    torch.save(prefixed(state("space_only", img_size=(16, 24)), "model."), tmp_path / "w.pyth")
    weights = read_weights(tmp_path / "w.pyth")
    unknown = {"num_heads", "img_size", "num_frames", "attention_type"}
    assert transformer_arguments(weights).keys() == (SMALL.keys() | {"in_chans", "mlp_ratio"}) - unknown
    stated = replace(weights, grid=(2, 3), num_heads=2, attention_type="space_only")
    added = {"num_heads": 2, "img_size": (16, 24), "attention_type": "space_only"}
    assert transformer_arguments(stated) == transformer_arguments(weights) | added
    assert transformer_arguments(replace(stated, tensors={"fc.bias": torch.zeros(3)})) == {}
