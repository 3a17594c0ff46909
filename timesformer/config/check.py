"""Cross-checks: keys that are right alone and wrong together, each told with the override that mends it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from fvcore.common.config import CfgNode

from timesformer.utils.sizes import height_width

_AUTO_SIZES = {"LightTimeSformer": (384, 6)}  # EMBED_DIM and NUM_HEADS; of the other transformers (768, 12)
_RAND_AUGMENT = r"(inc1,)?m(10|\d(\.\d+)?)(,mstd\d+(\.\d+)?)?(,n[1-9]\d*)?"  # its parts, sorted


def check_config(cfg: CfgNode) -> list[str]:
    """All contradictions in `cfg`, one line each: the keys, the values found and what to type."""
    return [problem for check in _CHECKS for problem in check(cfg)]


def advise_config(cfg: CfgNode) -> list[str]:
    """What is allowed but seldom meant, one line each."""
    data, solver, advice = cfg.DATA, cfg.SOLVER, []
    blind_flip = cfg.TRAIN.ENABLE and data.RANDOM_FLIP and not data.FLIP_LABEL_MAP
    if blind_flip and cfg.TRAIN.DATASET in ("muwiges", "gestures"):
        advice.append(
            f"DATA.RANDOM_FLIP is True on {cfg.TRAIN.DATASET}, where a flip turns 10 of the 12 gestures into "
            "their mirror partners: set DATA.RANDOM_FLIP False, or "
            "DATA.FLIP_LABEL_MAP [[2,3],[4,5],[6,7],[8,9],[10,11]]."
        )
    if data.FLIP_LABEL_MAP and not data.RANDOM_FLIP:
        advice.append("DATA.FLIP_LABEL_MAP has no effect while DATA.RANDOM_FLIP is False.")
    if cfg.TRAIN.ENABLE and solver.WARMUP_EPOCHS > 0 and solver.WARMUP_START_LR > solver.BASE_LR:
        advice.append(
            f"warm-up goes down: SOLVER.WARMUP_START_LR {solver.WARMUP_START_LR:g} is above SOLVER.BASE_LR "
            f"{solver.BASE_LR:g}; for example SOLVER.WARMUP_START_LR {solver.BASE_LR / 100:g}."
        )
    return advice


def _sides(size: int | Sequence[int]) -> list[int]:
    return [size] if isinstance(size, int) else list(size)


def _written(values: Sequence[float]) -> str:
    """A list as one types it: no spaces."""
    return "[" + ",".join(f"{value:g}" for value in values) + "]"


def _lengths(cfg: CfgNode) -> Iterator[str]:
    for name, values, length, example in (
        ("DATA.MEAN", cfg.DATA.MEAN, 3, [0.45, 0.45, 0.45]),
        ("DATA.STD", cfg.DATA.STD, 3, [0.225, 0.225, 0.225]),
        ("DATA.TRAIN_JITTER_SCALES", cfg.DATA.TRAIN_JITTER_SCALES, 2, [256, 320]),
        ("SOLVER.BETAS", cfg.SOLVER.BETAS, 2, [0.9, 0.999]),
        ("GESTURES.NUM_SUBJECTS", cfg.GESTURES.NUM_SUBJECTS, 3, [60, 10, 20]),
    ):
        if len(values) != length:
            yield f"{name} needs {length} numbers, found {values}; for example {name} {_written(example)}"


def _patches(cfg: CfgNode) -> Iterator[str]:
    name, vit = cfg.MODEL.MODEL_NAME, cfg.TIMESFORMER
    if name not in ("TimeSformer", "LightTimeSformer") and not name.startswith("vit_"):
        return
    patch, whole = vit.PATCH_SIZE, True
    for key in ("TRAIN_CROP_SIZE", "TEST_CROP_SIZE"):
        sides = _sides(cfg.DATA[key])
        if any(side % patch for side in sides):
            whole = False
            below = [max(side // patch, 1) * patch for side in sides]
            above = [-(-side // patch) * patch for side in sides]
            down, up = (_written(size) if len(size) > 1 else str(size[0]) for size in (below, above))
            nearest = up if down == up else f"{down} and {up}"
            yield (
                f"DATA.{key} {cfg.DATA[key]} is not a multiple of TIMESFORMER.PATCH_SIZE {patch}; "
                f"nearest: {nearest}. Type DATA.{key} {down}"
            )
    train, test = cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TEST_CROP_SIZE
    if whole and height_width(train) != height_width(test):
        size = str(train).replace(" ", "")
        yield (
            f"DATA.TRAIN_CROP_SIZE {train} is not DATA.TEST_CROP_SIZE {test}, but the position embedding of {name} "
            f"has one size. Type DATA.TEST_CROP_SIZE {size}"
        )
    auto_width, auto_heads = _AUTO_SIZES.get(name, (768, 12))
    width = auto_width if vit.EMBED_DIM == "auto" else vit.EMBED_DIM
    heads = auto_heads if vit.NUM_HEADS == "auto" else vit.NUM_HEADS
    if width % heads:
        fitting = max(n for n in range(1, heads) if width % n == 0)
        yield (
            f"TIMESFORMER.EMBED_DIM {width} is not divisible by TIMESFORMER.NUM_HEADS {heads} "
            f"(auto is {auto_width} and {auto_heads}). "
            f"Type TIMESFORMER.NUM_HEADS {fitting} or TIMESFORMER.EMBED_DIM {-(-width // heads) * heads}"
        )


def _crops(cfg: CfgNode) -> Iterator[str]:
    data = cfg.DATA
    if data.CROP_MODE == "full":
        if cfg.TEST.ENABLE and cfg.TEST.NUM_SPATIAL_CROPS == 3:
            yield (
                "TEST.NUM_SPATIAL_CROPS 3 with DATA.CROP_MODE full would test three identical views. "
                "Type TEST.NUM_SPATIAL_CROPS 1"
            )
        return
    scales, side = data.TRAIN_JITTER_SCALES, min(_sides(data.TRAIN_CROP_SIZE))
    mend = "Type DATA.TRAIN_JITTER_SCALES"
    if len(scales) == 2 and scales[0] > scales[1]:
        yield f"DATA.TRAIN_JITTER_SCALES {scales} must go up. {mend} {_written(sorted(scales))}"
    elif len(scales) == 2 and cfg.TRAIN.ENABLE and scales[0] < side:
        yield (
            f"DATA.TRAIN_JITTER_SCALES {scales} is too small to cut DATA.TRAIN_CROP_SIZE "
            f"{data.TRAIN_CROP_SIZE} out. {mend} {_written([side, side * 8 // 7])}"
        )


def _schedule(cfg: CfgNode) -> Iterator[str]:
    solver = cfg.SOLVER
    steps, rates, epochs = solver.STEPS, solver.LRS, solver.MAX_EPOCH
    if not cfg.TRAIN.ENABLE:
        return
    if solver.LR_POLICY == "steps_with_relative_lrs":
        example = "for example SOLVER.STEPS [0,11,14] SOLVER.LRS [1,0.1,0.01]"
        if not steps or len(steps) != len(rates):
            yield (
                f"SOLVER.LR_POLICY {solver.LR_POLICY} needs SOLVER.STEPS and SOLVER.LRS of the same length, "
                f"found {steps} and {rates}; {example}"
            )
        elif steps[0] != 0 or any(b <= a for a, b in pairwise(steps)):
            yield f"SOLVER.STEPS {steps} must start at 0 and go up; {example}"
    if epochs < solver.WARMUP_EPOCHS:
        yield (
            f"SOLVER.WARMUP_EPOCHS {solver.WARMUP_EPOCHS:g} is longer than SOLVER.MAX_EPOCH {epochs}. "
            f"Type SOLVER.WARMUP_EPOCHS {epochs * 0.05:g}"
        )
    nesterov = solver.OPTIMIZING_METHOD == "sgd" and solver.NESTEROV
    if nesterov and (solver.MOMENTUM == 0 or solver.DAMPENING != 0):
        yield (
            "SOLVER.NESTEROV True needs momentum and no dampening, found "
            f"SOLVER.MOMENTUM {solver.MOMENTUM:g} and SOLVER.DAMPENING {solver.DAMPENING:g}. "
            "Type SOLVER.NESTEROV False"
        )


def _batches(cfg: CfgNode) -> Iterator[str]:
    shard, shards, gpus = cfg.SHARD_ID, cfg.NUM_SHARDS, cfg.NUM_GPUS
    if shard >= shards:
        yield f"SHARD_ID {shard} must be below NUM_SHARDS {shards}. Type SHARD_ID 0 or NUM_SHARDS {shard + 1}"
    processes = gpus if cfg.DIST.PROCESSES_PER_NODE == "auto" else cfg.DIST.PROCESSES_PER_NODE
    yield from batch_problems(cfg, shards, max(processes, 1) if isinstance(processes, int) else 1)


def batch_problems(cfg: CfgNode, nodes: int, processes: int) -> Iterator[str]:
    """What is wrong with the batches of `nodes` nodes with so many processes each, one line each."""
    batch, wanted = cfg.TRAIN.BATCH_SIZE, cfg.GLOBAL_BATCH_SIZE
    if not cfg.TRAIN.ENABLE:
        return
    if batch * nodes > wanted:
        smaller = wanted // nodes // processes * processes
        yield (
            f"TRAIN.BATCH_SIZE {batch} on {nodes} node(s) is more than GLOBAL_BATCH_SIZE {wanted}. "
            f"Type GLOBAL_BATCH_SIZE {batch * nodes}" + (f" or TRAIN.BATCH_SIZE {smaller}" if smaller else "")
        )
    if batch % processes:
        yield (
            f"TRAIN.BATCH_SIZE {batch} cannot be shared evenly by {processes} processes on a node. "
            f"Type TRAIN.BATCH_SIZE {-(-batch // processes) * processes}"
        )
    if cfg.MIXUP.ENABLED and batch // processes < 2:
        yield (
            f"MIXUP.ENABLED needs two clips in a forward pass, found TRAIN.BATCH_SIZE {batch} on {processes} "
            f"process(es) of a node. Type TRAIN.BATCH_SIZE {2 * processes} or MIXUP.ENABLED False"
        )


def _sharding(cfg: CfgNode) -> Iterator[str]:
    if cfg.DIST.STRATEGY == "fsdp" and cfg.PRECISION == "fp16":
        yield (
            "DIST.STRATEGY fsdp does not go with PRECISION fp16: each process would scale the loss of its own share. "
            "Type PRECISION bf16 (or DIST.STRATEGY ddp)"
        )


def _start(cfg: CfgNode) -> Iterator[str]:
    train = cfg.TRAIN
    if train.ENABLE and not train.CHECKPOINT_FILE_PATH:
        for name in ("FINETUNE", "CHECKPOINT_EPOCH_RESET"):
            if train[name]:
                yield f"TRAIN.{name} True needs a file to start from. Type TRAIN.CHECKPOINT_FILE_PATH FILE"
    elif train.ENABLE and train.FINETUNE and train.CHECKPOINT_EPOCH_RESET:
        yield (
            "TRAIN.FINETUNE True takes the weights only, TRAIN.CHECKPOINT_EPOCH_RESET True the optimiser too. "
            "Type one of them False"
        )


def _labels(cfg: CfgNode) -> Iterator[str]:
    pairs, classes = cfg.DATA.FLIP_LABEL_MAP, cfg.MODEL.NUM_CLASSES
    labels = [label for pair in pairs for label in pair]
    if len(set(labels)) != len(labels):
        yield (
            f"DATA.FLIP_LABEL_MAP {pairs}: a label may stand in one pair only; "
            "for example DATA.FLIP_LABEL_MAP [[2,3],[4,5]]"
        )
    if labels and max(labels) >= classes:
        yield (
            f"DATA.FLIP_LABEL_MAP {pairs}: labels count from 0; with MODEL.NUM_CLASSES {classes} the last is "
            f"{classes - 1}, found {max(labels)}. Type MODEL.NUM_CLASSES {max(labels) + 1}, or count from 0"
        )
    loss, smoothing, mixup = cfg.MODEL.LOSS_FUNC, cfg.SOLVER.LABEL_SMOOTHING, cfg.MIXUP
    mend = "Type MODEL.LOSS_FUNC bce_logit"
    if cfg.DATA.MULTI_LABEL and loss != "bce_logit":
        yield f"DATA.MULTI_LABEL True does not go with MODEL.LOSS_FUNC {loss}. {mend}"
    if loss == "bce_logit" and smoothing > 0:
        yield (
            f"SOLVER.LABEL_SMOOTHING {smoothing:g} does not go with MODEL.LOSS_FUNC {loss}. "
            "Type SOLVER.LABEL_SMOOTHING 0"
        )
    if mixup.ENABLED and mixup.ALPHA == 0 and mixup.CUTMIX_ALPHA == 0:
        yield "MIXUP.ALPHA 0 and MIXUP.CUTMIX_ALPHA 0 mix nothing. Type MIXUP.ENABLED False"


def _data(cfg: CfgNode) -> Iterator[str]:
    notation, names, frame = cfg.DATA.AUTO_AUGMENT, cfg.DATA.CLASS_NAMES_PATH, cfg.GESTURES.FRAME_SIZE
    head, *parts = notation.split("-")
    understood = head == "rand" and re.fullmatch(_RAND_AUGMENT, ",".join(sorted(parts)))
    if cfg.TRAIN.ENABLE and notation and not understood:
        yield (
            f"DATA.AUTO_AUGMENT {notation!r} is not RandAugment in timm's notation (m, the magnitude, from 0 to 10); "
            "for example DATA.AUTO_AUGMENT rand-m7-n2-mstd0.5"
        )
    if names and not os.path.isfile(names):
        yield f"DATA.CLASS_NAMES_PATH {names!r}: there is no such file"
    if frame != "auto" and any(side % 2 for side in _sides(frame)):
        even = [side + side % 2 for side in height_width(frame)]
        yield f"GESTURES.FRAME_SIZE {frame}: sides must be even. Type GESTURES.FRAME_SIZE {_written(even)}"


def _folder(cfg: CfgNode) -> Iterator[str]:
    val, test, pattern = cfg.FOLDER.VAL_FRACTION, cfg.FOLDER.TEST_FRACTION, cfg.FOLDER.SUBJECT_PATTERN
    if val + test >= 1:
        yield (
            f"FOLDER.VAL_FRACTION {val:g} and FOLDER.TEST_FRACTION {test:g} leave nothing to train on. "
            "Type FOLDER.VAL_FRACTION 0.1 FOLDER.TEST_FRACTION 0.2"
        )
    try:
        has_group = not pattern or re.compile(pattern).groups >= 1
    except re.error as error:
        yield f"FOLDER.SUBJECT_PATTERN {pattern!r} is no regular expression: {error}"
    else:
        if not has_group:
            yield f"FOLDER.SUBJECT_PATTERN {pattern!r} needs a group, such as 'subject(\\d+)'"


_CHECKS = (_lengths, _patches, _crops, _schedule, _batches, _sharding, _start, _labels, _data, _folder)
