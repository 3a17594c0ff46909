"""Names, sizes and preprocessing of Hugging Face's TimeSformer, against the installed `transformers`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TimesformerConfig, TimesformerForVideoClassification, TimesformerModel

from timesformer.models.vit import VisionTransformer
from timesformer.utils.errors import CheckpointError
from timesformer.video.clip_spec import ClipSpec
from timesformer.weights import hugging_face

OURS = {"img_size": 32, "patch_size": 8, "num_classes": 7, "embed_dim": 48, "depth": 3, "num_heads": 4, "num_frames": 4}
THEIRS = {"image_size": 32, "patch_size": 8, "num_labels": 7, "num_frames": 4, "hidden_size": 48}
THEIRS |= {"num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}
FULL = {"crop_mode": "full", "short_side": 0}
WITH_TIME = pytest.mark.parametrize("attention_type", ["divided_space_time", "joint_space_time"])


def their_model(attention_type: str, **config: Any) -> TimesformerForVideoClassification:
    model = TimesformerForVideoClassification(TimesformerConfig(attention_type=attention_type, **THEIRS | config))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@WITH_TIME
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_their_weights_give_their_logits_in_our_model(attention_type: str, qkv_bias: bool) -> None:
    theirs = their_model(attention_type, qkv_bias=qkv_bias)
    ours = VisionTransformer(**OURS, mlp_ratio=2, qkv_bias=qkv_bias, attention_type=attention_type).eval()
    ours.load_state_dict(hugging_face.to_our_names(theirs.state_dict()))
    clips = torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(clips), theirs(clips.transpose(1, 2)).logits, rtol=0, atol=1e-5)


@WITH_TIME
def test_our_names_become_exactly_theirs(attention_type: str) -> None:
    ours = VisionTransformer(**OURS, mlp_ratio=2, qkv_bias=True, attention_type=attention_type).state_dict()
    renamed = hugging_face.to_their_names(ours)
    theirs = their_model(attention_type).state_dict()
    assert {name: tensor.shape for name, tensor in renamed.items()} == {n: t.shape for n, t in theirs.items()}
    back = hugging_face.to_our_names(renamed)
    assert list(back) == list(ours) and all(back[name] is ours[name] for name in ours)


def test_the_bare_model_has_no_prefix_and_no_head() -> None:
    bare = TimesformerModel(TimesformerConfig(**THEIRS)).state_dict()
    ours = VisionTransformer(**OURS, mlp_ratio=2, qkv_bias=True).state_dict()
    assert hugging_face.to_our_names(bare).keys() == ours.keys() - {"head.weight", "head.bias"}


def test_an_unknown_name_stays_or_is_refused() -> None:
    tensor = torch.zeros(1)
    assert list(hugging_face.to_our_names({"timesformer.extra.0.weight": tensor})) == ["timesformer.extra.0.weight"]
    with pytest.raises(
        CheckpointError, match=r"does not have 2 of 3 tensors \(layer1.0.conv1.weight, blocks.0.gamma\)"
    ):
        hugging_face.to_their_names({"layer1.0.conv1.weight": tensor, "norm.bias": tensor, "blocks.0.gamma": tensor})


def test_sizes_of_a_saved_config(tmp_path: Path) -> None:
    labels = {label: f"class {label}" for label in range(12)}
    TimesformerConfig(
        **THEIRS | {"num_labels": 12}, id2label=labels, attention_type="joint_space_time"
    ).save_pretrained(tmp_path)
    assert hugging_face.sizes_from_config(json.loads((tmp_path / "config.json").read_text())) == {
        "attention_type": "joint_space_time",
        "num_heads": 4,
        "image_size": (32, 32),
        "patch_size": 8,
        "num_frames": 4,
        "class_names": [f"class {label}" for label in range(12)],  # not 0, 1, 10, 11, 2, ... as text is sorted
    }


def test_what_a_config_leaves_out_is_their_default() -> None:
    theirs = TimesformerConfig()
    found = hugging_face.sizes_from_config({})
    assert found == hugging_face.sizes_from_config(theirs.to_dict())
    assert (found["num_heads"], found["image_size"], found["num_frames"], found["class_names"]) == (
        12,
        (224, 224),
        8,
        [],
    )


def test_numbered_labels_are_no_names() -> None:
    config = TimesformerConfig(num_labels=12).to_dict()
    assert hugging_face.sizes_from_config(json.loads(json.dumps(config)))["class_names"] == []
    with pytest.raises(CheckpointError, match="id2label of config.json are not 0 to 1"):
        hugging_face.sizes_from_config({"id2label": {"1": "left", "2": "right"}})


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"model_type": "videomae"}, "model_type is 'videomae', not 'timesformer'"),
        ({"layer_norm_eps": 1e-12}, "layer_norm_eps is 1e-12, not 1e-06"),
        ({"hidden_act": "gelu_new"}, "hidden_act is 'gelu_new', not 'gelu'"),
        ({"patch_size": [16, 8]}, r"patch_size is \[16, 8\], not \[16, 16\]"),
    ],
)
def test_a_model_that_computes_something_else_is_refused(change: dict[str, Any], found: str) -> None:
    with pytest.raises(CheckpointError, match=found):
        hugging_face.sizes_from_config(TimesformerConfig().to_dict() | change)


@pytest.mark.parametrize(
    ("file", "clip"),
    [
        ({"image_mean": [0.485, 0.456, 0.406]}, {"mean": (0.485, 0.456, 0.406)}),
        ({"image_mean": 0.5, "image_std": 0.25}, {"mean": (0.5,) * 3, "std": (0.25,) * 3}),
        ({"do_normalize": False, "image_std": [2, 2, 2]}, {"mean": (0.0,) * 3, "std": (1.0,) * 3}),
        ({"do_rescale": False, "image_std": [51, 51, 51]}, {"std": (0.2,) * 3}),
        ({"rescale_factor": 1 / 127.5, "image_mean": [1, 1, 1]}, {"mean": (0.5,) * 3}),
        ({"size": 224, "crop_size": {"height": 224, "width": 224}}, {"size": (224, 224), "crop_mode": "crop"}),
        ({"crop_size": 112}, {"size": (112, 112), "crop_mode": "crop"}),
        ({"do_center_crop": False, "size": {"shortest_edge": 96}}, FULL | {"size": (96, 96)}),
        ({"do_center_crop": False, "size": {"height": 64, "width": 96}}, FULL | {"size": (64, 96)}),
        ({}, {}),
    ],
)
def test_preprocessing_of_their_files(file: dict[str, Any], clip: dict[str, Any]) -> None:
    assert hugging_face.preprocessing_from(file) == clip


@pytest.mark.parametrize("crop_mode", ["crop", "full"])
def test_preprocessing_comes_back_from_the_file_made_of_it(crop_mode: str) -> None:
    spec = ClipSpec(
        mean=(0.4, 0.5, 0.6), std=(0.2, 0.21, 0.22), crop_mode=crop_mode, size=(64, 64), sampling_rate="auto"
    )
    file = json.loads(json.dumps(hugging_face.make_preprocessor(spec.to_dict(), image_size=64)))
    assert ClipSpec(**hugging_face.preprocessing_from(file)) == spec
    assert file["timesformer"].keys() == spec.to_dict().keys() - {"mean", "std", "size"}


def test_preprocessing_of_folders_written_before_clip_spec() -> None:
    own = {"CHANNEL_ORDER": "bgr", "NUM_FRAMES": 16, "SAMPLING_RATE": 4, "TARGET_FPS": 25.0}
    own |= {"TRAIN_JITTER_SCALES": [256, 320], "TRAIN_CROP_SIZE": 224, "CROP_MODE": "crop"}
    found = hugging_face.preprocessing_from({"image_mean": [0.5] * 3, "crop_size": 224, "timesformer": own})
    assert found == {
        "mean": (0.5, 0.5, 0.5), "size": (224, 224), "channel_order": "bgr", "crop_mode": "crop", "short_side": 256,
        "num_frames": 16, "sampling_rate": 4, "target_fps": 25.0,
    }  # fmt: skip


def test_the_layer_norms_are_those_of_our_models() -> None:
    assert hugging_face.LAYER_NORM_EPS == VisionTransformer(**OURS).norm.eps
