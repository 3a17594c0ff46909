"""Keys and values of the original TimeSformer's YAML files that mean nothing here: accepted, with advice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Named in errors when the caller gives no registry.
MODELS = ("LightTimeSformer", "TimeSformer", "vit_base_patch16_224")

_CNN = "this project has no such convolutional network."
_TENSORBOARD = "TensorBoard gets scalars, the confusion matrix and sample clips; pictures are in OUTPUT_DIR."

# Whole sections (the longest that fits counts): one line each, naming the keys that were set.
_SECTIONS = {
    "BN": _CNN,
    "RESNET": _CNN,
    "X3D": _CNN,
    "NONLOCAL": _CNN,
    "SLOWFAST": _CNN,
    "MULTIGRID": "every epoch has the same clip length, size and batch.",
    "DETECTION": "this project classifies clips and detects nothing in them.",
    "AVA": "this project has no AVA dataset.",
    "DEMO": "this project has no webcam demo.",
    "BENCHMARK": "see the folder benchmarks/.",
    "TENSORBOARD.CONFUSION_MATRIX": _TENSORBOARD,
    "TENSORBOARD.HISTOGRAM": _TENSORBOARD,
    "TENSORBOARD.MODEL_VIS": _TENSORBOARD,
    "TENSORBOARD.WRONG_PRED_VIS": "the worst clips are drawn as contact sheets in OUTPUT_DIR.",
}

_KEYS = {
    "TRAIN.CHECKPOINT_TYPE": "only PyTorch and safetensors files are read.",
    "TEST.CHECKPOINT_TYPE": "only PyTorch and safetensors files are read.",
    "TRAIN.CHECKPOINT_INFLATE": "2-D convolutions are not inflated; image ViTs are converted by themselves.",
    "TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN": "usual prefixes (module., model.) are recognised by themselves.",
    "TEST.SAVE_RESULTS_PATH": "predictions are always in predictions.csv in OUTPUT_DIR.",
    "MODEL.ARCH": "MODEL.MODEL_NAME alone chooses the model.",
    "MODEL.SINGLE_PATHWAY_ARCH": "MODEL.MODEL_NAME alone chooses the model.",
    "MODEL.MULTI_PATHWAY_ARCH": "MODEL.MODEL_NAME alone chooses the model.",
    "MODEL.DROPOUT_RATE": "the original never applied it to TimeSformer, and its published numbers were made "
    "without it; for dropout that works set MODEL.DROP_RATE.",
    "MODEL.DROPCONNECT_RATE": "for stochastic depth set MODEL.DROP_PATH_RATE.",
    "MODEL.FC_INIT_STD": "TIMESFORMER.INIT chooses the initialisation.",
    "MODEL.HEAD_ACT": "models give logits; DATA.ENSEMBLE_METHOD says how scores are made of them.",
    "MIXUP.CUTMIX_MINMAX": "the size of the CutMix rectangle follows MIXUP.CUTMIX_ALPHA.",
    "MIXUP.MODE": "clips are mixed pair by pair.",
    "DATA.CROP_SIZE": "set DATA.TRAIN_CROP_SIZE and DATA.TEST_CROP_SIZE.",
    "DATA.INPUT_CHANNEL_NUM": "clips always have three colour channels.",
    "DATA.REVERSE_INPUT_CHANNEL": "the original ignored it for TimeSformer; see DATA.CHANNEL_ORDER.",
    "DATA.TEMPORAL_EXTENT": "set DATA.NUM_FRAMES and DATA.SAMPLING_RATE.",
    "DATA.DEIT_TRANSFORMS": "set DATA.AUTO_AUGMENT, DATA.COLOR_JITTER, DATA.RE_PROB: each works alone.",
    "SOLVER.GAMMA": "set SOLVER.LR_POLICY, SOLVER.STEPS and SOLVER.LRS.",
    "SOLVER.STEP_SIZE": "set SOLVER.LR_POLICY, SOLVER.STEPS and SOLVER.LRS.",
    "SOLVER.WARMUP_FACTOR": "set SOLVER.WARMUP_EPOCHS and SOLVER.WARMUP_START_LR.",
    "SOLVER.BASE_LR_SCALE_NUM_SHARDS": "rates are taken as written: multiply SOLVER.BASE_LR, "
    "SOLVER.WARMUP_START_LR and SOLVER.COSINE_END_LR by NUM_SHARDS yourself.",
    "LOG_MODEL_INFO": "parameters and multiply-accumulates are always printed.",
    "DATA_LOADER.ENABLE_MULTI_THREAD_DECODE": "decoding runs in DATA_LOADER.NUM_WORKERS processes.",
    "TENSORBOARD.PREDICTIONS_PATH": "predictions are always in predictions.csv in OUTPUT_DIR.",
    "TENSORBOARD.CLASS_NAMES_PATH": "set DATA.CLASS_NAMES_PATH.",
    "TENSORBOARD.CATEGORIES_PATH": "classes are not grouped.",
}

# The values with which a key asks for nothing that is missing here; any other is told apart in the advice.
_ASKS_NOTHING: dict[str, tuple[Any, ...]] = {
    "TRAIN.CHECKPOINT_TYPE": ("pytorch",),
    "TEST.CHECKPOINT_TYPE": ("pytorch",),
    "TRAIN.CHECKPOINT_INFLATE": (False,),
    "TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN": ([], ()),
    "MODEL.DROPCONNECT_RATE": (0,),
    "MIXUP.CUTMIX_MINMAX": (None,),
    "MIXUP.MODE": ("batch",),
    "DATA.INPUT_CHANNEL_NUM": ([3], [3, 3]),
    "DATA.DEIT_TRANSFORMS": (False,),
    "SOLVER.BASE_LR_SCALE_NUM_SHARDS": (False,),
    "BN.USE_PRECISE_STATS": (False,),
    "MULTIGRID.SHORT_CYCLE": (False,),
    "MULTIGRID.LONG_CYCLE": (False,),
    "DETECTION.ENABLE": (False,),
    "DEMO.ENABLE": (False,),
}

_VALUES = {
    ("MODEL.LOSS_FUNC", "soft_cross_entropy"): (
        "cross_entropy",
        "MODEL.LOSS_FUNC soft_cross_entropy is cross_entropy here, which takes mixed labels too.",
    ),
    ("MODEL.LOSS_FUNC", "bce"): (
        "bce_logit",
        "MODEL.LOSS_FUNC bce is bce_logit here: models give logits, and the loss applies the sigmoid itself.",
    ),
}


def is_legacy(name: str) -> bool:
    """Whether `name` is a key of the original that has no meaning here."""
    return name in _KEYS or _section(name) != ""


def _section(name: str) -> str:
    """The meaningless section that `name` lies in, or ""."""
    return max((section for section in _SECTIONS if name.startswith(f"{section}.")), key=len, default="")


def rename_value(name: str, value: Any) -> tuple[Any, str | None]:
    """The value by its name here, and one line of advice when that is another name."""
    return _VALUES.get((name, value), (value, None)) if isinstance(value, str) else (value, None)


def advise(settings: Mapping[str, tuple[Any, str]]) -> list[str]:
    """One line for each legacy key (for each meaningless section) of `settings`: key -> (value, place)."""
    lines = []
    sections: dict[str, list[str]] = {}
    for name, (value, place) in settings.items():
        if value not in _ASKS_NOTHING.get(name, (value,)):
            why = _KEYS.get(name) or _SECTIONS[_section(name)]
            lines.append(f"{place}: {name} {value!r} is NOT DONE here: {why}")
        elif name in _KEYS:
            lines.append(f"{place}: {name} has no effect: {_KEYS[name]}")
        else:
            sections.setdefault(_section(name), []).append(name)
    for section, names in sections.items():
        have = "has" if len(names) == 1 else "have"
        lines.append(f"{settings[names[0]][1]}: {', '.join(names)} {have} no effect: {_SECTIONS[section]}")
    return lines


def foreign_model(
    arch: tuple[Any, str] | None, model_name: str, where: Mapping[str, str], models: Sequence[str]
) -> list[str]:
    """Problems of a YAML that wants a network of another project (MODEL.ARCH slowfast, ...)."""
    known = f"the models here are {', '.join(models)}."
    if arch is not None and str(arch[0]).lower() != "vit":
        return [
            f"{arch[1]}: MODEL.ARCH {arch[0]}: there is no such network in this project; {known} "
            "Choose one, for example with: MODEL.ARCH vit MODEL.MODEL_NAME TimeSformer"
        ]
    if model_name.lower() == "slowfast":
        return [f"{where['MODEL.MODEL_NAME']}: MODEL.MODEL_NAME {model_name}: no such model; {known}"]
    return []
