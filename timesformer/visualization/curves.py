"""Learning curves: loss, score and learning rate over epochs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from timesformer.utils.console import count
from timesformer.visualization.figures import BLUE, GREY, VERMILION, headline, save_figure, tidy

_SCORES = {"top1": "top-1 accuracy (%)", "mAP": "mean average precision (%)"}


def save_curves(history: list[dict[str, Any]], path: str | Path) -> None:
    """Write `curves_figure` as a PNG."""
    save_figure(curves_figure(history), path)


def curves_figure(history: list[dict[str, Any]]) -> Figure:
    """The rows of metrics.jsonl as three panels.

    Args:
        history: rows such as ``{"kind": "train", "epoch": 1.25, "loss": 2.1, "top1": 30.5, "lr": 0.01}`` and
            ``{"kind": "val", "epoch": 2, "loss": 1.9, "top1": 41.0}``, scores in percent. Other kinds and
            missing, None or non-finite values are left out. ``mAP`` is drawn if no validation has a ``top1``
            (several labels per video).
    """
    measured = {key for row in history if row.get("kind") == "val" for key in row}
    score = "mAP" if "mAP" in measured and "top1" not in measured else "top1"
    last = max((row["epoch"] for row in history if row.get("kind") in ("train", "val")), default=0)
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    panels = figure.subplots(1, 3)
    for axes, key, title in zip(panels, ("loss", score, "lr"), ("loss", _SCORES[score], "learning rate"), strict=True):
        _draw_train(axes, *_series(history, "train", key), smooth=key != "lr")
        epochs, values = _series(history, "val", key)
        if len(values):
            axes.plot(epochs, values, color=VERMILION, linewidth=1.8, marker="o", markersize=4, label="validation")
        axes.set_title(title, loc="left")
        axes.set_xlabel("epoch")
        axes.set_xlim(0, 1.05 * last or 1)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        tidy(axes)
        if not axes.has_data():
            axes.text(0.5, 0.5, "nothing recorded", transform=axes.transAxes, ha="center", color=GREY)
        elif key != "lr":
            axes.legend(frameon=False)
    _, score_axes, rate_axes = panels
    highest = score_axes.dataLim.y1 if score_axes.has_data() else 0
    score_axes.set_ylim(0, 1.1 * highest or 1)  # with room for the best score above its point
    rate_axes.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
    epochs, scores = _series(history, "val", score)
    best = ""
    if len(scores):
        k = int(scores.argmax())
        above = {"xytext": (0, 5), "textcoords": "offset points", "ha": "center", "va": "bottom"}
        score_axes.annotate(f"{scores[k]:.1f}", (epochs[k], scores[k]), **above, color=VERMILION, fontweight="bold")
        best = f": best validation {_SCORES[score].removesuffix(' (%)')} {scores[k]:.1f}% at epoch {epochs[k]:g}"
    headline(figure, f"Training over {count(f'{last:.3g}', 'epoch')}{best}")
    return figure


def _series(history: list[dict[str, Any]], kind: str, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and values of the rows of one kind that have a finite value."""
    rows = ((row["epoch"], row.get(key)) for row in history if row.get("kind") == kind)
    finite = [(epoch, value) for epoch, value in rows if value is not None and math.isfinite(value)]
    epochs, values = np.array(finite, dtype=float).reshape(-1, 2).T
    return epochs, values


def _draw_train(axes: Axes, epochs: np.ndarray, values: np.ndarray, *, smooth: bool) -> None:
    """A line; noisy values are drawn faint under their mean of a fortieth of them."""
    if not len(values):
        return
    window = len(values) // 40 if smooth else 1
    label, marker = "training", "o" if len(values) == 1 else None
    if window > 1:
        axes.plot(epochs, values, color=BLUE, alpha=0.2, linewidth=0.8)
        sums, ends = np.concatenate(([0.0], values.cumsum())), np.arange(1, len(values) + 1)
        starts = np.maximum(ends - window, 0)
        values, label = (sums[ends] - sums[starts]) / (ends - starts), f"training (mean of {window} points)"
    axes.plot(epochs, values, color=BLUE, linewidth=1.8, marker=marker, clip_on=not marker, label=label)
