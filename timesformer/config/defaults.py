"""Every configuration key, declared once: name, default, kind, meaning, choices or range.

`KEYS` is the single source: `get_cfg()` builds the fvcore tree from it, `load.py` checks values
against it and `tools/print_config.py` prints it.

Kinds: ``bool int float str``; ``int|auto`` (a whole number or the word auto); ``ints floats strs``
(lists); ``size`` (one number, or [height, width]); ``size|auto`` (likewise, or the word auto); ``pairs`` (a list
of two-element lists of ints).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fvcore.common.config import CfgNode


@dataclass(frozen=True)
class Key:
    """One configuration key.

    Attributes:
        name: dotted upper-case name, as in YAML and on the command line.
        default: the value when nobody sets it.
        kind: one of the kinds listed in the module docstring.
        meaning: one line for `--help` and `tools/print_config.py`; units included.
        choices: the allowed values; empty when any value of the kind is allowed.
        low, high: inclusive range of a number (of each item of a list), None when open.
    """

    name: str
    default: Any
    kind: str
    meaning: str
    choices: tuple[Any, ...] = ()
    low: float | None = None
    high: float | None = None


KEYS: tuple[Key, ...] = (
    # ---------------------------------------------------------------- the run
    Key("OUTPUT_DIR", "./output", "str", "folder for checkpoints, logs, predictions and pictures"),
    Key("RNG_SEED", 0, "int", "seed of every random choice of the run", low=0),
    Key("NUM_GPUS", "auto", "int|auto", "GPUs per node; 0 trains on the CPU, auto takes every visible GPU", low=0),
    Key("NUM_SHARDS", 1, "int", "number of nodes", low=1),
    Key("SHARD_ID", 0, "int", "index of this node, from 0", low=0),
    Key("DIST_BACKEND", "auto", "str", "torch.distributed backend; auto: nccl on GPUs, gloo on CPUs", ("auto", "nccl", "gloo")),
    Key("DIST.STRATEGY", "ddp", "str", "ddp: every process holds the whole model; fsdp: parameters, gradients and optimiser state are shared out (FSDP2)", ("ddp", "fsdp")),
    Key("DIST.PROCESSES_PER_NODE", "auto", "int|auto", "processes started on a node; auto: one per GPU, on a CPU one", low=1),
    Key("DIST.RENDEZVOUS_SECONDS", 300, "int", "longest wait at the start until all processes have found one another", low=1),
    Key("GLOBAL_BATCH_SIZE", 64, "int", "clips per optimiser step over all nodes; reached by accumulation", low=1),
    Key("PRECISION", "auto", "str", "arithmetic of the model; auto: bf16 where CPU or GPU multiply it, fp16 on GPUs of compute capability 7, else fp32", ("auto", "fp32", "bf16", "fp16")),
    Key("LOG_PERIOD", 10, "int", "optimiser steps between two log lines", low=1),
    # ---------------------------------------------------------------- training
    Key("TRAIN.ENABLE", True, "bool", "train"),
    Key("TRAIN.DATASET", "kinetics", "str", "dataset of the training and validation clips"),
    Key("TRAIN.BATCH_SIZE", 64, "int", "clips per node and forward pass, over all GPUs of the node", low=1),
    Key("TRAIN.EVAL_PERIOD", 1, "int", "epochs between two validations", low=1),
    Key("TRAIN.CHECKPOINT_PERIOD", 1, "int", "epochs between two checkpoints", low=1),
    Key("TRAIN.CHECKPOINT_PERIOD_STEPS", 0, "int", "also a checkpoint every so many optimiser steps of the run; 0: none", low=0),
    Key("TRAIN.CHECKPOINT_PERIOD_MINUTES", 30.0, "float", "also a checkpoint when the last is so many minutes old; 0: none", low=0),
    Key("TRAIN.CHECKPOINT_KEEP", 3, "int", "newest checkpoints that are kept, besides the best one; 0: all", low=0),
    Key("TRAIN.CHECKPOINT_ASYNC", True, "bool", "write checkpoints while training goes on (holds a copy of the state in memory)"),
    Key("TRAIN.AUTO_RESUME", False, "bool", "go on from the newest checkpoint in OUTPUT_DIR, if it is of the same run"),
    Key("TRAIN.CHECKPOINT_FILE_PATH", "", "str", "checkpoint whose weights (FINETUNE) or whole state training starts from"),
    Key("TRAIN.FINETUNE", False, "bool", "take only the weights of CHECKPOINT_FILE_PATH; a head of another size starts anew"),
    Key("TRAIN.CHECKPOINT_EPOCH_RESET", False, "bool", "take weights and optimiser of CHECKPOINT_FILE_PATH but start at epoch 0"),
    Key("TRAIN.ALLOW_PARTIAL_LOAD", False, "bool", "fine-tune even when a file of weights covers less than 90% of the backbone, or another architecture"),
    Key("TRAIN.FREEZE", [], "strs", "parameters that stay as they are, as glob patterns on whole names: \"['patch_embed.*', 'blocks.0.*']\""),
    Key("TRAIN.TRAINABLE_BLOCKS", "auto", "int|auto", "auto: train everything; 0: the head only (linear probe); N: head, final norm and last N blocks", low=0),
    # ---------------------------------------------------------------- test
    Key("TEST.ENABLE", True, "bool", "test after training (or only test, when TRAIN.ENABLE is False)"),
    Key("TEST.DATASET", "kinetics", "str", "dataset of the test clips"),
    Key("TEST.SPLIT", "test", "str", "list to test on", ("train", "val", "test")),
    Key("TEST.BATCH_SIZE", 8, "int", "views per forward pass and node", low=1),
    Key("TEST.CHECKPOINT_FILE_PATH", "", "str", "checkpoint to test; empty: the one named by TEST.CHECKPOINT in OUTPUT_DIR"),
    Key("TEST.CHECKPOINT", "last", "str", "checkpoint of OUTPUT_DIR to test", ("last", "best")),
    Key("TEST.NUM_ENSEMBLE_VIEWS", 1, "int|auto", "clips in time per video; auto takes as many as cover the video", low=1),
    Key("TEST.NUM_SPATIAL_CROPS", 3, "int", "crops per clip: 1 (centre) or 3 (left/centre/right or top/centre/bottom)", (1, 3)),
    # ---------------------------------------------------------------- model
    Key("MODEL.MODEL_NAME", "TimeSformer", "str", "name in the model registry"),
    Key("MODEL.NUM_CLASSES", 400, "int", "number of classes", low=1),
    Key("MODEL.LOSS_FUNC", "cross_entropy", "str", "loss; bce_logit for several labels per video", ("cross_entropy", "bce_logit")),
    Key("MODEL.DROP_RATE", 0.0, "float", "dropout after embeddings, projections and MLP layers", low=0, high=0.99),
    Key("MODEL.ATTN_DROP_RATE", 0.0, "float", "dropout on attention weights", low=0, high=0.99),
    Key("MODEL.DROP_PATH_RATE", 0.1, "float", "stochastic depth of the last block; grows linearly from 0", low=0, high=0.99),
    Key("MODEL.RECOMPUTE", "none", "str", "what the backward pass computes again instead of keeping it: cheap, norms and GELUs; blocks, each whole block (least memory, about a third more time)", ("none", "cheap", "blocks")),
    Key("MODEL.COMPILE", False, "bool", "torch.compile for training and tests: up to minutes at each new size of batch; meant for GPUs, a CPU gains little or nothing; draws dropout otherwise"),
    Key("TIMESFORMER.ATTENTION_TYPE", "divided_space_time", "str", "space-time attention (paper, Figure 2)", ("divided_space_time", "joint_space_time", "space_only", "sparse_local_global", "axial")),
    Key("TIMESFORMER.PRETRAINED_MODEL", "", "str", "weights the model starts from: a file, timm:NAME, hf:ID or a Hugging Face folder; a head of another size starts anew"),
    Key("TIMESFORMER.PATCH_SIZE", 16, "int", "side of a square patch in pixels", low=1),
    Key("TIMESFORMER.EMBED_DIM", "auto", "int|auto", "token width; auto: TimeSformer 768, LightTimeSformer 384", low=1),
    Key("TIMESFORMER.DEPTH", "auto", "int|auto", "number of blocks; auto: 12", low=1),
    Key("TIMESFORMER.NUM_HEADS", "auto", "int|auto", "attention heads; auto: TimeSformer 12, LightTimeSformer 6", low=1),
    Key("TIMESFORMER.MLP_RATIO", 4.0, "float", "hidden width of the MLP over token width", low=0.1),
    Key("TIMESFORMER.QKV_BIAS", True, "bool", "bias in the query, key and value projections"),
    Key("TIMESFORMER.INIT", "vit", "str", "vit: std 0.02, for fine-tuning; scratch: sine-cosine positions and 1/sqrt(fan_in), for training from nothing", ("vit", "scratch")),
    # ---------------------------------------------------------------- data
    Key("DATA.PATH_TO_DATA_DIR", "", "str", "folder with the lists (train.csv, val.csv, test.csv) or, for `folder`, the classes"),
    Key("DATA.PATH_PREFIX", "", "str", "put before every relative path of the lists"),
    Key("DATA.PATH_LABEL_SEPARATOR", " ", "str", "between path and label in a csv list"),
    Key("DATA.CLASS_NAMES_PATH", "", "str", "text file with one class name a line, in label order, or a json {name: label}"),
    Key("DATA.NUM_FRAMES", 8, "int", "frames per clip", low=1),
    Key("DATA.SAMPLING_RATE", 8, "int|auto", "clip span = SAMPLING_RATE * NUM_FRAMES / TARGET_FPS seconds; auto spans the whole video", low=1),
    Key("DATA.TARGET_FPS", 30.0, "float", "frame rate that SAMPLING_RATE counts in", low=1),
    Key("DATA.SHUFFLE_FRAMES", False, "bool", "control experiment: shuffle the frames of every clip, in training and test"),
    Key("DATA.MEAN", [0.45, 0.45, 0.45], "floats", "mean subtracted per channel, of pixel values in 0..1 (of 0..255: divide by 255)", low=0, high=1),
    Key("DATA.STD", [0.225, 0.225, 0.225], "floats", "standard deviation divided by, per channel, of pixel values in 0..1 (of 0..255: divide by 255)", low=1e-6, high=1),
    Key("DATA.CHANNEL_ORDER", "rgb", "str", "order of the colour channels the model sees", ("rgb", "bgr")),
    Key("DATA.CROP_MODE", "crop", "str", "crop: scale to the short side, then crop; full: the whole frame, resized to the crop size", ("crop", "full")),
    Key("DATA.TRAIN_CROP_SIZE", 224, "size", "training input in pixels: side, or [height, width]", low=1),
    Key("DATA.TEST_CROP_SIZE", 224, "size", "validation and test input in pixels: side, or [height, width]", low=1),
    Key("DATA.TRAIN_JITTER_SCALES", [256, 320], "ints", "range of the short side before the random crop, in pixels", low=1),
    Key("DATA.INV_UNIFORM_SAMPLE", False, "bool", "draw the short side uniformly in 1/size (as the SSv2 recipes do)"),
    Key("DATA.RANDOM_FLIP", False, "bool", "flip training clips left-right at random (wrong for classes that are mirror images)"),
    Key("DATA.FLIP_LABEL_MAP", [], "pairs", "pairs of labels that a left-right flip swaps, such as [[2, 3], [4, 5]]", low=0),
    Key("DATA.COLOR_JITTER", 0.0, "float", "strength of brightness, contrast and saturation jitter", low=0),
    Key("DATA.AUTO_AUGMENT", "", "str", "RandAugment in timm's notation, such as rand-m7-n2; empty: none"),
    Key("DATA.RE_PROB", 0.0, "float", "probability of random erasing (the same rectangle in every frame)", low=0, high=1),
    Key("DATA.MULTI_LABEL", False, "bool", "several labels per video, separated by commas or semicolons in the list"),
    Key("DATA.ENSEMBLE_METHOD", "mean", "str", "how views are joined: mean of softmax; sum or max of logits", ("mean", "sum", "max")),
    Key("DATA.DECODING_BACKEND", "pyav", "str", "video decoder; auto takes torchcodec where it really decodes", ("auto", "pyav", "torchcodec")),
    Key("DATA.MAX_FAILED_FRACTION", 0.1, "float", "training stops when more clips than this fail to decode", low=0, high=1),
    # ---------------------------------------------------------------- datasets with settings of their own
    Key("FOLDER.SEED", 0, "int", "seed of the split into training, validation and test", low=0),
    Key("FOLDER.VAL_FRACTION", 0.1, "float", "share of the videos (or subjects) held out for validation", low=0, high=0.9),
    Key("FOLDER.TEST_FRACTION", 0.2, "float", "share of the videos (or subjects) held out for test", low=0, high=0.9),
    Key("FOLDER.SUBJECT_PATTERN", "", "str", "regular expression whose first group is the subject in a path; subjects are then never shared between splits"),
    Key("SSV2.INPUT", "frames", "str", "read frame folders with frame lists, or the video files", ("frames", "videos")),
    Key("GESTURES.SEED", 0, "int", "seed of the rendered gestures", low=0),
    Key("GESTURES.NUM_SUBJECTS", [60, 10, 20], "ints", "people in train, val and test; each makes every gesture once", low=1),
    Key("GESTURES.FRAME_SIZE", "auto", "size|auto", "rendered frame in pixels: even side, or [height, width]; auto: 84 x 96, or 120 x 160 with HARD", low=16),
    Key("GESTURES.HARD", False, "bool", "harder rendering: clutter, little contrast, small hand"),
    Key("GESTURES.CODEC", "mpeg4", "str", "mpeg4 writes .avi files, h264 writes .mp4 files", ("mpeg4", "h264")),
    # ---------------------------------------------------------------- loading and mixing
    Key("DATA_LOADER.NUM_WORKERS", "auto", "int|auto", "loader processes per training process; auto: its share of the CPUs, at most 8 (on a CPU a quarter of it)", low=0),
    Key("DATA_LOADER.PIN_MEMORY", True, "bool", "page-locked host memory, for faster copies to a GPU"),
    Key("DATA_LOADER.CACHE", "none", "str", "keep decoded frames of small datasets: memory (/dev/shm, gone after the run) or disk (stays for the next run)", ("none", "memory", "disk")),
    Key("DATA_LOADER.CACHE_DIR", "", "str", "folder of CACHE disk; empty: timesformer/frames below $XDG_CACHE_HOME or ~/.cache"),
    Key("DATA_LOADER.CACHE_GB", 16.0, "float", "most gigabytes that the cached frames of one list (train, val or test) may take", low=0),
    Key("DATA_LOADER.TIMEOUT", 300.0, "float", "seconds after which a video that hangs a loader process is given up as unreadable; 0: never", low=0),
    Key("DATA_LOADER.RECYCLE_AFTER", 0, "int", "clips after which a loader process decodes in a fresh process; 0: never", low=0),
    Key("MIXUP.ENABLED", False, "bool", "mixup and CutMix of neighbouring clips"),
    Key("MIXUP.ALPHA", 0.8, "float", "Beta parameter of mixup; 0 switches mixup off", low=0),
    Key("MIXUP.CUTMIX_ALPHA", 1.0, "float", "Beta parameter of CutMix; 0 switches CutMix off", low=0),
    Key("MIXUP.PROB", 1.0, "float", "probability that a pair is mixed", low=0, high=1),
    Key("MIXUP.SWITCH_PROB", 0.5, "float", "probability of CutMix instead of mixup when both are on", low=0, high=1),
    # ---------------------------------------------------------------- solver
    Key("SOLVER.OPTIMIZING_METHOD", "sgd", "str", "optimiser", ("sgd", "adam", "adamw")),
    Key("SOLVER.BASE_LR", 0.1, "float", "learning rate the schedule starts from", low=0),
    Key("SOLVER.BASE_LR_BATCH_SIZE", "auto", "int|auto", "clips per step that BASE_LR and the other rates are meant for; they are scaled to GLOBAL_BATCH_SIZE. auto: GLOBAL_BATCH_SIZE, rates as written", low=1),
    Key("SOLVER.LR_POLICY", "cosine", "str", "learning-rate schedule", ("cosine", "steps_with_relative_lrs")),
    Key("SOLVER.COSINE_END_LR", 0.0, "float", "last learning rate of the cosine schedule", low=0),
    Key("SOLVER.STEPS", [], "ints", "epochs at which steps_with_relative_lrs changes the rate; the first is 0", low=0),
    Key("SOLVER.LRS", [], "floats", "rates of those steps, relative to BASE_LR", low=0),
    Key("SOLVER.MAX_EPOCH", 300, "int", "epochs to train", low=1),
    Key("SOLVER.WARMUP_EPOCHS", 0.0, "float", "epochs of linear warm-up", low=0),
    Key("SOLVER.WARMUP_START_LR", 0.01, "float", "learning rate at the start of warm-up", low=0),
    Key("SOLVER.MOMENTUM", 0.9, "float", "momentum of SGD", low=0, high=1),
    Key("SOLVER.DAMPENING", 0.0, "float", "dampening of SGD's momentum", low=0, high=1),
    Key("SOLVER.NESTEROV", True, "bool", "Nesterov momentum of SGD"),
    Key("SOLVER.BETAS", [0.9, 0.999], "floats", "running averages of Adam and AdamW", low=0, high=0.99999),
    Key("SOLVER.WEIGHT_DECAY", 1e-4, "float", "weight decay of matrices (never of biases, norms and embeddings)", low=0),
    Key("SOLVER.LAYER_DECAY", 1.0, "float", "learning rate of a block over that of the block above it; 1: the same for all", low=0.01, high=1),
    Key("SOLVER.CLIP_GRAD_NORM", 0.0, "float", "largest gradient norm; 0: no clipping", low=0),
    Key("SOLVER.LABEL_SMOOTHING", 0.0, "float", "share of the target spread over all classes", low=0, high=0.99),
    # ---------------------------------------------------------------- average of the weights
    Key("EMA.ENABLED", False, "bool", "keep an exponential moving average of the weights; it is validated, saved and tested"),
    Key("EMA.DECAY", 0.9999, "float", "share of the average that each optimiser step keeps", low=0, high=1),
    Key("EMA.WARMUP", True, "bool", "let the decay grow to EMA.DECAY over the first steps, for short trainings"),
    # ---------------------------------------------------------------- TensorBoard
    Key("TENSORBOARD.ENABLE", True, "bool", "write TensorBoard events"),
    Key("TENSORBOARD.LOG_DIR", "", "str", "folder of the events; empty: OUTPUT_DIR/tensorboard"),
)  # fmt: skip

KEY_BY_NAME: dict[str, Key] = {key.name: key for key in KEYS}

# What a dataset means when the user leaves the key unset (announced at load time).
# SSv2 in the TimeSformer paper: one frame from each of NUM_FRAMES segments of the whole video; the released
# SSv2 weights were trained on frames in BGR order; SSv2's test labels are not public, so its validation list is tested.
DATASET_DEFAULTS: dict[str, dict[str, Any]] = {
    "ssv2": {"DATA.SAMPLING_RATE": "auto", "DATA.CHANNEL_ORDER": "bgr", "TEST.SPLIT": "val"},
}


def get_cfg() -> CfgNode:
    """A fresh tree with every key at its default."""
    cfg = CfgNode()
    for key in KEYS:
        set_value(cfg, key.name, key.default)
    return cfg


def set_value(cfg: CfgNode, name: str, value: Any) -> None:
    """Set the dotted key `name`, making the sections on the way; lists are copied."""
    *sections, leaf = name.split(".")
    for section in sections:
        if section not in cfg:
            cfg[section] = CfgNode()
        cfg = cfg[section]
    cfg[leaf] = [*value] if isinstance(value, list) else value
