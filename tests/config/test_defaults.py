"""The declarations themselves: unique names, defaults their own checks accept, meanings."""

from __future__ import annotations

from timesformer.config import get_cfg, load_config, unread_keys
from timesformer.config.defaults import DATASET_DEFAULTS, KEY_BY_NAME, KEYS, is_identity


def test_names_are_unique_and_upper_case() -> None:
    assert len({key.name for key in KEYS}) == len(KEYS)
    assert all(key.name == key.name.upper() and key.name.count(".") <= 1 for key in KEYS)
    sections = {key.name.split(".")[0] for key in KEYS if "." in key.name}
    assert sections.isdisjoint(KEY_BY_NAME)


def test_defaults_are_valid() -> None:
    words = [word for key in KEYS for word in (key.name, key.default)]
    assert load_config(None, words).cfg == get_cfg()


def test_every_key_has_a_meaning_in_one_line() -> None:
    for key in KEYS:
        assert key.meaning and "\n" not in key.meaning and not key.meaning.endswith("."), key.name


def test_get_cfg_gives_a_fresh_tree() -> None:
    get_cfg().DATA.MEAN.append(1.0)
    assert get_cfg().DATA.MEAN == [0.45, 0.45, 0.45]


def test_dataset_defaults_are_valid_values() -> None:
    for values in DATASET_DEFAULTS.values():
        load_config(None, [word for name, value in values.items() for word in (name, value)])


NO_IDENTITY = """
OUTPUT_DIR NUM_GPUS NUM_SHARDS SHARD_ID DIST_BACKEND PRECISION LOG_PERIOD SOLVER.MAX_EPOCH
DIST.STRATEGY DIST.PROCESSES_PER_NODE DIST.RENDEZVOUS_SECONDS MODEL.RECOMPUTE MODEL.COMPILE MODEL.WEIGHTS
MODEL.KERNELS
TRAIN.ENABLE TRAIN.BATCH_SIZE TRAIN.EVAL_PERIOD TRAIN.AUTO_RESUME TRAIN.FINETUNE TRAIN.ALLOW_PARTIAL_LOAD
TRAIN.CHECKPOINT_PERIOD TRAIN.CHECKPOINT_PERIOD_STEPS TRAIN.CHECKPOINT_PERIOD_MINUTES TRAIN.CHECKPOINT_KEEP
TRAIN.CHECKPOINT_ASYNC TRAIN.CHECKPOINT_FILE_PATH TRAIN.CHECKPOINT_EPOCH_RESET TRAIN.EARLY_STOP_EPOCHS
TEST.ENABLE TEST.DATASET TEST.SPLIT TEST.BATCH_SIZE TEST.CHECKPOINT_FILE_PATH TEST.CHECKPOINT TEST.BASELINES TEST.AUDITS
TEST.REPORT TEST.NUM_ENSEMBLE_VIEWS TEST.NUM_SPATIAL_CROPS TENSORBOARD.ENABLE TENSORBOARD.LOG_DIR
DATA.PATH_TO_DATA_DIR DATA.PATH_PREFIX DATA.CLASS_NAMES_PATH DATA.ENSEMBLE_METHOD DATA.DECODING_BACKEND
DATA.MAX_FAILED_FRACTION DATA_LOADER.NUM_WORKERS DATA_LOADER.PIN_MEMORY DATA_LOADER.CACHE DATA_LOADER.CACHE_DIR
DATA_LOADER.CACHE_GB DATA_LOADER.TIMEOUT DATA_LOADER.RECYCLE_AFTER
"""
TEST_ONLY = """
TEST.ENABLE TEST.DATASET TEST.SPLIT TEST.BATCH_SIZE TEST.CHECKPOINT_FILE_PATH TEST.CHECKPOINT TEST.BASELINES TEST.AUDITS
TEST.REPORT TEST.NUM_ENSEMBLE_VIEWS TEST.NUM_SPATIAL_CROPS DATA.ENSEMBLE_METHOD
"""
TRAINING_ONLY = """
GLOBAL_BATCH_SIZE LOG_PERIOD MODEL.LOSS_FUNC TRAIN.ENABLE TRAIN.DATASET TRAIN.BATCH_SIZE TRAIN.EVAL_PERIOD
TRAIN.CHECKPOINT_PERIOD TRAIN.CHECKPOINT_PERIOD_STEPS TRAIN.CHECKPOINT_PERIOD_MINUTES TRAIN.CHECKPOINT_KEEP
TRAIN.CHECKPOINT_ASYNC TRAIN.AUTO_RESUME TRAIN.CHECKPOINT_FILE_PATH TRAIN.FINETUNE TRAIN.CHECKPOINT_EPOCH_RESET
TRAIN.ALLOW_PARTIAL_LOAD TRAIN.FREEZE TRAIN.TRAINABLE_BLOCKS
TRAIN.BALANCE TRAIN.REPEATED_AUG TRAIN.BEST_METRIC TRAIN.EARLY_STOP_EPOCHS
DATA.TRAIN_CROP_SIZE DATA.TRAIN_JITTER_SCALES DATA.INV_UNIFORM_SAMPLE DATA.RANDOM_FLIP DATA.FLIP_LABEL_MAP
DATA.FLIP_ONLY_MAPPED DATA.COLOR_JITTER DATA.AUTO_AUGMENT DATA.RE_PROB DATA.MAX_FAILED_FRACTION
AUG.SHIFT AUG.ZOOM AUG.ROTATION AUG.PERSPECTIVE AUG.GAMMA AUG.GRAY_PROB AUG.BLUR AUG.NOISE AUG.JPEG_QUALITY
AUG.TRIM AUG.SPEED
DATA_LOADER.NUM_WORKERS DATA_LOADER.PIN_MEMORY DATA_LOADER.CACHE DATA_LOADER.CACHE_DIR DATA_LOADER.CACHE_GB
DATA_LOADER.TIMEOUT DATA_LOADER.RECYCLE_AFTER
MIXUP.ENABLED MIXUP.ALPHA MIXUP.CUTMIX_ALPHA MIXUP.PROB MIXUP.SWITCH_PROB EMA.ENABLED EMA.DECAY EMA.WARMUP
SOLVER.OPTIMIZING_METHOD SOLVER.BASE_LR SOLVER.BASE_LR_BATCH_SIZE SOLVER.LR_POLICY SOLVER.COSINE_END_LR SOLVER.STEPS
SOLVER.LRS SOLVER.MAX_EPOCH SOLVER.WARMUP_EPOCHS SOLVER.WARMUP_START_LR SOLVER.MOMENTUM SOLVER.DAMPENING
SOLVER.NESTEROV SOLVER.BETAS SOLVER.WEIGHT_DECAY SOLVER.LAYER_DECAY SOLVER.CLIP_GRAD_NORM SOLVER.LABEL_SMOOTHING
"""


def test_what_may_differ_between_a_checkpoint_and_the_run_that_resumes_it() -> None:
    assert {key.name for key in KEYS if not key.identity} == set(NO_IDENTITY.split())
    assert is_identity("SOLVER.BASE_LR") and not is_identity("OUTPUT_DIR")
    assert is_identity("MODEL.KEY_OF_ANOTHER_VERSION")


def test_which_part_of_a_run_alone_uses_a_key() -> None:
    assert {key.name for key in KEYS if key.used_by == "test"} == set(TEST_ONLY.split())
    assert {key.name for key in KEYS if key.used_by == "training"} == set(TRAINING_ONLY.split())
    assert {key.used_by for key in KEYS} == {"", "test", "training"}


def test_unread_keys_leave_out_the_parts_that_do_not_run() -> None:
    loaded = load_config(None, ["TEST.BATCH_SIZE", "2", "SOLVER.BASE_LR", "1", "DATA.MEAN", "[0,0,0]"])
    names = {
        ignore: [line.split(" ")[0] for line in unread_keys(loaded, ignore=ignore)]
        for ignore in ((), ("test",), ("training",), ("test", "training"))
    }
    assert names == {
        (): ["TEST.BATCH_SIZE", "SOLVER.BASE_LR", "DATA.MEAN"],
        ("test",): ["SOLVER.BASE_LR", "DATA.MEAN"],
        ("training",): ["TEST.BATCH_SIZE", "DATA.MEAN"],
        ("test", "training"): ["DATA.MEAN"],
    }
