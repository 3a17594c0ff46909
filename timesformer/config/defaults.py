"""Every configuration key, declared once: name, default, kind, meaning, allowed values, role.

`KEYS` is the single source: `get_cfg` builds the fvcore tree from it, `load.py` checks values against it, and
`timesformer config` prints it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fvcore.common.config import CfgNode

# Kinds of values, in words for messages.
KINDS = {
    "bool": "True or False",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "path": "a path, in which ~ and $NAME are expanded",
    "pattern": "a regular expression with a group, such as 'subject(\\d+)', or empty text",
    "bool|auto": "auto, True or False",
    "int|auto": "auto or a whole number",
    "ints": "a list of whole numbers",
    "floats": "a list of numbers",
    "strs": "a list of texts",
    "size": "a whole number or [height, width]",
    "size|auto": "auto, a whole number or [height, width]",
    "pairs": "a list of pairs of class names or labels (numbers)",
}


@dataclass(frozen=True)
class Key:
    """One configuration key."""

    name: str  # dotted and in upper case, as in YAML and on the command line
    default: Any
    kind: str  # one of KINDS
    meaning: str  # one line, with units
    choices: tuple[Any, ...] = ()  # the allowed values; empty: any value of the kind
    low: float | None = None  # smallest number (also in a list); every key of numbers has both limits
    high: float | None = None  # largest number
    length: int | None = None  # of a list; None: any
    used_by: str = ""  # "training" or "test": a run without this part may leave the key unread; "": every run reads it
    identity: bool = True  # part of a run's identity: a run resumes only from a checkpoint with the same value

    def allowed(self, choices: Sequence[object] = ()) -> str:
        """The allowed values, such as ``a number, from 0 to 1``; `choices` replace the key's own."""
        if choices or self.choices:
            return "one of " + ", ".join(map(str, choices or self.choices))
        text = KINDS[self.kind].replace("list of", f"list of {self.length}" if self.length else "list of")
        if self.high is not None:
            low, high = (f"{end:,}" if isinstance(end, int) else f"{end:g}" for end in (self.low or 0, self.high))
            text += f", from {low} to {high}"
        return text + (f", such as {str(self.default).replace(' ', '')}" if self.length else "")


# Roles that all keys of a section have.
SECTION_ROLES: dict[str, dict[str, Any]] = {
    "DIST": {"identity": False},
    "TRAIN": {"used_by": "training"},
    "TEST": {"used_by": "test", "identity": False},
    "DATA_LOADER": {"used_by": "training", "identity": False},
    "AUG": {"used_by": "training"},
    "MIXUP": {"used_by": "training"},
    "SOLVER": {"used_by": "training"},
    "EMA": {"used_by": "training"},
    "TENSORBOARD": {"identity": False},
}

_DECLARED = (
    # ---------------------------------------------------------------- the run
    Key("OUTPUT_DIR", "./output", "path", "folder for checkpoints, logs, predictions and pictures", identity=False),
    Key("RNG_SEED", 0, "int", "seed of every random choice of the run", low=0, high=2**63 - 1),
    Key("NUM_GPUS", "auto", "int|auto", "accelerators per node; 0: the CPU, auto: every visible accelerator", low=0, high=1024, identity=False),
    Key("NUM_SHARDS", 1, "int", "number of nodes", low=1, high=100_000, identity=False),
    Key("SHARD_ID", 0, "int", "index of this node, from 0", low=0, high=100_000, identity=False),
    Key("DIST_BACKEND", "auto", "str", "torch.distributed backend; auto: nccl on GPUs, gloo on CPUs", ("auto", "nccl", "gloo"), identity=False),
    Key("DIST.STRATEGY", "ddp", "str", "ddp: every process holds the whole model; fsdp: parameters, gradients and optimiser state are sharded over the processes (FSDP2)", ("ddp", "fsdp")),
    Key("DIST.PROCESSES_PER_NODE", "auto", "int|auto", "processes started on a node; auto: one per GPU, on a CPU one", low=1, high=1024),
    Key("DIST.RENDEZVOUS_SECONDS", 300, "int", "longest wait at the start until all processes have joined", low=1, high=86_400),
    Key("GLOBAL_BATCH_SIZE", 64, "int", "clips per optimiser step over all nodes; reached by gradient accumulation", low=1, high=10**6, used_by="training"),
    Key("PRECISION", "auto", "str", "number format of the model's arithmetic; auto: bf16 where the CPU or GPU supports it, fp16 on GPUs of compute capability 7, else fp32. tf32: fp32 whose products an NVIDIA GPU computes with 10 bits of mantissa", ("auto", "fp32", "tf32", "bf16", "fp16"), identity=False),
    Key("LOG_PERIOD", 10, "int", "optimiser steps between two log lines", low=1, high=10**9, used_by="training", identity=False),
    # ---------------------------------------------------------------- training
    Key("TRAIN.ENABLE", True, "bool", "train the model", identity=False),
    Key("TRAIN.DATASET", "kinetics", "str", "dataset of the training and validation clips"),
    Key("TRAIN.BATCH_SIZE", 64, "int|auto", "clips per node and forward pass, over all GPUs of the node; halved when memory runs out, the step stays the same. auto: what fits of the step's share, tried at the start; on a CPU at most 16", low=1, high=65_536, identity=False),
    Key("TRAIN.BALANCE", "none", "str", "classes of different size: sampling draws each equally often, weights weighs each equally in the loss; auto: sampling where the largest class has more than 3 times the videos of the smallest", ("none", "sampling", "weights", "auto")),
    Key("TRAIN.REPEATED_AUG", 1, "int", "times that each clip is in a step, and in an epoch, each time augmented differently (Hoffer et al. 2020)", low=1, high=1000),
    Key("TRAIN.EVAL_PERIOD", 1, "int", "epochs between two validations", low=1, high=10**6, identity=False),
    Key("TRAIN.BEST_METRIC", "auto", "str", "metric of the validation that decides which checkpoint is the best; auto: top1, with several labels per video mAP", ("auto", "top1", "macro_f1", "mean_class", "mAP", "loss")),
    Key("TRAIN.EARLY_STOP_EPOCHS", 0, "int", "stop when the best validation is so many epochs old; 0: never. A cosine schedule then ends before its rate is low: steps_with_relative_lrs or a smaller SOLVER.MAX_EPOCH may give more. TEST.CHECKPOINT best tests the best one", low=0, high=10**6, identity=False),
    Key("TRAIN.CHECKPOINT_PERIOD", 1, "int", "epochs between two checkpoints", low=1, high=10**6, identity=False),
    Key("TRAIN.CHECKPOINT_PERIOD_STEPS", 0, "int", "also save a checkpoint after this number of optimiser steps; 0: never", low=0, high=10**9, identity=False),
    Key("TRAIN.CHECKPOINT_PERIOD_MINUTES", 30.0, "float", "also save a checkpoint when the last one is this number of minutes old; 0: never", low=0, high=10**6, identity=False),
    Key("TRAIN.CHECKPOINT_KEEP", 3, "int", "number of newest checkpoints to keep, besides the best one; 0: all", low=0, high=10**6, identity=False),
    Key("TRAIN.CHECKPOINT_ASYNC", True, "bool", "write checkpoints in the background (keeps a copy of the state in memory)", identity=False),
    Key("TRAIN.AUTO_RESUME", False, "bool", "resume from the newest checkpoint in OUTPUT_DIR, if it belongs to the same run", identity=False),
    Key("TRAIN.CHECKPOINT_FILE_PATH", "", "path", "checkpoint to start from: its weights only (FINETUNE) or its whole state", identity=False),
    Key("TRAIN.FINETUNE", False, "bool", "load only the weights of CHECKPOINT_FILE_PATH; a head of another size is reinitialised", identity=False),
    Key("TRAIN.CHECKPOINT_EPOCH_RESET", False, "bool", "load weights and optimiser of CHECKPOINT_FILE_PATH but start at epoch 0", identity=False),
    Key("TRAIN.ALLOW_PARTIAL_LOAD", False, "bool", "fine-tune even if the weights cover less than 90% of the backbone or come from another architecture", identity=False),
    Key("TRAIN.FREEZE", [], "strs", "parameters that are not trained, as glob patterns of full names: \"['patch_embed.*', 'blocks.0.*']\""),
    Key("TRAIN.TRAINABLE_BLOCKS", "auto", "int|auto", "auto: train everything; 0: the head only (linear probe); N: head, final norm and last N blocks", low=0, high=1000),
    # ---------------------------------------------------------------- test
    Key("TEST.ENABLE", True, "bool", "test after training (or only test, when TRAIN.ENABLE is False)"),
    Key("TEST.DATASET", "kinetics", "str", "dataset of the test clips"),
    Key("TEST.SPLIT", "test", "str", "list to test on", ("train", "val", "test")),
    Key("TEST.BATCH_SIZE", 8, "int", "views per node and forward pass; a CPU computes them one by one, so that scores do not depend on it", low=1, high=65_536),
    Key("TEST.CHECKPOINT_FILE_PATH", "", "path", "checkpoint to test; empty: the one of OUTPUT_DIR that TEST.CHECKPOINT selects"),
    Key("TEST.CHECKPOINT", "last", "str", "checkpoint of OUTPUT_DIR to test", ("last", "best")),
    Key("TEST.NUM_ENSEMBLE_VIEWS", 1, "int|auto", "clips per video, spread over time; auto: the number that covers the video", low=1, high=1000),
    Key("TEST.BASELINES", True, "bool", "hold the test's score against cheap baselines (`timesformer baseline`), computed when the run has a training list and few videos"),
    Key("TEST.AUDITS", "auto", "bool|auto", "also predict the clips mirrored, reversed, frozen and shuffled (one view), for what the score needs; auto: for up to 2,000 videos of 3 or more views, or 300 of fewer"),
    Key("TEST.REPORT", True, "bool", "write report.html, the run in one file (`timesformer report`)"),
    Key("TEST.NUM_SPATIAL_CROPS", 3, "int", "crops per clip: 1 (centre) or 3 (left/centre/right or top/centre/bottom)", (1, 3)),
    # ---------------------------------------------------------------- model
    Key("MODEL.MODEL_NAME", "TimeSformer", "str", "name in the model registry"),
    Key("MODEL.WEIGHTS", "", "path", "weights to start from: a file, timm:NAME, hf:ID, a Hugging Face folder, or gestures (in the package, for the model of Own/gestures_cpu); a head of other classes is reinitialised", identity=False),
    Key("MODEL.NUM_CLASSES", 400, "int|auto", "number of classes; auto: of the class names of the lists, without names the largest label plus one", low=1, high=10**6),
    Key("MODEL.LOSS_FUNC", "cross_entropy", "str", "loss; bce_logit for several labels per video", ("cross_entropy", "bce_logit"), used_by="training"),
    Key("MODEL.DROP_RATE", 0.0, "float", "dropout after embeddings, projections and MLP layers", low=0, high=0.99),
    Key("MODEL.ATTN_DROP_RATE", 0.0, "float", "dropout on attention weights", low=0, high=0.99),
    Key("MODEL.DROP_PATH_RATE", 0.1, "float", "stochastic depth of the last block; grows linearly from 0", low=0, high=0.99),
    Key("MODEL.RECOMPUTE", "none", "str", "activations that the backward pass recomputes to save memory; cheap: norms and GELUs; blocks: whole blocks (least memory, about a third more time)", ("none", "cheap", "blocks"), identity=False),
    Key("MODEL.KERNELS", "auto", "str", "attention and, on a CPU, linear maps; auto: the fastest form of each, measured once and kept in checkpoints; torch: torch's own form", ("auto", "torch"), identity=False),
    Key("MODEL.COMPILE", False, "bool", "torch.compile for training and test: up to minutes for each new batch size; meant for GPUs, a CPU gains little or nothing; dropout draws other random numbers", identity=False),
    Key("TIMESFORMER.ATTENTION_TYPE", "divided_space_time", "str", "space-time attention (paper, Figure 2), or with a cls token per frame that sees the whole clip or (causal) no later frame; StreamTimeSformer: frame_cls_causal unless it is frame_cls", ("divided_space_time", "joint_space_time", "space_only", "sparse_local_global", "axial", "frame_cls", "frame_cls_causal")),
    Key("TIMESFORMER.PATCH_SIZE", 16, "int", "side of a square patch in pixels", low=1, high=4096),
    Key("TIMESFORMER.EMBED_DIM", "auto", "int|auto", "token width; auto: TimeSformer 768, LightTimeSformer 384", low=1, high=16_384),
    Key("TIMESFORMER.DEPTH", "auto", "int|auto", "number of blocks; auto: 12", low=1, high=1000),
    Key("TIMESFORMER.NUM_HEADS", "auto", "int|auto", "attention heads; auto: TimeSformer 12, LightTimeSformer 6", low=1, high=16_384),
    Key("TIMESFORMER.MLP_RATIO", 4.0, "float", "hidden width of the MLP over token width", low=0.1, high=64),
    Key("TIMESFORMER.QKV_BIAS", True, "bool", "bias in the query, key and value projections"),
    Key("TIMESFORMER.INIT", "vit", "str", "vit: std 0.02, for fine-tuning; scratch: sine-cosine positions and 1/sqrt(fan_in), for training from scratch", ("vit", "scratch")),
    # ---------------------------------------------------------------- data
    Key("DATA.PATH_TO_DATA_DIR", "", "path", "folder with the lists (train.csv, val.csv, test.csv; manifest: videos.csv, or that file) or, for `folder`, one folder per class", identity=False),
    Key("DATA.PATH_PREFIX", "", "path", "prefix of every relative path in the lists", identity=False),
    Key("DATA.PATH_LABEL_SEPARATOR", " ", "str", "separator of path and label in a csv list"),
    Key("DATA.CLASS_NAMES_PATH", "", "path", "text file with one class name a line, in label order, or a json {name: label}", identity=False),
    Key("DATA.NUM_FRAMES", 8, "int", "frames per clip", low=1, high=4096),
    Key("DATA.SAMPLING_RATE", 8, "int|auto", "clip span = SAMPLING_RATE * NUM_FRAMES / TARGET_FPS seconds; auto spans the whole video", low=1, high=10**6),
    Key("DATA.TARGET_FPS", 30.0, "float", "frame rate that SAMPLING_RATE counts in", low=1, high=10_000),
    Key("DATA.SHUFFLE_FRAMES", False, "bool", "control experiment: shuffle the frames of every clip, in training and test"),
    Key("DATA.MEAN", [0.45, 0.45, 0.45], "floats", "mean subtracted per channel, of pixel values in 0..1 (of 0..255: divide by 255)", low=0, high=1, length=3),
    Key("DATA.STD", [0.225, 0.225, 0.225], "floats", "standard deviation to divide by, per channel, of pixel values in 0..1 (of 0..255: divide by 255)", low=1e-6, high=1, length=3),
    Key("DATA.CHANNEL_ORDER", "rgb", "str", "order of the colour channels the model sees", ("rgb", "bgr")),
    Key("DATA.INPUT", "rgb", "str", "what the model sees: pixels; motion images, sums of differences of successive frames, in which the background is gone; or both (4 channels)", ("rgb", "difference", "rgb+difference")),
    Key("DATA.DIFFERENCE_FRAMES", 4, "int", "differences of successive frames that a motion image sums up; a clip then takes NUM_FRAMES * DIFFERENCE_FRAMES + 1 frames of the video", low=1, high=1000),
    Key("DATA.CROP_MODE", "crop", "str", "crop: scale to the short side, then crop; full: the whole frame, resized to the crop size", ("crop", "full")),
    Key("DATA.TRAIN_CROP_SIZE", 224, "size", "training input in pixels: side, or [height, width]", low=1, high=4096, used_by="training"),
    Key("DATA.TEST_CROP_SIZE", 224, "size", "validation and test input in pixels: side, or [height, width]", low=1, high=4096),
    Key("DATA.TRAIN_JITTER_SCALES", [256, 320], "ints", "range of the short side before the random crop, in pixels", low=1, high=8192, length=2, used_by="training"),
    Key("DATA.INV_UNIFORM_SAMPLE", False, "bool", "draw the short side uniformly in 1/size (as the SSv2 recipes do)", used_by="training"),
    Key("DATA.RANDOM_FLIP", False, "bool", "flip training clips left-right at random (wrong for classes that are mirror images)", used_by="training"),
    Key("DATA.FLIP_LABEL_MAP", [], "pairs", "pairs of classes, by name or label, that a left-right flip swaps, such as [[left, right], [2, 3]]; [a, a] is a class that is its own mirror image", low=0, high=10**6, used_by="training"),
    Key("DATA.FLIP_ONLY_MAPPED", False, "bool", "flip only clips of classes in FLIP_LABEL_MAP", used_by="training"),
    Key("DATA.COLOR_JITTER", 0.0, "float", "strength of brightness, contrast and saturation jitter", low=0, high=10, used_by="training"),
    Key("DATA.AUTO_AUGMENT", "", "str", "RandAugment in timm's notation, such as rand-m7-n2; empty: none", used_by="training"),
    Key("DATA.RE_PROB", 0.0, "float", "probability of random erasing (the same rectangle in every frame)", low=0, high=1, used_by="training"),
    Key("DATA.MULTI_LABEL", False, "bool", "several labels per video, separated by commas or semicolons in the list"),
    Key("DATA.ENSEMBLE_METHOD", "mean", "str", "how the views of a video are combined: mean of softmax; sum or max of logits", ("mean", "sum", "max"), used_by="test", identity=False),
    Key("DATA.DECODING_BACKEND", "pyav", "str", "video decoder; auto: torchcodec if it can decode here, else pyav", ("auto", "pyav", "torchcodec"), identity=False),
    Key("DATA.MAX_FAILED_FRACTION", 0.1, "float", "training stops when a larger fraction of the clips fails to decode", low=0, high=1, used_by="training", identity=False),
    # ---------------------------------------------------------------- augmentation that keeps the subject in view
    Key("AUG.SHIFT", 0.0, "float", "largest shift in each direction, a fraction of the side; what lies beyond a frame repeats its edge", low=0, high=1),
    Key("AUG.ZOOM", [1.0, 1.0], "floats", "range of the zoom; below 1 the frame gets smaller", low=0.1, high=10, length=2),
    Key("AUG.ROTATION", 0.0, "float", "largest rotation in degrees", low=0, high=180),
    Key("AUG.PERSPECTIVE", 0.0, "float", "largest shift of each corner on its own, a fraction of the side", low=0, high=0.4),
    Key("AUG.GAMMA", 0.0, "float", "largest change of the exponent of brightness, in its logarithm", low=0, high=3),
    Key("AUG.GRAY_PROB", 0.0, "float", "probability that a clip loses its colours", low=0, high=1),
    Key("AUG.BLUR", 0.0, "float", "largest Gaussian blur in pixels, for half of the clips", low=0, high=20),
    Key("AUG.NOISE", 0.0, "float", "largest Gaussian noise, of pixel values in 0..1, for half of the clips", low=0, high=1),
    Key("AUG.JPEG_QUALITY", 100, "int", "lowest quality of JPEG compression, for half of the clips; 100: none", low=1, high=100),
    Key("AUG.TRIM", 0.0, "float", "largest part cut off at the start, and at the end, of clips that span the whole video", low=0, high=0.45),
    Key("AUG.SPEED", 0.0, "float", "largest slow change of speed within clips of the whole video (at most 1), or of the span of other clips in its logarithm", low=0, high=1),
    # ---------------------------------------------------------------- datasets with settings of their own
    Key("FOLDER.SEED", 0, "int", "seed of the split into training, validation and test", low=0, high=2**63 - 1),
    Key("FOLDER.VAL_FRACTION", 0.1, "float", "fraction of the videos (or subjects) for validation", low=0, high=0.9),
    Key("FOLDER.TEST_FRACTION", 0.2, "float", "fraction of the videos (or subjects) for test", low=0, high=0.9),
    Key("FOLDER.SUBJECT_PATTERN", "", "pattern", "regular expression whose first group is the subject in a path; each subject is then in one split only"),
    Key("SSV2.INPUT", "frames", "str", "read frame folders with frame lists, or the video files", ("frames", "videos")),
    Key("GESTURES.SEED", 0, "int", "seed of the generated gestures", low=0, high=2**63 - 1),
    Key("GESTURES.NUM_SUBJECTS", [60, 10, 20], "ints", "people in train, val and test; each makes every gesture once", low=1, high=100_000, length=3),
    Key("GESTURES.FRAME_SIZE", "auto", "size|auto", "rendered frame in pixels: even side, or [height, width]; auto: 84 x 96, 120 x 160 with HARD, 96 x 120 for gestures_wide", low=16, high=4096),
    Key("GESTURES.NUM_CLIPS", [20000, 990, 990], "ints", "clips in train, val and test of gestures_wide, which are drawn when they are read", low=1, high=10**7, length=3),
    Key("GESTURES.HARD", False, "bool", "harder rendering: clutter, little contrast, small hand"),
    Key("GESTURES.IDLE", 0, "int", "clips of each person that show no gesture, or at most 60% of one, as a 13th class: idle", low=0, high=1000),
    Key("GESTURES.CODEC", "mpeg4", "str", "mpeg4 writes .avi files, h264 writes .mp4 files", ("mpeg4", "h264")),
    # ---------------------------------------------------------------- loading and mixing
    Key("DATA_LOADER.NUM_WORKERS", "auto", "int|auto", "loader processes per training process; auto: its share of the CPU cores but one, at most 32 (when training on the CPU a quarter of it, at most 8, but one where steps are computed by fewer threads)", low=0, high=1024),
    Key("DATA_LOADER.PIN_MEMORY", True, "bool", "page-locked host memory, for faster copies to a GPU"),
    Key("DATA_LOADER.CACHE", "auto", "str", "cache of decoded frames, for small datasets: memory (/dev/shm, gone after the run) or disk (stays for the next run); auto: memory where a quarter of it is enough", ("auto", "none", "memory", "disk")),
    Key("DATA_LOADER.CACHE_DIR", "", "path", "folder of CACHE disk; empty: timesformer/frames below $XDG_CACHE_HOME or ~/.cache"),
    Key("DATA_LOADER.CACHE_GB", 16.0, "float", "size limit in gigabytes of the cached frames of one list (train, val or test)", low=0, high=10**6),
    Key("DATA_LOADER.TIMEOUT", 300.0, "float", "seconds after which a video that hangs a loader process counts as unreadable; 0: never", low=0, high=10**6),
    Key("DATA_LOADER.RECYCLE_AFTER", 0, "int", "number of clips after which a loader process decodes in a new process; 0: never", low=0, high=10**9),
    Key("MIXUP.ENABLED", False, "bool", "mixup and CutMix of neighbouring clips of a batch"),
    Key("MIXUP.ALPHA", 0.8, "float", "Beta parameter of mixup; 0: no mixup", low=0, high=1000),
    Key("MIXUP.CUTMIX_ALPHA", 1.0, "float", "Beta parameter of CutMix; 0: no CutMix", low=0, high=1000),
    Key("MIXUP.PROB", 1.0, "float", "probability that a pair is mixed", low=0, high=1),
    Key("MIXUP.SWITCH_PROB", 0.5, "float", "probability of CutMix instead of mixup when both are on", low=0, high=1),
    # ---------------------------------------------------------------- solver
    Key("SOLVER.OPTIMIZING_METHOD", "sgd", "str", "optimiser", ("sgd", "adam", "adamw")),
    Key("SOLVER.BASE_LR", 0.1, "float", "learning rate at the start of the schedule", low=0, high=10**6),
    Key("SOLVER.BASE_LR_BATCH_SIZE", "auto", "int|auto", "batch size that BASE_LR and the other rates are given for; they are scaled to GLOBAL_BATCH_SIZE. auto: not scaled", low=1, high=10**6),
    Key("SOLVER.LR_POLICY", "cosine", "str", "learning-rate schedule", ("cosine", "steps_with_relative_lrs")),
    Key("SOLVER.COSINE_END_LR", 0.0, "float", "last learning rate of the cosine schedule", low=0, high=10**6),
    Key("SOLVER.STEPS", [], "ints", "epochs at which steps_with_relative_lrs changes the rate; the first is 0", low=0, high=10**6),
    Key("SOLVER.LRS", [], "floats", "rates of those steps, relative to BASE_LR", low=0, high=10**6),
    Key("SOLVER.MAX_EPOCH", 300, "int", "epochs to train", low=1, high=10**6, identity=False),
    Key("SOLVER.WARMUP_EPOCHS", 0.0, "float", "epochs of linear warm-up", low=0, high=10**6),
    Key("SOLVER.WARMUP_START_LR", 0.01, "float", "learning rate at the start of warm-up", low=0, high=10**6),
    Key("SOLVER.MOMENTUM", 0.9, "float", "momentum of SGD", low=0, high=1),
    Key("SOLVER.DAMPENING", 0.0, "float", "dampening of SGD's momentum", low=0, high=1),
    Key("SOLVER.NESTEROV", True, "bool", "Nesterov momentum of SGD"),
    Key("SOLVER.BETAS", [0.9, 0.999], "floats", "decay rates of the running averages of Adam and AdamW", low=0, high=0.99999, length=2),
    Key("SOLVER.WEIGHT_DECAY", 1e-4, "float", "weight decay of matrices (not of biases, norms and embeddings)", low=0, high=1000),
    Key("SOLVER.LAYER_DECAY", 1.0, "float", "learning rate of a block divided by that of the block above it; 1: the same for all", low=0.01, high=1),
    Key("SOLVER.CLIP_GRAD_NORM", 0.0, "float", "largest gradient norm; 0: no clipping", low=0, high=10**9),
    Key("SOLVER.LABEL_SMOOTHING", 0.0, "float", "fraction of the target that is spread over all classes", low=0, high=0.99),
    # ---------------------------------------------------------------- average of the weights
    Key("EMA.ENABLED", False, "bool", "keep an exponential moving average of the weights; it is the model that is validated, saved and tested"),
    Key("EMA.DECAY", 0.9999, "float", "fraction of the average that each optimiser step keeps", low=0, high=1),
    Key("EMA.WARMUP", True, "bool", "raise the decay to EMA.DECAY over the first steps, for short trainings"),
    # ---------------------------------------------------------------- TensorBoard
    Key("TENSORBOARD.ENABLE", True, "bool", "write TensorBoard events"),
    Key("TENSORBOARD.LOG_DIR", "", "path", "folder of the events; empty: OUTPUT_DIR/tensorboard"),
)  # fmt: skip

KEYS = tuple(replace(key, **SECTION_ROLES.get(key.name.partition(".")[0], {})) for key in _DECLARED)
KEY_BY_NAME: dict[str, Key] = {key.name: key for key in KEYS}

# Values of keys that the user leaves unset, by dataset (reported at load time).
# SSv2 in the TimeSformer paper: one frame from each of NUM_FRAMES segments of the whole video; the released
# SSv2 weights were trained on frames in BGR order; SSv2's test labels are not public, so its validation list is tested.
DATASET_DEFAULTS: dict[str, dict[str, Any]] = {
    "ssv2": {"DATA.SAMPLING_RATE": "auto", "DATA.CHANNEL_ORDER": "bgr", "TEST.SPLIT": "val"},
}


def is_identity(name: str) -> bool:
    """Whether a run resumes only from a checkpoint with the same value; true also for keys of other versions."""
    return name not in KEY_BY_NAME or KEY_BY_NAME[name].identity


def get_cfg() -> CfgNode:
    """A new tree with every key at its default."""
    cfg = CfgNode()
    for key in KEYS:
        set_value(cfg, key.name, key.default)
    return cfg


def set_value(cfg: CfgNode, name: str, value: Any) -> None:
    """Set the dotted key `name`; missing sections are created, lists are copied."""
    *sections, leaf = name.split(".")
    for section in sections:
        if section not in cfg:
            cfg[section] = CfgNode()
        cfg = cfg[section]
    cfg[leaf] = [*value] if isinstance(value, list) else value


def get_value(cfg: CfgNode, name: str) -> Any:
    """The value of the dotted key `name`."""
    for part in name.split("."):
        cfg = cfg[part]
    return cfg
