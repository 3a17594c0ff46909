"""Patches, crops, width and heads that do not fit are reported with the override that resolves it."""

from __future__ import annotations

import pytest

from timesformer.config import load_config
from timesformer.engine.setup import load_run_config
from timesformer.models.config_checks import transformer_problems
from timesformer.utils.errors import ConfigError

CASES = [
    ("DATA.TRAIN_CROP_SIZE 225", "nearest: 224 and 240. Type DATA.TRAIN_CROP_SIZE 224"),
    ("DATA.TEST_CROP_SIZE [224,230]", "nearest: [224,224] and [224,240]. Type DATA.TEST_CROP_SIZE [224,224]"),
    ("DATA.TRAIN_CROP_SIZE 16 DATA.TEST_CROP_SIZE 8", "Type DATA.TEST_CROP_SIZE 16"),
    (
        "MODEL.MODEL_NAME LightTimeSformer DATA.TRAIN_CROP_SIZE 208 DATA.TEST_CROP_SIZE 220",
        "nearest: 208 and 224. Type DATA.TEST_CROP_SIZE 208",
    ),
    ("DATA.TEST_CROP_SIZE 256", "position embedding of TimeSformer has one size. Type DATA.TEST_CROP_SIZE 224"),
    ("DATA.TRAIN_CROP_SIZE [224,240]", "has one size. Type DATA.TEST_CROP_SIZE [224,240]"),
    ("TIMESFORMER.NUM_HEADS 5", "EMBED_DIM 768 is not divisible by TIMESFORMER.NUM_HEADS 5 (auto is 768 and 12). Type"),
    ("TIMESFORMER.EMBED_DIM 100", "divisible by TIMESFORMER.NUM_HEADS 12 (auto is 768 and 12). Type "),
    ("MODEL.MODEL_NAME LightTimeSformer TIMESFORMER.NUM_HEADS 9", "NUM_HEADS 9 (auto is 384 and 6). Type "),
    ("TIMESFORMER.EMBED_DIM 96 TIMESFORMER.NUM_HEADS 5", "Type TIMESFORMER.NUM_HEADS 4 or "),
    (
        "TIMESFORMER.EMBED_DIM 16384 TIMESFORMER.DEPTH 1000 TIMESFORMER.NUM_HEADS 16",
        "4295 billion parameters. Type TIMESFORMER.EMBED_DIM 768 TIMESFORMER.DEPTH 12",
    ),
    ("DATA.NUM_FRAMES 100 TIMESFORMER.PATCH_SIZE 1", "5,017,600 tokens. Type TIMESFORMER.PATCH_SIZE 16"),
    (
        "MODEL.MODEL_NAME StreamTimeSformer TIMESFORMER.EMBED_DIM 27 TIMESFORMER.NUM_HEADS 3",
        "an odd width of a head (9), and time rotates pairs of channels. Type TIMESFORMER.EMBED_DIM 30",
    ),
    (
        "MODEL.MODEL_NAME StreamTimeSformer TIMESFORMER.ATTENTION_TYPE axial",
        "axial is none of StreamTimeSformer, which has frame_cls_causal and frame_cls. Type TIMESFORMER.ATTENTION_TYPE "
        "frame_cls_causal",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), CASES, ids=[words for words, _ in CASES])
def test_what_does_not_fit_is_reported_with_the_override(words: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, words.split(), checks=(transformer_problems,))
    text = str(caught.value)
    assert message in text and text.startswith("1 problem ") and "is from command line)" in text
    with pytest.raises(ConfigError) as of_a_run:
        load_run_config(None, words.split())
    assert str(of_a_run.value) == text
    fix = text.split("Type ")[1].split(" or ")[0].split(" (")[0]
    load_config(None, words.split() + fix.split(), checks=(transformer_problems,))


@pytest.mark.parametrize(
    "words",
    [
        "DATA.TRAIN_CROP_SIZE 112 DATA.TEST_CROP_SIZE 100 MODEL.MODEL_NAME r3d_18",
        "DATA.TRAIN_CROP_SIZE [224,320] DATA.TEST_CROP_SIZE [224,320]",
        "DATA.TRAIN_CROP_SIZE [224,224]",
        "TIMESFORMER.EMBED_DIM 96",
        "MODEL.MODEL_NAME LightTimeSformer TIMESFORMER.NUM_HEADS 4",
    ],
)
def test_what_fits(words: str) -> None:
    load_config(None, words.split(), checks=(transformer_problems,))


def test_the_configuration_alone_knows_nothing_of_patches() -> None:
    assert load_config(None, ["DATA.TRAIN_CROP_SIZE", "225"]).cfg.DATA.TRAIN_CROP_SIZE == 225
