"""Cross-checks: settings that are right alone and contradict each other, each reported with what to type."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, pairwise
from typing import Any, NamedTuple

from fvcore.common.config import CfgNode

from timesformer.config.defaults import KEY_BY_NAME, get_value
from timesformer.utils.sizes import height_width


class Rule(NamedTuple):
    """A contradiction (or for advice, a combination that is allowed but seldom meant) and how to resolve it."""

    message: str  # "{KEY}" stands for the key and its value
    fix: Callable[..., Any]  # values of those keys, then of `others` -> what to type; falsy if nothing is wrong
    others: str = ""  # further keys that decide, separated by spaces

    def apply(self, cfg: CfgNode) -> list[str]:
        """The line about `cfg`, if there is one."""
        names = re.findall(r"{(.+?)}", self.message)
        fix = self.fix(*(get_value(cfg, name) for name in (*names, *self.others.split())))
        return [re.sub(r"{(.+?)}", lambda match: _setting(cfg, match[1]), self.message) + f". {fix}"] if fix else []


def check_config(cfg: CfgNode) -> list[str]:
    """All contradictions in `cfg`, one line each: the keys, the values found and what to type."""
    processes = cfg.NUM_GPUS if cfg.DIST.PROCESSES_PER_NODE == "auto" else cfg.DIST.PROCESSES_PER_NODE
    processes = max(processes, 1) if isinstance(processes, int) else 1
    rules = RULES + TRAINING_RULES if cfg.TRAIN.ENABLE else RULES
    return [*batch_problems(cfg, cfg.NUM_SHARDS, processes), *(line for rule in rules for line in rule.apply(cfg))]


def advise_config(cfg: CfgNode) -> list[str]:
    """What is allowed but seldom meant, one line each."""
    return [line for rule in ADVICE for line in rule.apply(cfg)]


def batch_problems(cfg: CfgNode, nodes: int, processes: int) -> Iterator[str]:
    """What is wrong with the batches of `nodes` nodes with `processes` processes each, one line per problem."""
    batch, wanted = cfg.TRAIN.BATCH_SIZE, cfg.GLOBAL_BATCH_SIZE
    if not cfg.TRAIN.ENABLE or batch == "auto":
        return
    if batch * nodes > wanted:
        smaller = wanted // nodes // processes * processes
        yield (
            f"TRAIN.BATCH_SIZE {batch} on {nodes} node(s) is more than GLOBAL_BATCH_SIZE {wanted}. "
            f"Type GLOBAL_BATCH_SIZE {batch * nodes}" + (f" or TRAIN.BATCH_SIZE {smaller}" if smaller else "")
        )
    if batch % processes:
        yield (
            f"TRAIN.BATCH_SIZE {batch} cannot be split evenly among the {processes} processes of a node. "
            f"Type TRAIN.BATCH_SIZE {-(-batch // processes) * processes}"
        )
    if cfg.MIXUP.ENABLED and batch // processes < 2:
        yield (
            f"MIXUP.ENABLED needs two clips in a forward pass, found TRAIN.BATCH_SIZE {batch} for {processes} "
            f"process(es) of a node. Type TRAIN.BATCH_SIZE {2 * processes} or MIXUP.ENABLED False"
        )


def format_list(values: Sequence[float]) -> str:
    """A list as a word of the command line, without spaces: [1,0.1]."""
    return "[" + ",".join(f"{value:g}" for value in values) + "]"


def _setting(cfg: CfgNode, name: str) -> str:
    """A key and its value, as in `SOLVER.BASE_LR 0.1`; free text is quoted."""
    value, key = get_value(cfg, name), KEY_BY_NAME[name]
    if isinstance(value, float):
        return f"{name} {value:g}"
    return f"{name} {value!r}" if key.kind in ("str", "path") and not key.choices else f"{name} {value}"


def _is_rand_augment(notation: str) -> bool:
    head, *parts = notation.split("-")
    sorted_parts = r"(inc1,)?m(10|\d(\.\d+)?)(,mstd\d+(\.\d+)?)?(,n[1-9]\d*)?"
    return head == "rand" and re.fullmatch(sorted_parts, ",".join(sorted(parts))) is not None


RULES = (
    Rule("{SHARD_ID} must be below {NUM_SHARDS}",
         lambda shard, shards: shard >= shards and f"Type SHARD_ID 0 or NUM_SHARDS {shard + 1}"),
    Rule("{DIST.STRATEGY} does not work with {PRECISION}: each process would scale the loss of its own share",
         lambda strategy, precision: (strategy, precision) == ("fsdp", "fp16")
         and "Type PRECISION bf16 (or DIST.STRATEGY ddp)"),
    Rule("{TRAIN.BATCH_SIZE} does not work with {DIST.STRATEGY}: no process can try alone what fits into its memory",
         lambda batch, strategy, train: train and (batch, strategy) == ("auto", "fsdp")
         and "Type TRAIN.BATCH_SIZE 8 (or DIST.STRATEGY ddp)", "TRAIN.ENABLE"),
    Rule("{TEST.NUM_SPATIAL_CROPS} with {DATA.CROP_MODE} would test three identical views",
         lambda crops, mode, test: test and (crops, mode) == (3, "full") and "Type TEST.NUM_SPATIAL_CROPS 1",
         "TEST.ENABLE"),
    Rule("{DATA.TRAIN_JITTER_SCALES} must go up",
         lambda scales, mode: mode == "crop" and scales != sorted(scales)
         and f"Type DATA.TRAIN_JITTER_SCALES {format_list(sorted(scales))}", "DATA.CROP_MODE"),
    Rule("{DATA.FLIP_LABEL_MAP}: a label may occur in one pair only",
         lambda pairs: len({*chain(*pairs)}) < sum(len({*pair}) for pair in pairs)
         and "For example DATA.FLIP_LABEL_MAP [[2,3],[4,5]]"),
    Rule("{DATA.FLIP_LABEL_MAP}: labels count from 0 and must be below {MODEL.NUM_CLASSES}",
         lambda pairs, classes:
         (largest := max((item for item in chain(*pairs) if isinstance(item, int)), default=-1))
         >= (math.inf if classes == "auto" else classes)
         and f"Type MODEL.NUM_CLASSES {largest + 1} or count from 0"),
    Rule("{DATA.MULTI_LABEL} does not work with {MODEL.LOSS_FUNC}",
         lambda multi_label, loss: multi_label and loss != "bce_logit" and "Type MODEL.LOSS_FUNC bce_logit"),
    Rule("{TEST.AUDITS} needs one label per video, found {DATA.MULTI_LABEL}",
         lambda audits, multi_label, test: test and audits is True and multi_label and "Type TEST.AUDITS auto",
         "TEST.ENABLE"),
    Rule("{SOLVER.LABEL_SMOOTHING} does not work with {MODEL.LOSS_FUNC}",
         lambda smoothing, loss: smoothing > 0 and loss == "bce_logit" and "Type SOLVER.LABEL_SMOOTHING 0"),
    Rule("{DATA.NUM_FRAMES} of {DATA.TEST_CROP_SIZE} and {DATA.DIFFERENCE_FRAMES} are more than a gigabyte a clip",
         lambda frames, crop, differences, shown:
         frames * (1 if shown == "rgb" else differences) * math.prod(height_width(crop)) * 3 > 2**30
         and "Type DATA.NUM_FRAMES 8", "DATA.INPUT"),
    Rule("{MIXUP.ALPHA} and {MIXUP.CUTMIX_ALPHA} mix nothing",
         lambda mixup, cutmix, enabled: enabled and mixup == cutmix == 0 and "Type MIXUP.ENABLED False",
         "MIXUP.ENABLED"),
    Rule("{DATA.CLASS_NAMES_PATH}: there is no such file",
         lambda path: path and not os.path.isfile(path) and "Give a file with one class name per line, or none"),
    Rule("{GESTURES.FRAME_SIZE}: sides must be even",
         lambda frame: frame != "auto" and any(side % 2 for side in height_width(frame))
         and f"Type GESTURES.FRAME_SIZE {format_list([side + side % 2 for side in height_width(frame)])}"),
    Rule("{FOLDER.VAL_FRACTION} and {FOLDER.TEST_FRACTION} leave no videos to train on",
         lambda val, test: val + test >= 1 and "Type FOLDER.VAL_FRACTION 0.1 FOLDER.TEST_FRACTION 0.2"),
)  # fmt: skip

_STEPS = "For example SOLVER.STEPS [0,11,14] SOLVER.LRS [1,0.1,0.01]"
TRAINING_RULES = (
    Rule("{DATA.TRAIN_JITTER_SCALES} is too small for crops of {DATA.TRAIN_CROP_SIZE}",
         lambda scales, crop, mode: mode == "crop" and scales[0] < (side := min(height_width(crop)))
         and f"Type DATA.TRAIN_JITTER_SCALES {format_list([side, side * 8 // 7])}", "DATA.CROP_MODE"),
    Rule("{SOLVER.LR_POLICY} needs as many steps as rates, found {SOLVER.STEPS} and {SOLVER.LRS}",
         lambda policy, steps, rates: policy != "cosine" and not 0 < len(steps) == len(rates) and _STEPS),
    Rule("{SOLVER.STEPS} must start at 0 and go up",
         lambda steps, policy: policy != "cosine" and steps
         and (steps[0] != 0 or any(later <= step for step, later in pairwise(steps))) and _STEPS, "SOLVER.LR_POLICY"),
    Rule("{MODEL.NUM_CLASSES} with {MODEL.LOSS_FUNC} is always 100% right, and learns nothing",
         lambda classes, loss: classes == 1 and loss == "cross_entropy"
         and "Type MODEL.NUM_CLASSES 2 (and give videos of another class) or MODEL.LOSS_FUNC bce_logit"),
    Rule("{SOLVER.WARMUP_EPOCHS} is longer than {SOLVER.MAX_EPOCH}",
         lambda warmup, epochs: warmup > epochs and f"Type SOLVER.WARMUP_EPOCHS {epochs * 0.05:g}"),
    Rule("{GLOBAL_BATCH_SIZE} is not a multiple of {TRAIN.REPEATED_AUG}",
         lambda batch, repeats: batch % repeats and f"Type GLOBAL_BATCH_SIZE {-(-batch // repeats) * repeats}"),
    Rule("{TRAIN.BALANCE} needs one label per video, found {DATA.MULTI_LABEL}",
         lambda balance, several: several and balance in ("sampling", "weights") and "Type TRAIN.BALANCE none"),
    Rule("{TRAIN.BEST_METRIC} is not a metric of what has one label, or several, per video: found {DATA.MULTI_LABEL}",
         lambda metric, several: metric in (("top1", "macro_f1", "mean_class") if several else ("mAP",))
         and "Type TRAIN.BEST_METRIC auto"),
    Rule("{SOLVER.NESTEROV} needs momentum and no dampening, found {SOLVER.MOMENTUM} and {SOLVER.DAMPENING}",
         lambda nesterov, momentum, dampening, method: nesterov and method == "sgd"
         and (momentum == 0 or dampening != 0) and "Type SOLVER.NESTEROV False", "SOLVER.OPTIMIZING_METHOD"),
    *(Rule(f"{{{flag}}} needs a file to start from",
           lambda flag, path: flag and not path and "Type TRAIN.CHECKPOINT_FILE_PATH FILE",
           "TRAIN.CHECKPOINT_FILE_PATH") for flag in ("TRAIN.FINETUNE", "TRAIN.CHECKPOINT_EPOCH_RESET")),
    Rule("{TRAIN.FINETUNE} loads the weights only, {TRAIN.CHECKPOINT_EPOCH_RESET} the optimiser too",
         lambda finetune, reset, path: path and finetune and reset and "Type one of them False",
         "TRAIN.CHECKPOINT_FILE_PATH"),
    Rule("{AUG.ZOOM} must go up",
         lambda zoom: zoom != sorted(zoom) and f"Type AUG.ZOOM {format_list(sorted(zoom))}"),
    Rule("{DATA.AUTO_AUGMENT} is not RandAugment in timm's notation (m, the magnitude, from 0 to 10)",
         lambda notation: notation and not _is_rand_augment(notation)
         and "For example DATA.AUTO_AUGMENT rand-m7-n2-mstd0.5"),
)  # fmt: skip

ADVICE = (
    Rule("{DATA.RANDOM_FLIP} with {TRAIN.DATASET} turns 10 of the 12 gestures into their mirror partners",
         lambda flip, dataset, train, pairs: train and flip and not pairs and dataset in ("muwiges", "gestures")
         and "Type DATA.RANDOM_FLIP False or DATA.FLIP_LABEL_MAP [[2,3],[4,5],[6,7],[8,9],[10,11]]",
         "TRAIN.ENABLE DATA.FLIP_LABEL_MAP"),
    Rule("DATA.FLIP_LABEL_MAP has no effect with {DATA.RANDOM_FLIP}",
         lambda flip, pairs: pairs and not flip and "Type DATA.RANDOM_FLIP True or DATA.FLIP_LABEL_MAP []",
         "DATA.FLIP_LABEL_MAP"),
    Rule("{DATA.FLIP_ONLY_MAPPED} with {DATA.FLIP_LABEL_MAP} flips no clip",
         lambda only, pairs, flip: only and flip and not pairs
         and "Give the classes that may be flipped, for example DATA.FLIP_LABEL_MAP \"[[left,right],[star,star]]\"",
         "DATA.RANDOM_FLIP"),
    Rule("the warm-up goes down: {SOLVER.WARMUP_START_LR} is above {SOLVER.BASE_LR}",
         lambda start, base, train, epochs: train and epochs > 0 and start > base
         and f"For example SOLVER.WARMUP_START_LR {base / 100:g}", "TRAIN.ENABLE SOLVER.WARMUP_EPOCHS"),
)  # fmt: skip
