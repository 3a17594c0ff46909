"""Load weights into a run's model, log the report, and warn of clips other than those of the weights' training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from timesformer.engine.setup import Run
from timesformer.utils.logging import get_logger
from timesformer.video.clip_spec import ClipSpec
from timesformer.weights.load import LoadReport, load_weights

log = get_logger(__name__)


def load_and_report(
    run: Run, model: nn.Module, source: str | Path, class_names: Sequence[str], *, testing: bool = False
) -> LoadReport:
    """Load weights for training (a head of other classes is reinitialised) or, with `testing`, all of them.

    Args:
        class_names: of the data, empty when unknown.

    Raises:
        CheckpointError: they cannot be read or do not fit; the model is as it was.
    """
    cfg = run.cfg
    report = load_weights(
        model,
        source,
        complete=testing,
        allow_partial=not testing and cfg.TRAIN.ALLOW_PARTIAL_LOAD,
        ema=cfg.EMA.ENABLED or not testing,
        class_names=class_names,
    )
    log.info("%s", report)
    if testing and cfg.EMA.ENABLED and not report.is_ema:
        run.warn_once([f"EMA.ENABLED is True, but {source} holds no average of the weights: testing those it has"])
    if report.has_ema:
        log.info("%s holds a moving average of the weights too: EMA.ENABLED True takes it", source)
    if report.kind != "image ViT":  # whose statistics nobody fine-tuning on video keeps
        run.warn_once(clip_warnings(ClipSpec.from_config(cfg), source, report.clip, frames=testing))
    return report


def clip_warnings(spec: ClipSpec, source: str | Path, trained: Mapping[str, Any], *, frames: bool) -> list[str]:
    """One line for each setting of `spec` that is not that of `trained`, the known fields of the weights' clips."""
    lines = []
    for key, there, here in spec.differences(trained, frames=frames):
        there, here = (list(value) if isinstance(value, tuple) else value for value in (there, here))
        same = f"{key} {there}".replace(", ", ",")  # as users type it
        lines.append(f"{source} was trained with {same}, this run uses {here}. To use the same, type {same}")
    return lines
