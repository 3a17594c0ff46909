"""`load`: a model with everything that a prediction needs, from one source."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from timesformer.config import config_from_settings
from timesformer.datasets.loader import EvalLoader
from timesformer.datasets.video_dataset import Failure, VideoDataset
from timesformer.engine.checkpoint import tested_checkpoint
from timesformer.evaluation.calibration import Calibration
from timesformer.evaluation.evaluate import Predictions, evaluate, scoring
from timesformer.models.build import build_model
from timesformer.models.contract import VideoModel
from timesformer.models.kernels import use_kernels
from timesformer.utils.compute import ON_GPUS, PRECISIONS, choose_device, choose_precision, set_arithmetic
from timesformer.utils.errors import CheckpointError, VideoReadError
from timesformer.utils.logging import get_logger
from timesformer.utils.registry import MODELS
from timesformer.video.clip_spec import ClipSpec, Views
from timesformer.weights import Weights, load_weights, read_weights, transformer_arguments
from timesformer.weights.layouts import HEAD_WIDTH

log = get_logger(__name__)

Scored = list[tuple[str, float]]  # (class name, score), the best first

TIMEOUT_SEC = 300.0  # after which a video that hangs a loader process counts as unreadable


@dataclass(frozen=True)
class Outcome:
    """What became of one of the videos, `index`: scores (K,) of all classes, or why it could not be read."""

    index: int
    scores: np.ndarray | None = None
    failure: Failure | None = None


@dataclass(eq=False)
class Predictor:
    """A trained model that predicts the classes of videos.

    A video is a file, a folder of pictures, or frames in memory: uint8 RGB (T, H, W, 3), NumPy or torch.

    Attributes:
        model: on `device`; clips (B, C, T, H, W) float to logits (B, K).
        spec: what happens to a video before the model sees it.
        class_names: K names, in the order of the logits; "0", "1", ... where the source has none.
        views: the clips and crops of a video whose scores are averaged.
        multi_label: several labels per video: scores are sigmoids and do not add up to 1.
        device, dtype: of the computation; dtype None is plain fp32.
        seed: of control experiments that shuffle frames.
        settings: the configuration that the source stores, by dotted key; empty where it stores none.
        calibration: of the validation, or of `timesformer calibrate`; predictions do not use it.
    """

    model: VideoModel
    spec: ClipSpec
    class_names: list[str]
    views: Views = field(default_factory=Views)
    multi_label: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype | None = None
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None

    def predict(self, video: Any, topk: int = 5) -> Scored:
        """The `topk` best classes of one video with their scores.

        Raises:
            VideoReadError: it cannot be read.
        """
        predictions = self.score([video])
        if predictions.missing:
            raise VideoReadError(predictions.missing[0].path, predictions.missing[0].cause)
        return self.best(predictions.scores[0], topk)

    def predict_many(
        self,
        videos: Sequence[Any],
        topk: int = 5,
        *,
        batch_size: int = 8,
        num_workers: int = 0,
        progress: bool | None = None,
    ) -> list[Scored | None]:
        """`predict` for each of `videos`; None, and a warning, for one that cannot be read.

        Args:
            videos: files, folders of pictures, or frames in memory.
            topk: classes of each.
            batch_size: clips that are read together.
            num_workers: processes that read videos.
            progress: show a bar; None: on a terminal.
        """
        predictions = self.score(videos, batch_size=batch_size, num_workers=num_workers, progress=progress)
        for failure in predictions.missing:
            log.warning("cannot be read: %s: %s", failure.path, failure.cause)
        best: list[Scored | None] = [None] * len(videos)
        for index, scores in zip(predictions.indices, predictions.scores, strict=True):
            best[index] = self.best(scores, topk)
        return best

    def score(
        self, videos: Sequence[Any], *, batch_size: int = 8, num_workers: int = 0, progress: bool | None = None
    ) -> Predictions:
        """Scores (n, K) of all classes for the videos that could be read, and the list of the others."""
        loader = self._loader(videos, batch_size, num_workers)
        return evaluate(self.model, loader, **self._how(batch_size), title="predicting", progress=progress)

    def stream(
        self, videos: Sequence[Any], *, batch_size: int = 8, num_workers: int = 0
    ) -> Iterator[tuple[list[Outcome], float]]:
        """The outcomes of `videos` in their order, some at a time, and the seconds that were spent waiting for clips.

        Only the videos of a few batches are in memory. In loader processes a video that hangs or crashes its decoder
        counts as unreadable.
        """
        loader = self._loader(videos, batch_size, num_workers)
        since = time.perf_counter()
        with scoring(self.model, **self._how(batch_size)) as score:
            for batch in loader:
                waited = time.perf_counter() - since
                found = [Outcome(index, scores) for index, scores in zip(batch.indices, score(batch), strict=True)]
                found += [Outcome(failure.index, failure=failure) for failure in batch.failures]
                yield sorted(found, key=lambda outcome: outcome.index), waited
                since = time.perf_counter()

    def _loader(self, videos: Sequence[Any], batch_size: int, num_workers: int) -> EvalLoader:
        clips = self.views.num_crops * (1 if self.views.num_clips == "auto" else self.views.num_clips)
        return EvalLoader(
            VideoDataset(videos, spec=self.spec, views=self.views, seed=self.seed, timeout_sec=TIMEOUT_SEC),
            videos_per_batch=max(1, batch_size // clips),
            num_workers=num_workers,
            pin_memory=self.device.type != "cpu",
        )

    def _how(self, batch_size: int) -> dict[str, Any]:
        """What `evaluate` and `scoring` need to know."""
        return {
            "spec": self.spec,
            "ensemble": self.views.ensemble,
            "multi_label": self.multi_label,
            "device": self.device,
            "dtype": self.dtype,
            "views_per_forward": batch_size,
        }

    def best(self, scores: np.ndarray, topk: int) -> Scored:
        """The `topk` best of scores (K,)."""
        order = np.argsort(-scores, kind="stable")[:topk]
        return [(self.class_names[label], float(scores[label])) for label in order]


def load(
    source: str | Path,
    *,
    device: str | torch.device = "auto",
    precision: str | None = None,
    views: Views | None = None,
    num_heads: int | None = None,
    ema: bool = True,
) -> Predictor:
    """A predictor from a checkpoint, the folder of a run, a Hugging Face folder or "hf:OWNER/NAME".

    Sampling, crop, normalisation, views and class names are those that the source stores. On a CPU it computes as its
    training did, to the last bit; of several predictors in one process, the one that was loaded last decides for all.

    Args:
        source: where the weights are; of a run's folder the checkpoint that its test takes.
        device: "auto" takes an accelerator where there is one.
        precision: fp32, bf16, fp16 or auto; None: as the run computed.
        views: other clips and crops than those of the run's test.
        num_heads: attention heads, for sources that do not store them (no tensor's shape depends on them).
        ema: take the moving average of the weights where the source has one.

    Raises:
        CheckpointError: nothing there, not readable, or not enough to build the model.
    """
    weights = read_weights(checkpoint_of(source), ema=ema)
    settings = weights.settings
    model = _build(weights, num_heads)
    load_weights(model, weights, complete=True)
    device = choose_device(str(device))
    stored_precision = settings.get("PRECISION", "auto")
    if device.type == "cpu" and stored_precision in ON_GPUS:
        stored_precision = "fp32"
    precision, _ = choose_precision(precision or stored_precision, device)
    if precision == "tf32":
        set_arithmetic(precision, device)
    torch_only = "torch" in (settings.get("MODEL.KERNELS"), settings.get("MODEL.CPU_KERNELS"))  # its old name
    use_kernels(None if torch_only else weights.kernels)
    stored = {"num_frames": model.input_shape[1], "size": model.input_shape[2:]}
    spec = replace(ClipSpec.from_dict(weights.clip), **stored)
    if unknown := sorted({"mean", "std", "sampling_rate"} - weights.clip.keys()):
        assumed = ", ".join(f"{name} {getattr(spec, name)}" for name in unknown)
        log.warning("%s does not store everything; assumed as of the released K400 models: %s", source, assumed)
    num_classes = _num_classes(model)
    return Predictor(
        model=model.to(device).eval(),
        spec=spec,
        class_names=weights.class_names or [str(label) for label in range(num_classes)],
        views=views or _views(settings, spec),
        multi_label=settings.get("DATA.MULTI_LABEL") is True,
        device=device,
        dtype=PRECISIONS[precision],
        seed=settings.get("RNG_SEED", 0),
        settings=settings,
        calibration=Calibration.from_dict(weights.calibration),
    )


def checkpoint_of(source: str | Path) -> str | Path:
    """The checkpoint that a run's test takes where `source` is the run's folder; else `source`.

    Raises:
        CheckpointError: a run's folder without a checkpoint.
    """
    folder = Path(source)
    if not (folder / "checkpoints").is_dir():
        return source
    path = tested_checkpoint(folder) or tested_checkpoint(folder, "best")
    if path is None:
        raise CheckpointError(f"{folder / 'checkpoints'} holds no checkpoint. Train the run first, or name a file")
    return path


def _build(weights: Weights, num_heads: int | None) -> VideoModel:
    """The model that the weights are of, on torch's meta device."""
    name = weights.settings.get("MODEL.MODEL_NAME")
    arguments = transformer_arguments(weights)
    if not arguments and name not in MODELS.names():
        raise CheckpointError(
            f"{weights.source} ({weights.kind}) does not store which model it is of, and its tensors are not those of "
            f"a TimeSformer. Models: {', '.join(MODELS.names())}. "
            "Build one with timesformer.create_model(NAME, weights=...)"
        )
    with torch.device("meta"):
        if not arguments:
            return build_model(config_from_settings(weights.settings))
        if num_heads or "num_heads" not in arguments:
            arguments["num_heads"] = num_heads or _usual_heads(weights, arguments["embed_dim"])
        for argument, what in (("img_size", "rows and columns of its positions"), ("num_classes", "classifier")):
            if argument not in arguments:
                raise CheckpointError(f"{weights.source} has no {what}: no model can be built of it alone")
        arguments = {"attention_type": "space_only", "num_frames": weights.clip.get("num_frames", 8)} | arguments
        make: Any = MODELS.get(name if name in MODELS.names() else "TimeSformer")
        return make(**arguments)  # type: ignore[no-any-return]


def _usual_heads(weights: Weights, width: int) -> int:
    """One attention head for 64 channels, as in every released model, with a warning."""
    if width % HEAD_WIDTH:
        raise CheckpointError(
            f"{weights.source} does not store its number of attention heads, and width {width} is not one of the "
            "released models. Give it: load(..., num_heads=N)"
        )
    log.warning(
        "%s does not store its number of attention heads; assumed: %d, as in the released models. If that is wrong: "
        "load(..., num_heads=N)",
        *(weights.source, width // HEAD_WIDTH),
    )
    return width // HEAD_WIDTH


def _views(settings: Mapping[str, Any], spec: ClipSpec) -> Views:
    """Those of the run's test; without a stored configuration one clip and, of cropped frames, three crops."""
    if "TEST.NUM_SPATIAL_CROPS" in settings:
        return Views.from_config(config_from_settings(settings))
    return Views(num_crops=3 if spec.crop_mode == "crop" else 1)


def _num_classes(model: VideoModel) -> int:
    layers = [module for module in model.head.modules() if hasattr(module, "weight")]
    return len(layers[-1].weight)
