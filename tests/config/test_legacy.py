"""The original's YAML files load unchanged; keys without a meaning here are reported in one line each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from timesformer.config import load_config
from timesformer.config.defaults import KEY_BY_NAME
from timesformer.config.legacy import is_legacy
from timesformer.utils.errors import ConfigError

ORIGINALS: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "data" / "original_configs.json").read_text()
)
MODELS = {"MODEL.MODEL_NAME": ("LightTimeSformer", "TimeSformer", "r3d_18", "vit_base_patch16_224")}


def write(path: Path, overrides: dict[str, Any]) -> str:
    """Flat `overrides` as the YAML file they came from."""
    tree: dict[str, Any] = {}
    for name, value in overrides.items():
        *sections, leaf = name.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[leaf] = value
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return str(path)


@pytest.mark.parametrize("name", [name for name in ORIGINALS if "SLOWFAST" not in name])
def test_original_timesformer_files_load_unchanged(name: str, tmp_path: Path) -> None:
    overrides = ORIGINALS[name]
    loaded = load_config(write(tmp_path / "original.yaml", overrides), choices=MODELS)
    for key, value in overrides.items():
        if key in KEY_BY_NAME:
            got: Any = loaded.cfg
            for part in key.split("."):
                got = got[part]
            assert got == (float(value) if value == "1e-4" else value.strip() if isinstance(value, str) else value)
        else:
            assert len([line for line in loaded.advice if key in line]) == 1, key
    assert len(loaded.advice) == len(set(loaded.advice))


@pytest.mark.parametrize("name", [name for name in ORIGINALS if "SLOWFAST" in name])
def test_slowfast_files_name_the_models_there_are(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path / "slowfast.yaml", ORIGINALS[name]), choices=MODELS)
    text = str(caught.value)
    assert "MODEL.ARCH slowfast: there is no such network" in text
    assert all(model in text for model in MODELS["MODEL.MODEL_NAME"])


def test_slowfast_without_a_registry() -> None:
    with pytest.raises(ConfigError, match="no such model; the models here are LightTimeSformer, TimeSformer"):
        load_config(None, ["MODEL.MODEL_NAME", "SlowFast"])


# Every key of the original that is none of ours, by section.
LEGACY_KEYS = [
    "BN.USE_PRECISE_STATS", "BN.NORM_TYPE", "RESNET.DEPTH", "X3D.DIM_C5", "NONLOCAL.POOL", "SLOWFAST.ALPHA",
    "DETECTION.ENABLE", "AVA.BGR", "MULTIGRID.LONG_CYCLE", "DEMO.WEBCAM", "BENCHMARK.SHUFFLE",
    "TENSORBOARD.CONFUSION_MATRIX.ENABLE", "TENSORBOARD.HISTOGRAM.TOPK",
    "TENSORBOARD.MODEL_VIS.GRAD_CAM.ENABLE", "TENSORBOARD.WRONG_PRED_VIS.TAG",
    "TENSORBOARD.PREDICTIONS_PATH", "TENSORBOARD.CLASS_NAMES_PATH", "TENSORBOARD.CATEGORIES_PATH",
    "TRAIN.CHECKPOINT_TYPE", "TRAIN.CHECKPOINT_INFLATE", "TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN",
    "TEST.CHECKPOINT_TYPE", "TEST.SAVE_RESULTS_PATH", "MODEL.ARCH", "MODEL.SINGLE_PATHWAY_ARCH",
    "MODEL.MULTI_PATHWAY_ARCH", "MODEL.DROPOUT_RATE", "MODEL.DROPCONNECT_RATE", "MODEL.FC_INIT_STD",
    "MODEL.HEAD_ACT", "MIXUP.CUTMIX_MINMAX", "MIXUP.MODE", "DATA.CROP_SIZE",
    "DATA.INPUT_CHANNEL_NUM", "DATA.REVERSE_INPUT_CHANNEL", "DATA.TEMPORAL_EXTENT", "DATA.DEIT_TRANSFORMS",
    "SOLVER.GAMMA", "SOLVER.STEP_SIZE", "SOLVER.WARMUP_FACTOR", "SOLVER.BASE_LR_SCALE_NUM_SHARDS",
    "LOG_MODEL_INFO", "DATA_LOADER.ENABLE_MULTI_THREAD_DECODE",
]  # fmt: skip


@pytest.mark.parametrize("name", LEGACY_KEYS)
def test_every_legacy_key_is_accepted_with_one_line(name: str) -> None:
    assert is_legacy(name) and name not in KEY_BY_NAME
    advice = load_config(None, [name, "vit"]).advice
    assert len(advice) == 1 and name in advice[0] and advice[0].startswith("command line: ")


def test_one_line_for_a_whole_section() -> None:
    words = ["RESNET.DEPTH", "50", "RESNET.NUM_GROUPS", "1", "BN.NORM_TYPE", "batchnorm"]
    advice = load_config(None, words).advice
    assert len(advice) == 2 and "RESNET.DEPTH, RESNET.NUM_GROUPS have no effect" in advice[0]


def test_defect_01_dropout_rate_says_that_it_does_nothing() -> None:
    loaded = load_config(None, ["MODEL.DROPOUT_RATE", "0.5"])
    assert "MODEL.DROPOUT_RATE has no effect" in loaded.advice[0] and "MODEL.DROP_RATE" in loaded.advice[0]
    assert loaded.cfg.MODEL.DROP_RATE == 0.0 and "DROPOUT_RATE" not in loaded.cfg.MODEL


@pytest.mark.parametrize(
    ("name", "requests", "requests_nothing"),
    [
        ("MIXUP.MODE", "elem", "batch"),
        ("SOLVER.BASE_LR_SCALE_NUM_SHARDS", "True", "False"),
        ("DATA.DEIT_TRANSFORMS", "True", "False"),
        ("MULTIGRID.LONG_CYCLE", "True", "False"),
        ("TRAIN.CHECKPOINT_TYPE", "caffe2", "pytorch"),
    ],
)
def test_a_request_for_what_is_missing_is_loud(name: str, requests: str, requests_nothing: str) -> None:
    assert "is NOT DONE here" in load_config(None, [name, requests]).advice[0]
    assert "no effect" in load_config(None, [name, requests_nothing]).advice[0]


def test_losses_of_the_original_by_their_names_here() -> None:
    soft = load_config(None, ["MODEL.LOSS_FUNC", "soft_cross_entropy"])
    assert soft.cfg.MODEL.LOSS_FUNC == "cross_entropy" and "soft_cross_entropy" in soft.advice[0]
    bce = load_config(None, ["MODEL.LOSS_FUNC", "bce", "DATA.MULTI_LABEL", "True"])
    assert bce.cfg.MODEL.LOSS_FUNC == "bce_logit" and len(bce.advice) == 1
    assert load_config(None, ["MODEL.LOSS_FUNC", "bce_logit"]).advice == []


def test_torchvision_decoding_is_refused_with_the_choices() -> None:
    with pytest.raises(ConfigError, match="found 'torchvision'; allowed: one of auto, pyav, torchcodec"):
        load_config(None, ["DATA.DECODING_BACKEND", "torchvision"])
