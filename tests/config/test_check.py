"""Keys that contradict each other are named with their values and the override that mends them."""

from __future__ import annotations

import shlex

import pytest

from timesformer.config import load_config
from timesformer.utils.errors import ConfigError

GOOD_STEPS = "SOLVER.LR_POLICY steps_with_relative_lrs SOLVER.LRS [1,0.1]"
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
    ("DATA.TRAIN_JITTER_SCALES [320,256]", "must go up. Type DATA.TRAIN_JITTER_SCALES [256,320]"),
    ("DATA.TRAIN_JITTER_SCALES [256]", "DATA.TRAIN_JITTER_SCALES needs 2 numbers"),
    ("DATA.TRAIN_CROP_SIZE 448 DATA.TEST_CROP_SIZE 448", "CROP_SIZE 448 out. Type DATA.TRAIN_JITTER_SCALES [448,512]"),
    ("DATA.CROP_MODE full", "three identical views. Type TEST.NUM_SPATIAL_CROPS 1"),
    (f"{GOOD_STEPS} SOLVER.STEPS [0]", "of the same length, found [0] and [1.0, 0.1]; for example"),
    ("SOLVER.LR_POLICY steps_with_relative_lrs", "of the same length, found [] and []"),
    (f"{GOOD_STEPS} SOLVER.STEPS [1,5]", "SOLVER.STEPS [1, 5] must start at 0 and go up"),
    ("SOLVER.WARMUP_EPOCHS 4 SOLVER.MAX_EPOCH 2", "SOLVER.WARMUP_EPOCHS 4 is longer than SOLVER.MAX_EPOCH 2"),
    ("DATA.FLIP_LABEL_MAP [[0,1],[1,2]]", "a label may stand in one pair only"),
    ("DATA.FLIP_LABEL_MAP [[3,3]]", "a label may stand in one pair only"),
    ("DATA.FLIP_LABEL_MAP [[11,12]] MODEL.NUM_CLASSES 12", "the last is 11, found 12"),
    ("DATA.STD [1,1]", "DATA.STD needs 3 numbers"),
    ("SOLVER.BETAS [0.9]", "SOLVER.BETAS needs 2 numbers"),
    ("GESTURES.NUM_SUBJECTS [1]", "GESTURES.NUM_SUBJECTS needs 3 numbers"),
    ("TRAIN.BATCH_SIZE 40 NUM_SHARDS 2", "Type GLOBAL_BATCH_SIZE 80 or TRAIN.BATCH_SIZE 32"),
    ("TRAIN.BATCH_SIZE 8 NUM_GPUS 3", "Type TRAIN.BATCH_SIZE 9"),
    ("TRAIN.BATCH_SIZE 8 DIST.PROCESSES_PER_NODE 3", "by 3 processes on a node. Type TRAIN.BATCH_SIZE 9"),
    ("SOLVER.MOMENTUM 0", "Type SOLVER.NESTEROV False"),
    ("SOLVER.DAMPENING 0.1", "Type SOLVER.NESTEROV False"),
    ("SHARD_ID 1", "Type SHARD_ID 0 or NUM_SHARDS 2"),
    ("DATA.MULTI_LABEL True", "Type MODEL.LOSS_FUNC bce_logit"),
    ("MODEL.LOSS_FUNC bce_logit SOLVER.LABEL_SMOOTHING 0.1", "Type SOLVER.LABEL_SMOOTHING 0"),
    ("MIXUP.ENABLED True MIXUP.ALPHA 0 MIXUP.CUTMIX_ALPHA 0", "mix nothing. Type MIXUP.ENABLED False"),
    ("MIXUP.ENABLED True TRAIN.BATCH_SIZE 8 NUM_GPUS 8", "Type TRAIN.BATCH_SIZE 16 or MIXUP.ENABLED False"),
    ("FOLDER.VAL_FRACTION 0.5 FOLDER.TEST_FRACTION 0.5", "leave nothing to train on"),
    ("DATA.AUTO_AUGMENT xx", "DATA.AUTO_AUGMENT 'xx' is not RandAugment in timm's notation"),
    ("DATA.AUTO_AUGMENT rand-n2", "for example DATA.AUTO_AUGMENT rand-m7-n2-mstd0.5"),
    ("DATA.AUTO_AUGMENT rand-m11", "the magnitude, from 0 to 10"),
    ("DATA.CLASS_NAMES_PATH no/names.txt", "'no/names.txt': there is no such file"),
    ("GESTURES.FRAME_SIZE [33,40]", "must be even. Type GESTURES.FRAME_SIZE [34,40]"),
    ("FOLDER.SUBJECT_PATTERN '(a'", "is no regular expression"),
    ("FOLDER.SUBJECT_PATTERN person", "needs a group"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), CASES, ids=[words for words, _ in CASES])
def test_contradictions_name_the_override(words: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, shlex.split(words))
    assert message in str(caught.value) and str(caught.value).startswith("1 problem ")
    assert "is from command line)" in str(caught.value)


@pytest.mark.parametrize(("words", "message"), [case for case in CASES if ". Type " in case[1]])
def test_the_override_printed_mends_it(words: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, shlex.split(words))
    mend = str(caught.value).split("Type ")[1].split(" or ")[0].split(" (")[0]
    load_config(None, shlex.split(words) + shlex.split(mend))


@pytest.mark.parametrize(
    "words",
    [
        "DATA.CROP_MODE full TEST.NUM_SPATIAL_CROPS 1 DATA.TRAIN_JITTER_SCALES [9,8]",
        "DATA.TRAIN_CROP_SIZE 112 DATA.TEST_CROP_SIZE 100 MODEL.MODEL_NAME r3d_18",
        "TRAIN.ENABLE False TRAIN.BATCH_SIZE 100 NUM_GPUS 3 DATA.CROP_MODE full TEST.ENABLE False",
        "SOLVER.OPTIMIZING_METHOD adamw SOLVER.MOMENTUM 0",
        "TRAIN.BATCH_SIZE 4 NUM_GPUS 0",
        "TRAIN.BATCH_SIZE 8 NUM_GPUS 3 DIST.PROCESSES_PER_NODE 2",
        "TRAIN.BATCH_SIZE 8 NUM_SHARDS 8 SHARD_ID 7 NUM_GPUS 8",
        "DATA.TRAIN_CROP_SIZE [224,320] DATA.TEST_CROP_SIZE [224,320]",
        "DATA.TRAIN_CROP_SIZE [224,224]",
        f"{GOOD_STEPS} SOLVER.STEPS [0,11] SOLVER.MAX_EPOCH 1",
        "TIMESFORMER.EMBED_DIM 96",
        "MODEL.MODEL_NAME LightTimeSformer TIMESFORMER.NUM_HEADS 4",
        "DATA.AUTO_AUGMENT rand-m7-n4-mstd0.5-inc1",
        "DATA.AUTO_AUGMENT rand-n2-m10",
    ],
)
def test_what_is_no_contradiction(words: str) -> None:
    load_config(None, words.split())


WRONG_NOTATIONS = """rand rand-n2 rand-m11 rand-m7-w0 augmix-m3 rand-m7-inc0 m7 rand-m7-m8
    rand-m7-inc2 rand-m7-n0 rand-m7-m3 rand-m7-n1.5 rand-m7- rand-m7-n2-n2"""


@pytest.mark.parametrize("notation", WRONG_NOTATIONS.split())
def test_notation_of_rand_augment_that_is_not_understood(notation: str) -> None:
    with pytest.raises(ConfigError, match=f"DATA.AUTO_AUGMENT '{notation}' is not RandAugment"):
        load_config(None, ["DATA.AUTO_AUGMENT", notation])


def test_a_key_with_a_problem_of_its_own_is_not_cross_checked() -> None:
    with pytest.raises(ConfigError, match="^1 problem "):
        load_config(
            None, ["DATA.TEST_CROP_SIZE", "448", "DATA.TRAIN_CROP_SIZE", "448", "DATA.TRAIN_JITTER_SCALES", "x"]
        )


def test_warm_up_that_goes_down_is_told() -> None:
    advice = load_config(None, ["SOLVER.BASE_LR", "0.001", "SOLVER.WARMUP_EPOCHS", "1"]).advice
    assert len(advice) == 1 and "SOLVER.WARMUP_START_LR 1e-05" in advice[0]
