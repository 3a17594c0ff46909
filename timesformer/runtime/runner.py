"""Predicts with an exported ONNX file; needs onnxruntime, NumPy and PyAV, and no torch.

Example:
    >>> from timesformer import runtime
    >>> runtime.load("model.onnx").predict("clip.mp4")
    [("wave", 0.97), ("circle", 0.02), ...]
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from timesformer.datasets.opening import as_record, open_record, read_clips, sample_record
from timesformer.utils.errors import CheckpointError, UserError
from timesformer.utils.random import numpy_generator
from timesformer.video.clip_spec import ClipSpec, Views

FORMAT = 1  # of the description in an exported file
ENTRY = "timesformer"  # its name among the file's metadata
_OVER_CLIPS: dict[str, Callable[..., np.ndarray]] = {"mean": np.mean, "sum": np.sum, "max": np.max}


@dataclass(frozen=True, kw_only=True)
class Description:
    """What an exported file says of itself, as JSON in its metadata.

    Attributes:
        spec: of the clips; resize, crop and normalisation are in the file's graph.
        class_names: in the order of the scores.
        views: of a video; the crops are in the graph.
        multi_label: several labels per video.
        seed: of control experiments that shuffle frames.
    """

    spec: ClipSpec
    class_names: list[str]
    views: Views
    multi_label: bool = False
    seed: int = 0

    def to_json(self) -> str:
        """One line."""
        return json.dumps({"format": FORMAT, **asdict(self), "spec": self.spec.to_dict()})

    @classmethod
    def from_json(cls, text: str | None, source: object) -> Description:
        """What `to_json` gave.

        Raises:
            CheckpointError: there is none, or a newer version wrote it.
        """
        content = json.loads(text) if text else {}
        if not content:
            raise CheckpointError(f"{source} was not written by `timesformer export` and does not say what a clip is")
        if content.pop("format") > FORMAT:
            raise CheckpointError(f"{source} was exported by a newer version of timesformer: update timesformer")
        views, spec = Views(**content.pop("views")), ClipSpec.from_dict(content.pop("spec"))
        return cls(spec=spec, views=views, **content)


@dataclass(frozen=True)
class Runner:
    """An exported model that predicts the classes of videos.

    Attributes:
        run: uint8 RGB clips (B, F, H, W, 3) to scores (B, K), the crops of a clip combined.
        description: of the file.
    """

    run: Callable[[np.ndarray], np.ndarray]
    description: Description

    @property
    def class_names(self) -> list[str]:
        """In the order of the scores."""
        return self.description.class_names

    def predict(self, video: Any, topk: int = 5) -> list[tuple[str, float]]:
        """The `topk` best classes of a video with their scores, as `Predictor.predict` gives them.

        Args:
            video: a file, a folder of pictures (which OpenCV reads), or frames, uint8 RGB (T, H, W, 3).
            topk: number of classes.

        Raises:
            VideoReadError: it cannot be read.
        """
        scores = self.score(video)
        best = np.argsort(-scores, kind="stable")[:topk]
        return [(self.class_names[label], float(scores[label])) for label in best]

    def score(self, video: Any) -> np.ndarray:
        """Scores (K,), float64, of all classes; the clips of a video are computed one by one."""
        about, record = self.description, as_record(video)
        sampler = about.spec.frame_sampler(num_clips=about.views.num_clips)
        with open_record(record, backend="pyav") as reader:
            indices = sample_record(record, reader.info, sampler, numpy_generator(about.seed, 0, 0))
            clips = read_clips(reader, indices)
        scores = np.concatenate([self.run(clip[None]) for clip in clips]).astype(np.float64)
        return _OVER_CLIPS[about.views.ensemble](scores, axis=0)


def load(path: str | Path, *, threads: int = 0) -> Runner:
    """The model in an ONNX file of `timesformer export`.

    Args:
        path: of the file.
        threads: of the computation; 0: as many as onnxruntime takes.

    Raises:
        CheckpointError: it is not such a file.
        UserError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("onnxruntime, which runs exported models, is not installed: pip install onnxruntime") from error
    if not Path(path).is_file():
        raise CheckpointError(f"{path}: no such file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own types, which share no other base
        raise CheckpointError(f"{path} is not an ONNX file that onnxruntime can load: {error}") from error
    description = Description.from_json(session.get_modelmeta().custom_metadata_map.get(ENTRY), path)
    name = session.get_inputs()[0].name
    return Runner(lambda clips: session.run(None, {name: clips})[0], description)
