"""Load weights into a run's model, print the report, and tell what in the run does not go with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from timesformer.engine.checkpoint import settings_of
from timesformer.engine.setup import Run
from timesformer.utils.logging import get_logger
from timesformer.weights.load import LoadReport, load_weights

log = get_logger(__name__)

# What the pixels went through: weights do badly when it changes. The rest is only a warning in a test.
_PIXELS = ("MEAN", "STD", "CHANNEL_ORDER", "CROP_MODE")
_FRAMES = ("NUM_FRAMES", "SAMPLING_RATE", "TARGET_FPS")


def load_and_report(
    run: Run, model: nn.Module, source: str | Path, class_names: Sequence[str], *, testing: bool = False
) -> LoadReport:
    """Load weights for training (a head of other classes starts anew) or, with `testing`, all of them.

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
        names = _PIXELS + _FRAMES if testing else _PIXELS
        run.warn_once(input_differences(report.preprocessing, source, settings_of(cfg), names))
    return report


def input_differences(
    trained: Mapping[str, Any], source: str | Path, settings: Mapping[str, Any], names: Sequence[str]
) -> list[str]:
    """One line for each setting of the model's input that is not the one the weights were trained with."""
    lines = []
    for name in names:
        here = settings[f"DATA.{name}"]
        if trained.get(name, here) != here:
            same = f"DATA.{name} {trained[name]}".replace(", ", ",")  # as one types it
            lines.append(f"{source} was trained with {same}, this run feeds {here}. To feed the same, type {same}")
    return lines
