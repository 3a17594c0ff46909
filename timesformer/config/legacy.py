"""Keys and values of the original TimeSformer's YAML files without a meaning here: accepted, with advice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MODELS = ("LightTimeSformer", "TimeSformer", "vit_base_patch16_224")  # for messages when the caller gives no names

_CNN = "this project has no such convolutional network."
_MULTIGRID = "every epoch has the same clip length, size and batch."
_DETECTION = "this project classifies clips and detects nothing in them."
_DEMO = "this project has no webcam demo."
_ARCH = "MODEL.MODEL_NAME alone selects the model."
_FILES = "only PyTorch and safetensors files are read."
_SCHEDULE = "set SOLVER.LR_POLICY, SOLVER.STEPS and SOLVER.LRS."
_RATES = "multiply SOLVER.BASE_LR, SOLVER.WARMUP_START_LR and SOLVER.COSINE_END_LR by NUM_SHARDS yourself."
_PREDICTIONS = "predictions are always written to predictions.csv in OUTPUT_DIR."
_DROPOUT = (
    "the original never applied it to TimeSformer, and its published results were obtained without it; "
    "for dropout that works set MODEL.DROP_RATE."
)
_TENSORBOARD = "TensorBoard gets scalars, the confusion matrix and sample clips; pictures are in OUTPUT_DIR."

# Key or section (with a dot at its end) -> advice, then the values that request nothing that is missing here; without
# such values, any value does.
_LEGACY: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("BN.", "RESNET.", "X3D.", "NONLOCAL.", "SLOWFAST."), (_CNN,)),
    "BN.USE_PRECISE_STATS": (_CNN, False),
    "MULTIGRID.": (_MULTIGRID,),
    "MULTIGRID.SHORT_CYCLE": (_MULTIGRID, False),
    "MULTIGRID.LONG_CYCLE": (_MULTIGRID, False),
    "DETECTION.": (_DETECTION,),
    "DETECTION.ENABLE": (_DETECTION, False),
    "AVA.": ("this project has no AVA dataset.",),
    "DEMO.": (_DEMO,),
    "DEMO.ENABLE": (_DEMO, False),
    "BENCHMARK.": ("see the folder benchmarks/.",),
    "TENSORBOARD.CONFUSION_MATRIX.": (_TENSORBOARD,),
    "TENSORBOARD.HISTOGRAM.": (_TENSORBOARD,),
    "TENSORBOARD.MODEL_VIS.": (_TENSORBOARD,),
    "TENSORBOARD.WRONG_PRED_VIS.": ("the worst clips are drawn as contact sheets in OUTPUT_DIR.",),
    "TENSORBOARD.PREDICTIONS_PATH": (_PREDICTIONS,),
    "TENSORBOARD.CLASS_NAMES_PATH": ("set DATA.CLASS_NAMES_PATH.",),
    "TENSORBOARD.CATEGORIES_PATH": ("classes are not grouped.",),
    "TRAIN.CHECKPOINT_TYPE": (_FILES, "pytorch"),
    "TRAIN.CHECKPOINT_INFLATE": ("2-D convolutions are not inflated; image ViTs are converted automatically.", False),
    "TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN": ("usual prefixes (module., model.) are recognised.", [], ()),
    "TEST.CHECKPOINT_TYPE": (_FILES, "pytorch"),
    "TEST.SAVE_RESULTS_PATH": (_PREDICTIONS,),
    **dict.fromkeys(("MODEL.ARCH", "MODEL.SINGLE_PATHWAY_ARCH", "MODEL.MULTI_PATHWAY_ARCH"), (_ARCH,)),
    "MODEL.DROPOUT_RATE": (_DROPOUT,),
    "MODEL.DROPCONNECT_RATE": ("for stochastic depth set MODEL.DROP_PATH_RATE.", 0),
    "MODEL.FC_INIT_STD": ("TIMESFORMER.INIT selects the initialisation.",),
    "MODEL.HEAD_ACT": ("models give logits; DATA.ENSEMBLE_METHOD says how scores are made of them.",),
    "MIXUP.CUTMIX_MINMAX": ("the size of the CutMix rectangle follows MIXUP.CUTMIX_ALPHA.", None),
    "MIXUP.MODE": ("clips are mixed pair by pair.", "batch"),
    "DATA.CROP_SIZE": ("set DATA.TRAIN_CROP_SIZE and DATA.TEST_CROP_SIZE.",),
    "DATA.INPUT_CHANNEL_NUM": ("clips always have three colour channels.", [3], [3, 3]),
    "DATA.REVERSE_INPUT_CHANNEL": ("the original ignored it for TimeSformer; see DATA.CHANNEL_ORDER.",),
    "DATA.TEMPORAL_EXTENT": ("set DATA.NUM_FRAMES and DATA.SAMPLING_RATE.",),
    "DATA.DEIT_TRANSFORMS": ("set DATA.AUTO_AUGMENT, DATA.COLOR_JITTER, DATA.RE_PROB: each works alone.", False),
    "SOLVER.GAMMA": (_SCHEDULE,),
    "SOLVER.STEP_SIZE": (_SCHEDULE,),
    "SOLVER.WARMUP_FACTOR": ("set SOLVER.WARMUP_EPOCHS and SOLVER.WARMUP_START_LR.",),
    "SOLVER.BASE_LR_SCALE_NUM_SHARDS": (_RATES, False),
    "LOG_MODEL_INFO": ("parameters and multiply-accumulates are always printed.",),
    "DATA_LOADER.ENABLE_MULTI_THREAD_DECODE": ("decoding runs in DATA_LOADER.NUM_WORKERS processes.",),
}

# Keys with another name here.
_RENAMED_KEYS = {"TIMESFORMER.PRETRAINED_MODEL": "MODEL.WEIGHTS", "MODEL.CPU_KERNELS": "MODEL.KERNELS"}
# Values with another name here.
_RENAMED = {
    ("MODEL.LOSS_FUNC", "soft_cross_entropy"): (
        "cross_entropy",
        "MODEL.LOSS_FUNC soft_cross_entropy is cross_entropy here, which accepts mixed labels too.",
    ),
    ("MODEL.LOSS_FUNC", "bce"): (
        "bce_logit",
        "MODEL.LOSS_FUNC bce is bce_logit here: models give logits, and the loss applies the sigmoid itself.",
    ),
}


def _entry(name: str) -> tuple[Any, ...] | None:
    """The line of the table for a key: its own, or that of its section."""
    sections = [f"{name[:end]}." for end, letter in enumerate(name) if letter == "."]
    return next((_LEGACY[entry] for entry in (name, *reversed(sections)) if entry in _LEGACY), None)


def is_legacy(name: str) -> bool:
    """Whether `name` is a key of the original that has no meaning here."""
    return _entry(name) is not None


def rename_key(name: str) -> str:
    """The key by its name here."""
    return _RENAMED_KEYS.get(name, name)


def rename_value(name: str, value: Any) -> tuple[Any, str | None]:
    """The value by its name here, and one line of advice if that is another name."""
    return _RENAMED.get((name, value), (value, None)) if isinstance(value, str) else (value, None)


def advise(settings: Mapping[str, tuple[Any, str]]) -> Iterator[str]:
    """Advice for legacy `settings`, key -> (value, location); one line for keys of a section with the same advice."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name, (value, location) in settings.items():
        advice, *harmless = _entry(name) or ("",)
        if harmless and value not in harmless:
            yield f"{location}: {name} {value!r} is NOT DONE here: {advice}"
        else:
            groups.setdefault((name.partition(".")[0], advice), []).append(name)
    for (_, advice), names in groups.items():
        have = "has" if len(names) == 1 else "have"
        yield f"{settings[names[0]][1]}: {', '.join(names)} {have} no effect: {advice}"


def foreign_model(
    arch: tuple[Any, str] | None, model_name: str, locations: Mapping[str, str], models: Sequence[str]
) -> Iterator[str]:
    """Problems of a YAML file for a network of another project (MODEL.ARCH slowfast, ...)."""
    known = f"the models here are {', '.join(models)}."
    if arch is not None and str(arch[0]).lower() != "vit":
        yield (
            f"{arch[1]}: MODEL.ARCH {arch[0]}: there is no such network in this project; {known} "
            "Select one, for example with: MODEL.ARCH vit MODEL.MODEL_NAME TimeSformer"
        )
    elif model_name.lower() == "slowfast":
        yield f"{locations['MODEL.MODEL_NAME']}: MODEL.MODEL_NAME {model_name}: no such model; {known}"
