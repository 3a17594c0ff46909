"""Learning curves: loss, score and learning rate over epochs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from timesformer.visualization.figures import BLUE, GREY, VERMILION, headline, save_figure, tidy

_SCORES = {"top1": "top-1 accuracy (%)", "mAP": "mean average precision (%)"}


def save_curves(history: list[dict[str, Any]], path: str | Path) -> None:
    """Draw the rows of metrics.jsonl as three panels.

    Args:
        history: rows such as ``{"kind": "train", "epoch": 1.25, "loss": 2.1, "top1": 30.5, "lr": 0.01}`` and
            ``{"kind": "val", "epoch": 2, "loss": 1.9, "top1": 41.0}``, scores in percent. Other kinds and
            missing, None or non-finite values are left out. ``mAP`` takes the place of ``top1`` when no
            validation has a top1 (several labels per video).
        path: the PNG to write.
    """
    measured = {key for row in history if row.get("kind") == "val" for key in row}
    score = "mAP" if "mAP" in measured and "top1" not in measured else "top1"
    last = max((row["epoch"] for row in history if row.get("kind") in ("train", "val")), default=0)
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    loss_axes, score_axes, rate_axes = figure.subplots(1, 3)
    for axes, key, title in (
        (loss_axes, "loss", "loss"),
        (score_axes, score, _SCORES[score]),
        (rate_axes, "lr", "learning rate"),
    ):
        _draw_train(axes, _series(history, "train", key), smooth=key != "lr")
        _draw_val(axes, _series(history, "val", key))
        axes.set_title(title, loc="left")
        axes.set_xlabel("epoch")
        axes.set_xlim(0, 1.05 * last or 1)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        tidy(axes)
        if not axes.has_data():
            axes.text(0.5, 0.5, "nothing recorded", transform=axes.transAxes, ha="center", color=GREY)
        elif axes is not rate_axes:
            axes.legend(frameon=False)
    score_axes.set_ylim(bottom=0)
    rate_axes.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
    epochs, scores = _series(history, "val", score)
    best = ""
    if len(scores):
        k = int(scores.argmax())
        at = {"xy": (epochs[k], scores[k]), "xytext": (0, -16), "textcoords": "offset points", "ha": "center"}
        score_axes.annotate(f"{scores[k]:.1f}", **at, color=VERMILION, fontweight="bold")
        best = f": best validation {_SCORES[score].removesuffix(' (%)')} {scores[k]:.1f}% at epoch {epochs[k]:g}"
    headline(figure, f"Training over {last:.3g} epochs{best}")
    save_figure(figure, path)


def _series(history: list[dict[str, Any]], kind: str, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and values of the rows of one kind that have a finite value."""
    rows = [(row["epoch"], row[key]) for row in history if row.get("kind") == kind and _is_finite(row, key)]
    epochs, values = np.array(rows, dtype=float).reshape(-1, 2).T
    return epochs, values


def _is_finite(row: dict[str, Any], key: str) -> bool:
    return row.get(key) is not None and math.isfinite(row[key])


def _draw_train(axes: Axes, series: tuple[np.ndarray, np.ndarray], *, smooth: bool) -> None:
    """A line; noisy values are drawn faint under their mean of a fortieth of them."""
    epochs, values = series
    if not len(values):
        return
    window = len(values) // 40
    marker = "o" if len(values) == 1 else None
    if smooth and window > 1:
        axes.plot(epochs, values, color=BLUE, alpha=0.2, linewidth=0.8)
        sums = np.concatenate(([0.0], values.cumsum()))
        starts = np.maximum(np.arange(1, len(values) + 1) - window, 0)
        ends = np.arange(1, len(values) + 1)
        values = (sums[ends] - sums[starts]) / (ends - starts)
    label = f"training (mean of {window} points)" if smooth and window > 1 else "training"
    axes.plot(epochs, values, color=BLUE, linewidth=1.8, marker=marker, clip_on=not marker, label=label)


def _draw_val(axes: Axes, series: tuple[np.ndarray, np.ndarray]) -> None:
    epochs, values = series
    if len(values):
        axes.plot(epochs, values, color=VERMILION, linewidth=1.8, marker="o", markersize=4, label="validation")
