"""Keys that contradict each other are reported with their values and the override that resolves it."""

from __future__ import annotations

import shlex

import pytest

from timesformer.config import get_cfg, load_config
from timesformer.config.check import ADVICE, RULES, TRAINING_RULES, Rule
from timesformer.config.defaults import KEY_BY_NAME
from timesformer.utils.errors import ConfigError

GOOD_STEPS = "SOLVER.LR_POLICY steps_with_relative_lrs SOLVER.LRS [1,0.1]"
CASES = [
    ("DATA.TRAIN_JITTER_SCALES [320,256]", "must go up. Type DATA.TRAIN_JITTER_SCALES [256,320]"),
    ("DATA.TRAIN_CROP_SIZE 448 DATA.TEST_CROP_SIZE 448",
     "too small for crops of DATA.TRAIN_CROP_SIZE 448. Type DATA.TRAIN_JITTER_SCALES [448,512]"),
    ("DATA.CROP_MODE full", "three identical views. Type TEST.NUM_SPATIAL_CROPS 1"),
    (f"{GOOD_STEPS} SOLVER.STEPS [0]",
     "needs as many steps as rates, found SOLVER.STEPS [0] and SOLVER.LRS [1.0, 0.1]. For example"),
    ("SOLVER.LR_POLICY steps_with_relative_lrs",
     "as many steps as rates, found SOLVER.STEPS [] and SOLVER.LRS []. For example SOLVER.STEPS [0,11,14]"),
    (f"{GOOD_STEPS} SOLVER.STEPS [1,5]", "SOLVER.STEPS [1, 5] must start at 0 and go up"),
    ("SOLVER.WARMUP_EPOCHS 4 SOLVER.MAX_EPOCH 2", "SOLVER.WARMUP_EPOCHS 4 is longer than SOLVER.MAX_EPOCH 2"),
    ("DATA.FLIP_LABEL_MAP [[0,1],[1,2]]", "a label may occur in one pair only. For example DATA.FLIP_LABEL_MAP"),
    ("DATA.FLIP_LABEL_MAP [[3,3],[3,4]]", "a label may occur in one pair only. For example DATA.FLIP_LABEL_MAP"),
    ("DATA.FLIP_LABEL_MAP [[a,b],[c,a]]", "a label may occur in one pair only. For example DATA.FLIP_LABEL_MAP"),
    ("DATA.FLIP_LABEL_MAP [[11,12]] MODEL.NUM_CLASSES 12",
     "must be below MODEL.NUM_CLASSES 12. Type MODEL.NUM_CLASSES 13 or count from 0"),
    ("TRAIN.BATCH_SIZE 40 NUM_SHARDS 2", "Type GLOBAL_BATCH_SIZE 80 or TRAIN.BATCH_SIZE 32"),
    ("TRAIN.BATCH_SIZE 8 NUM_GPUS 3", "Type TRAIN.BATCH_SIZE 9"),
    ("TRAIN.BATCH_SIZE 8 DIST.PROCESSES_PER_NODE 3", "evenly among the 3 processes of a node. Type TRAIN.BATCH_SIZE 9"),
    ("TRAIN.BATCH_SIZE auto DIST.STRATEGY fsdp", "Type TRAIN.BATCH_SIZE 8 (or DIST.STRATEGY ddp)"),
    ("TRAIN.REPEATED_AUG 3", "64 is not a multiple of TRAIN.REPEATED_AUG 3. Type GLOBAL_BATCH_SIZE 66"),
    ("TRAIN.BEST_METRIC mAP", "found DATA.MULTI_LABEL False. Type TRAIN.BEST_METRIC auto"),
    ("TRAIN.BEST_METRIC top1 DATA.MULTI_LABEL True MODEL.LOSS_FUNC bce_logit", "Type TRAIN.BEST_METRIC auto"),
    ("TRAIN.BALANCE weights DATA.MULTI_LABEL True MODEL.LOSS_FUNC bce_logit", "Type TRAIN.BALANCE none"),
    ("SOLVER.MOMENTUM 0", "Type SOLVER.NESTEROV False"),
    ("SOLVER.DAMPENING 0.1", "Type SOLVER.NESTEROV False"),
    ("SHARD_ID 1", "Type SHARD_ID 0 or NUM_SHARDS 2"),
    ("DATA.MULTI_LABEL True", "Type MODEL.LOSS_FUNC bce_logit"),
    ("TEST.AUDITS True DATA.MULTI_LABEL True MODEL.LOSS_FUNC bce_logit",
     "needs one label per video, found DATA.MULTI_LABEL True. Type TEST.AUDITS auto"),
    ("MODEL.LOSS_FUNC bce_logit SOLVER.LABEL_SMOOTHING 0.1", "Type SOLVER.LABEL_SMOOTHING 0"),
    ("MIXUP.ENABLED True MIXUP.ALPHA 0 MIXUP.CUTMIX_ALPHA 0", "mix nothing. Type MIXUP.ENABLED False"),
    ("MIXUP.ENABLED True TRAIN.BATCH_SIZE 8 NUM_GPUS 8", "Type TRAIN.BATCH_SIZE 16 or MIXUP.ENABLED False"),
    ("FOLDER.VAL_FRACTION 0.5 FOLDER.TEST_FRACTION 0.5",
     "FOLDER.TEST_FRACTION 0.5 leave no videos to train on. Type FOLDER.VAL_FRACTION 0.1"),
    ("AUG.ZOOM [1.3,0.75]", "must go up. Type AUG.ZOOM [0.75,1.3]"),
    ("DATA.AUTO_AUGMENT xx", "DATA.AUTO_AUGMENT 'xx' is not RandAugment in timm's notation"),
    ("DATA.AUTO_AUGMENT rand-n2", "For example DATA.AUTO_AUGMENT rand-m7-n2-mstd0.5"),
    ("DATA.AUTO_AUGMENT rand-m11", "the magnitude, from 0 to 10"),
    ("DATA.CLASS_NAMES_PATH no/names.txt", "'no/names.txt': there is no such file"),
    ("MODEL.NUM_CLASSES 1", "always 100% right, and learns nothing. Type MODEL.NUM_CLASSES 2"),
    ("DATA.NUM_FRAMES 4096 DATA.TRAIN_CROP_SIZE 448 DATA.TEST_CROP_SIZE 448 DATA.TRAIN_JITTER_SCALES [448,512]",
     "more than a gigabyte a clip. Type DATA.NUM_FRAMES 8"),
    ("GESTURES.FRAME_SIZE [33,40]", "must be even. Type GESTURES.FRAME_SIZE [34,40]"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), CASES, ids=[words for words, _ in CASES])
def test_contradictions_name_the_override(words: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, shlex.split(words))
    assert message in str(caught.value) and str(caught.value).startswith("1 problem ")
    assert "is from command line)" in str(caught.value)


@pytest.mark.parametrize(("words", "message"), [case for case in CASES if ". Type " in case[1]])
def test_the_override_in_the_message_resolves_it(words: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, shlex.split(words))
    fix = str(caught.value).split("Type ")[1].split(" or ")[0].split(" (")[0]
    load_config(None, shlex.split(words) + shlex.split(fix))


@pytest.mark.parametrize(
    "words",
    [
        "DATA.CROP_MODE full TEST.NUM_SPATIAL_CROPS 1 DATA.TRAIN_JITTER_SCALES [9,8]",
        "TRAIN.ENABLE False TRAIN.BATCH_SIZE 100 NUM_GPUS 3 DATA.CROP_MODE full TEST.ENABLE False",
        "SOLVER.OPTIMIZING_METHOD adamw SOLVER.MOMENTUM 0",
        "TRAIN.BATCH_SIZE 4 NUM_GPUS 0",
        "TRAIN.BATCH_SIZE 8 NUM_GPUS 3 DIST.PROCESSES_PER_NODE 2",
        "TRAIN.BATCH_SIZE 8 NUM_SHARDS 8 SHARD_ID 7 NUM_GPUS 8",
        f"{GOOD_STEPS} SOLVER.STEPS [0,11] SOLVER.MAX_EPOCH 1",
        "DATA.AUTO_AUGMENT rand-m7-n4-mstd0.5-inc1",
        "DATA.AUTO_AUGMENT rand-n2-m10",
        "DATA.FLIP_LABEL_MAP [[left,right],[3,3],[4,star]]",
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


def test_advice_about_a_warm_up_that_goes_down() -> None:
    advice = load_config(None, ["SOLVER.BASE_LR", "0.001", "SOLVER.WARMUP_EPOCHS", "1"]).advice
    assert len(advice) == 1 and "SOLVER.WARMUP_START_LR 1e-05" in advice[0]


def test_advice_about_a_flip_map_without_flips() -> None:
    advice = load_config(None, ["DATA.FLIP_LABEL_MAP", "[[2,3]]"]).advice
    assert advice == [
        "DATA.FLIP_LABEL_MAP has no effect with DATA.RANDOM_FLIP False. "
        "Type DATA.RANDOM_FLIP True or DATA.FLIP_LABEL_MAP []"
    ]


def test_advice_about_a_flip_of_no_class() -> None:
    words = ["DATA.RANDOM_FLIP", "True", "DATA.FLIP_ONLY_MAPPED", "True"]
    (line,) = load_config(None, words).advice
    assert line.startswith("DATA.FLIP_ONLY_MAPPED True with DATA.FLIP_LABEL_MAP [] flips no clip. Give the classes")
    assert load_config(None, [*words, "DATA.FLIP_LABEL_MAP", "[[a,a]]"]).advice == []


@pytest.mark.parametrize("rule", RULES + TRAINING_RULES + ADVICE, ids=lambda rule: rule.message)
def test_every_rule_names_keys_and_accepts_the_defaults(rule: Rule) -> None:
    assert set(rule.others.split()) <= KEY_BY_NAME.keys()
    assert rule.apply(get_cfg()) == []
