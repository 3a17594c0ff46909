"""Written weights load in `transformers` and here, with the same logits, labels and preprocessing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import (
    AutoImageProcessor,
    AutoVideoProcessor,
    TimesformerConfig,
    TimesformerForVideoClassification,
    TimesformerVideoProcessor,
)

from timesformer.models.vit import TimeSformer
from timesformer.utils.errors import CheckpointError
from timesformer.video.clip_spec import ClipSpec, known_fields
from timesformer.weights.layouts import Weights, read_weights, stored_settings
from timesformer.weights.load import load_weights
from timesformer.weights.save import save_weights

OURS = {"img_size": 32, "patch_size": 8, "num_classes": 5, "num_frames": 4, "embed_dim": 48, "depth": 2, "num_heads": 4}
NAMES = ["left", "right", "haut", "bas", "círculo"]
RGB = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.21, 0.22), "channel_order": "rgb", "sampling_rate": 32}
BGR = RGB | {"channel_order": "bgr"}
WITH_TIME = pytest.mark.parametrize("attention_type", ["divided_space_time", "joint_space_time"])


def randomised(model: nn.Module, std: float = 0.2) -> nn.Module:
    """Every parameter matters, and the logits are of order 0.1 or more, so that a tolerance of 1e-5 means something."""
    for name, parameter in model.named_parameters():
        is_scale = "norm" in name and name.endswith("weight")
        nn.init.normal_(parameter, mean=float(is_scale), std=std)
    return model.eval()


def weights_of(model: TimeSformer, **facts: Any) -> Weights:
    known = {"class_names": NAMES, "clip": RGB, "num_heads": 4, "grid": model.model.grid} | facts
    return Weights("run.pyth", "TimeSformer", model.model.state_dict(), **known)


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@WITH_TIME
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_transformers_computes_what_our_model_computes(tmp_path: Path, attention_type: str, qkv_bias: bool) -> None:
    ours = randomised(TimeSformer(**OURS, attention_type=attention_type, qkv_bias=qkv_bias, mlp_ratio=3))
    message = save_weights(weights_of(ours, clip=BGR), tmp_path / "folder", to="hf")
    assert "BGR made RGB" in message and "5 class names" in message
    theirs, report = TimesformerForVideoClassification.from_pretrained(tmp_path / "folder", output_loading_info=True)
    assert not any(report.values()), report
    assert [theirs.config.id2label[label] for label in range(5)] == NAMES

    pixels = torch.randint(256, (1, 3, 4, 32, 32), dtype=torch.uint8)
    processor = TimesformerVideoProcessor.from_pretrained(tmp_path / "folder")
    batch = processor([pixels[0].transpose(0, 1)], return_tensors="pt")
    with torch.no_grad():
        clips = ClipSpec(**BGR).normalize(pixels)
        torch.testing.assert_close(theirs.eval()(**batch).logits, ours(clips), rtol=0, atol=1e-5)


@WITH_TIME
def test_our_model_computes_what_a_saved_model_of_transformers_computes(tmp_path: Path, attention_type: str) -> None:
    sizes = {"image_size": 32, "patch_size": 8, "num_frames": 4, "hidden_size": 48, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "intermediate_size": 96, "id2label": dict(enumerate(NAMES))}
    theirs = randomised(TimesformerForVideoClassification(TimesformerConfig(**sizes, attention_type=attention_type)))
    theirs.save_pretrained(tmp_path)
    TimesformerVideoProcessor(
        image_mean=list(RGB["mean"]), image_std=list(RGB["std"]), crop_size=32, size=32
    ).save_pretrained(tmp_path)

    ours = TimeSformer(**OURS, attention_type=attention_type, mlp_ratio=2).eval()
    load_weights(ours, tmp_path, complete=True)
    clips = torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(clips), theirs(clips.transpose(1, 2)).logits, rtol=0, atol=1e-5)
    found = read_weights(tmp_path)
    assert (found.class_names, found.num_heads, found.attention_type) == (NAMES, 4, attention_type)
    clip = {"mean": RGB["mean"], "std": RGB["std"], "size": (32, 32), "crop_mode": "crop"}
    assert clip.items() <= found.clip.items()


@pytest.mark.slow
def test_full_size_both_ways(tmp_path: Path) -> None:
    clips = torch.randn(1, 3, 8, 224, 224)
    ours = randomised(TimeSformer(num_classes=400), std=0.02)
    facts = {"class_names": [], "num_heads": None, "clip": {}}
    message = save_weights(weights_of(ours, **facts), tmp_path / "folder", to="hf")
    assert "121.57 M parameters" in message and "attention heads: 12" in message
    theirs = TimesformerForVideoClassification.from_pretrained(tmp_path / "folder").eval()
    with torch.no_grad():
        torch.testing.assert_close(theirs(clips.transpose(1, 2)).logits, ours(clips), rtol=0, atol=1e-5)
        randomised(theirs, std=0.02).save_pretrained(tmp_path / "theirs")
        load_weights(ours, tmp_path / "theirs", complete=True)
        torch.testing.assert_close(ours(clips), theirs(clips.transpose(1, 2)).logits, rtol=0, atol=1e-5)
        assert ours(clips).std() > 0.1
    shutil.rmtree(tmp_path)  # a gigabyte


@pytest.mark.parametrize("auto_class", [AutoImageProcessor, AutoVideoProcessor])
def test_the_processor_is_found_by_itself(tmp_path: Path, auto_class: Any) -> None:
    save_weights(weights_of(TimeSformer(**OURS)), tmp_path / "folder", to="hf")
    processor = auto_class.from_pretrained(tmp_path / "folder")
    batch = processor(list(np.zeros((4, 40, 50, 3), np.uint8)), return_tensors="pt")
    assert batch["pixel_values"].shape == (1, 4, 3, 32, 32)
    expected = -torch.tensor(RGB["mean"]) / torch.tensor(RGB["std"])
    torch.testing.assert_close(batch["pixel_values"][0, 0, :, 0, 0], expected)


@WITH_TIME
def test_every_format_after_the_other_keeps_every_bit(tmp_path: Path, attention_type: str) -> None:
    weights = weights_of(randomised(TimeSformer(**OURS, attention_type=attention_type)))
    for step, to in enumerate(("pyth", "hf", "safetensors", "hf", "pyth")):
        save_weights(weights, tmp_path / str(step), to=to)
        found = read_weights(tmp_path / str(step))
        assert same(found.tensors, weights.tensors)
        assert (found.class_names, found.num_heads, found.attention_type) == (NAMES, 4, attention_type)
        assert found.grid == (4, 4) and RGB.items() <= found.clip.items()
        weights = found
    model = TimeSformer(**OURS, attention_type=attention_type)
    load_weights(model, tmp_path / "4", complete=True)
    assert same(model.model.state_dict(), weights.tensors)


@pytest.mark.parametrize("to", ["pyth", "safetensors"])
def test_a_grid_that_is_not_square_is_kept(tmp_path: Path, to: str) -> None:
    model = randomised(TimeSformer(**OURS | {"img_size": (16, 48)}))
    save_weights(weights_of(model), tmp_path / "out", to=to)
    assert read_weights(tmp_path / "out").grid == (2, 6)


def test_a_pyth_file_states_its_sizes(tmp_path: Path) -> None:
    save_weights(weights_of(TimeSformer(**OURS, mlp_ratio=2, qkv_bias=False)), tmp_path / "w.pyth", to="pyth")
    content = torch.load(tmp_path / "w.pyth", weights_only=True)
    assert (
        content["format"] == 1
        and content["model_state"].keys() == TimeSformer(**OURS, qkv_bias=False).state_dict().keys()
    )
    settings = stored_settings(content)
    assert settings == {
        "MODEL.NUM_CLASSES": 5,
        "TIMESFORMER.ATTENTION_TYPE": "divided_space_time",
        "TIMESFORMER.PATCH_SIZE": 8,
        "TIMESFORMER.EMBED_DIM": 48,
        "TIMESFORMER.DEPTH": 2,
        "TIMESFORMER.NUM_HEADS": 4,
        "TIMESFORMER.MLP_RATIO": 2.0,
        "TIMESFORMER.QKV_BIAS": False,
        "DATA.NUM_FRAMES": 4,
        "DATA.TRAIN_CROP_SIZE": [32, 32],
        "DATA.TEST_CROP_SIZE": [32, 32],
        "DATA.MEAN": [0.4, 0.5, 0.6],
        "DATA.STD": [0.2, 0.21, 0.22],
        "DATA.CHANNEL_ORDER": "rgb",
        "DATA.SAMPLING_RATE": 32,
    }


def test_the_header_of_a_safetensors_file(tmp_path: Path) -> None:
    save_weights(weights_of(TimeSformer(**OURS)), tmp_path / "w.safetensors", to="safetensors")
    with safe_open(tmp_path / "w.safetensors", framework="pt") as file:
        assert "model.blocks.1.temporal_attn.qkv.weight" in file.keys()  # noqa: SIM118, no mapping
        about = json.loads(file.metadata()["timesformer"])
    assert about.pop("class_names") == NAMES and known_fields(about["preprocessing"]) == RGB
    assert about.pop("preprocessing").keys() == RGB.keys()
    assert about == {"attention_type": None, "num_heads": 4, "grid": [4, 4], "is_ema": False}


def test_what_the_source_does_not_state_is_reported(tmp_path: Path) -> None:
    weights = weights_of(TimeSformer(**OURS), num_heads=None, clip={}, class_names=[], grid=None)
    lines = save_weights(weights, tmp_path / "folder", to="hf").splitlines()
    assert lines[1].startswith("attention heads: 1, 64 channels each") and lines[1].endswith("--num-heads")
    assert lines[2].startswith("DATA.MEAN: 0.45") and lines[3].startswith("DATA.STD: 0.225")
    assert lines[4] == "channel order: RGB; the source does not state it" and len(lines) == 5
    save_weights(weights, tmp_path / "right", to="hf", num_heads=4)
    config = json.loads((tmp_path / "right/config.json").read_text())
    assert config["num_attention_heads"] == 4 and config["id2label"]["4"] == "LABEL_4"
    assert weights.num_heads is None


def without(name: str) -> Weights:
    weights = weights_of(TimeSformer(**OURS))
    return replace(weights, tensors={key: tensor for key, tensor in weights.tensors.items() if key != name})


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        (weights_of(TimeSformer(**OURS, attention_type="space_only")), "no attention over time"),
        (weights_of(TimeSformer(**OURS | {"img_size": (16, 48)})), "16 x 48 pixels"),
        (weights_of(TimeSformer(**OURS | {"img_size": (16, 48)}), grid=None), "12 patches a frame, which is no square"),
        (
            weights_of(TimeSformer(**OURS), num_heads=5),
            "not divisible by 5 attention heads. Set the heads with --num-heads",
        ),
        (weights_of(TimeSformer(**OURS), class_names=["one"]), "1 class names for 5 classes"),
        (without("norm.bias"), r"1 tensors \(norm.bias\)"),
        (without("head.weight"), r"1 tensors \(head.weight\)"),
        (without("blocks.1.attn.proj.weight"), r"1 tensors \(blocks.1.attn.proj.weight\)"),
        (Weights("r50.pth", "another network", {"layer1.0.conv1.weight": torch.zeros(1)}), "is no TimeSformer"),
    ],
)
def test_what_hugging_face_cannot_express_is_refused(tmp_path: Path, weights: Weights, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        save_weights(weights, tmp_path / "folder", to="hf")
    assert not any(tmp_path.iterdir())


def test_others_may_read_what_is_written(tmp_path: Path) -> None:
    weights = weights_of(TimeSformer(**OURS))
    save_weights(weights, tmp_path / "folder", to="hf")
    save_weights(weights, tmp_path / "w.safetensors", to="safetensors")
    (tmp_path / "usual").touch()
    for path in (tmp_path / "folder/model.safetensors", tmp_path / "w.safetensors"):
        assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_other_models_are_kept_in_our_formats(tmp_path: Path) -> None:
    tensors = {"layer1.0.conv1.weight": torch.randn(2, 3), "fc.bias": torch.randn(4)}
    weights = Weights("r50.pth", "another network", tensors)
    for to in ("pyth", "safetensors"):
        save_weights(weights, tmp_path / to, to=to)
        assert same(read_weights(tmp_path / to).tensors, weights.tensors)
    assert torch.load(tmp_path / "pyth", weights_only=True)["model_state"].keys() == weights.tensors.keys()
    with safe_open(tmp_path / "safetensors", framework="pt") as file:
        assert set(file.keys()) == weights.tensors.keys()


@pytest.mark.parametrize("to", ["hf", "pyth", "safetensors"])
@pytest.mark.parametrize("is_ema", [True, False])
def test_an_average_stays_one(tmp_path: Path, to: str, is_ema: bool) -> None:
    save_weights(weights_of(TimeSformer(**OURS), is_ema=is_ema), tmp_path / "out", to=to)
    assert read_weights(tmp_path / "out").is_ema is is_ema
    if to == "hf":
        TimesformerForVideoClassification.from_pretrained(tmp_path / "out").save_pretrained(tmp_path / "again")
        assert read_weights(tmp_path / "again").is_ema is is_ema


@pytest.mark.parametrize("to", ["hf", "pyth", "safetensors"])
def test_heads_are_stated(tmp_path: Path, to: str) -> None:
    """Six heads of eight columns: no rule would find them."""
    save_weights(weights_of(TimeSformer(**OURS | {"num_heads": 6}), num_heads=6), tmp_path / "out", to=to)
    assert read_weights(tmp_path / "out").num_heads == 6
    with pytest.raises(CheckpointError, match=r"set TIMESFORMER\.NUM_HEADS 6"):
        load_weights(TimeSformer(**OURS), tmp_path / "out", complete=True)


def test_positions_of_an_unknown_grid_are_kept_in_our_formats(tmp_path: Path) -> None:
    weights = weights_of(TimeSformer(**OURS | {"img_size": (16, 48)}), grid=None)
    save_weights(weights, tmp_path / "w.pyth", to="pyth")
    found = read_weights(tmp_path / "w.pyth")
    assert same(found.tensors, weights.tensors) and found.grid is None


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    weights = weights_of(TimeSformer(**OURS))
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("x")
    (tmp_path / "empty").mkdir()
    for name, to in (("file", "hf"), ("file", "pyth"), ("full", "hf")):
        with pytest.raises(CheckpointError, match="is there already. Nothing was written"):
            save_weights(weights, tmp_path / name, to=to)
    with pytest.raises(CheckpointError, match="is a folder; name the file"):
        save_weights(weights, tmp_path / "empty", to="safetensors")
    with pytest.raises(CheckpointError, match="states 4 attention heads; leave --num-heads out"):
        save_weights(weights, tmp_path / "new", to="hf", num_heads=2)
    with pytest.raises(CheckpointError, match="'onnx' is not a format of weights; take one of hf, pyth, safetensors"):
        save_weights(weights, tmp_path / "new", to="onnx")
    save_weights(weights, tmp_path / "empty", to="hf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "full"]
    assert {path.name for path in (tmp_path / "empty").iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }


@pytest.mark.parametrize(("to", "writer"), [("hf", "save_file"), ("safetensors", "save_file"), ("pyth", "torch.save")])
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str, writer: str) -> None:
    def full(tensors: object, path: Path, **options: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"timesformer.weights.save.{writer}", full)
    with pytest.raises(CheckpointError, match="could not be written .*No space left on device"):
        save_weights(weights_of(TimeSformer(**OURS)), tmp_path / "out", to=to)
    assert not any(tmp_path.iterdir())
