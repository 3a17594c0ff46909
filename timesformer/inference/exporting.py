"""Exports a predictor as one file, ONNX or torch's pt2, from uint8 frames to scores, and checks it on clips."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from timesformer.datasets.opening import as_record
from timesformer.datasets.records import VideoRecord
from timesformer.evaluation.evaluate import join_views
from timesformer.evaluation.metrics import summarize
from timesformer.inference.predictor import Predictor
from timesformer.runtime.runner import ENTRY, Description, Runner
from timesformer.runtime.runner import load as load_onnx
from timesformer.utils.errors import CheckpointError, UserError, VideoReadError
from timesformer.video.crop_graph import crop_views

FORMATS = ("onnx", "pt2")
TOLERANCE = 1e-4  # largest difference of a score that an export may have
_NEEDS = "exporting to ONNX needs onnx, onnxscript and onnxruntime: pip install 'timesformer[export]'"


class VideoToScores(nn.Module):
    """uint8 RGB frames (B, F, H, W, 3) of any size -> float32 scores (B, K): what `ClipSpec` says, and the model."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.model, self.spec, self.views = predictor.model, predictor.spec, predictor.views
        self.multi_label = predictor.multi_label
        self.transform = self.spec.eval_transform(num_crops=self.views.num_crops)

    def forward(self, frames: Tensor) -> Tensor:
        """See the class."""
        views = crop_views(frames, self.transform)  # (B, V, 3, F, h, w)
        logits = self.model(self.spec.normalize(views.flatten(0, 1))).unflatten(0, (-1, views.shape[1]))
        return join_views(logits, self.views.ensemble, multi_label=self.multi_label).float()


@dataclass(frozen=True)
class Parity:
    """How the scores of an exported model differ from the predictor's.

    Attributes:
        largest: difference of a score.
        agreeing: clips with the same best class.
        num_clips: that were compared.
        worst: the clip of the largest difference.
    """

    largest: float
    agreeing: int
    num_clips: int
    worst: str

    def __str__(self) -> str:
        return (
            f"parity on {self.num_clips} clips: largest difference of a score {self.largest:.1e}, "
            f"top-1 the same on {self.agreeing} of {self.num_clips}"
        )


def export(
    predictor: Predictor, out: str | Path, *, to: str, videos: Sequence[Any], int8: bool = False
) -> tuple[Parity, Runner, Runner | None]:
    """Write `out`, completely or not at all, after the exported model gave the predictor's scores.

    The graph is traced by torch.export, which raises where a trace would not hold for every batch and frame size.

    Args:
        predictor: on the CPU, in fp32.
        out: new file.
        to: one of `FORMATS`.
        videos: to compare on.
        int8: write ONNX with matrix products quantised to 8 bits, after the same check without.

    Returns:
        The comparison, the exported model, and with `int8` the quantised one; the models stay in memory.

    Raises:
        CheckpointError: `out` exists or cannot be written, or scores differ by more than `TOLERANCE`.
        UserError: a package is missing, or no video can be read.
    """
    out = Path(out)
    if out.exists():
        raise CheckpointError(f"{out} is there already. Nothing was written; give another path")
    expected = _expected(predictor, videos)
    program = trace(predictor)
    about = Description(
        spec=predictor.spec,
        class_names=predictor.class_names,
        views=predictor.views,
        multi_label=predictor.multi_label,
        seed=predictor.seed,
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
            path = Path(folder) / f"model.{to}"
            runner = (_write_onnx if to == "onnx" else _write_pt2)(program, path, about)
            parity = compare(runner, expected)
            if not parity.largest <= TOLERANCE:
                raise CheckpointError(
                    f"{out} was not written: a score of the exported model differs by {parity.largest:.1e} from the "
                    f"checkpoint's ({parity.worst}), {TOLERANCE:g} is allowed; top-1 is the same on {parity.agreeing} "
                    f"of {parity.num_clips} clips"
                )
            quantized = None
            if int8:
                path = _quantize(path)
                quantized = load_onnx(path)
            os.replace(path, out)
    except OSError as error:
        raise CheckpointError(f"{out} could not be written ({error}); nothing is left there") from error
    return parity, runner, quantized


def trace(predictor: Predictor) -> torch.export.ExportedProgram:
    """The graph of `VideoToScores`, for every number of clips and every size of frames."""
    spec = predictor.spec
    height, width = (side + extra for side, extra in zip(spec.size, (6, 10), strict=True))
    frames = torch.zeros(2, spec.sampled_frames, height, width, 3, dtype=torch.uint8)
    sizes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    with torch.no_grad(), _quiet():
        program = torch.export.export(VideoToScores(predictor).eval(), (frames,), dynamic_shapes=(sizes,))
    for node in program.graph.nodes:  # lines and paths of the code, which are nobody's business
        node.meta.pop("stack_trace", None)
    return program


def _expected(predictor: Predictor, videos: Sequence[Any]) -> list[tuple[Any, np.ndarray]]:
    """Those of `videos` that can be read, with the predictor's scores (K,).

    Raises:
        UserError: none can be read.
    """
    found = [(video, predictor.score([video]).scores) for video in videos]
    pairs = [(video, scores[0]) for video, scores in found if len(scores)]
    if not pairs:
        raise UserError(f"none of the {len(videos)} clips to compare on can be read. Name others: --clips")
    return pairs


def compare(runner: Runner, expected: Sequence[tuple[Any, np.ndarray]]) -> Parity:
    """The scores of `runner` against those `expected` of videos."""
    scores = [(runner.score(video), truth) for video, truth in expected]
    largest = [float(np.nan_to_num(np.abs(found - truth), nan=np.inf).max()) for found, truth in scores]
    agreeing = sum(int(found.argmax() == truth.argmax()) for found, truth in scores)
    worst = int(np.argmax(largest))
    return Parity(largest[worst], agreeing, len(scores), as_record(expected[worst][0]).path)


def score_labelled(runner: Runner, records: Sequence[VideoRecord], *, multi_label: bool) -> tuple[str, float, int]:
    """Name and value, in percent, of the metric on those of `records` that can be read, and how many these are."""
    scores, labels = [], []
    for record in records:
        with suppress(VideoReadError):
            scores.append(runner.score(record))
            labels.append(record.label)
    metrics = summarize(np.stack(scores), labels, multi_label=multi_label) if scores else {}
    name = "mAP" if multi_label else "top1"
    return name, metrics.get(name, float("nan")), len(scores)


def made_up_clips(predictor: Predictor, number: int = 4) -> list[np.ndarray]:
    """Moving random squares, uint8 RGB (T, H, W, 3) of several sizes, where there are no real clips."""
    generator, spec = np.random.default_rng(0), predictor.spec
    clips = []
    for clip in range(number):
        height, width = spec.size[0] + 20 * clip, spec.size[1] + 60 - 10 * clip
        squares = generator.integers(0, 256, (spec.sampled_frames + 8, -(-height // 8), -(-width // 8), 3), np.uint8)
        clips.append(squares.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width])
    return clips


def _write_pt2(program: torch.export.ExportedProgram, path: Path, about: Description) -> Runner:
    torch.export.save(program, path, extra_files={ENTRY: about.to_json()})
    return load_pt2(path)


def load_pt2(path: str | Path) -> Runner:
    """The model in a pt2 file of `timesformer export`, run by torch."""
    files = {ENTRY: ""}
    graph: Callable[[Tensor], Tensor] = torch.export.load(path, extra_files=files).module()

    def run(clips: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return graph(torch.from_numpy(clips)).numpy()

    return Runner(run, Description.from_json(files[ENTRY], path))


def _write_onnx(program: torch.export.ExportedProgram, path: Path, about: Description) -> Runner:
    try:
        import onnxruntime  # noqa: F401  (that runs it)
        import onnxscript  # noqa: F401  (that torch needs)
    except ImportError as error:
        raise UserError(_NEEDS) from error
    with _quiet():
        onnx = torch.onnx.export(program, dynamo=True, verbose=False, input_names=["frames"], output_names=["scores"])
    assert onnx is not None
    for node in onnx.model.graph:
        node.metadata_props.clear()  # remarks of the exporter, larger than small models
    onnx.model.metadata_props[ENTRY] = about.to_json()
    onnx.save(path)
    return load_onnx(path)


def _quantize(path: Path) -> Path:
    """The file with the weights of matrix products in 8 bits, one scale per column (onnxruntime's dynamic form)."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    out = path.with_name("int8.onnx")
    with _quiet():
        quantize_dynamic(
            path, out, weight_type=QuantType.QInt8, per_channel=True, op_types_to_quantize=["MatMul", "Gemm"]
        )
    return out


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' remarks on their own insides."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
