"""Which classes are confused: the confusion matrix, and the accuracy of every class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from timesformer.utils.console import count
from timesformer.visualization.figures import BLUE, GREY, VERMILION, headline, name_classes, save_figure, tidy

_CELL_NUMBERS_UP_TO = 20  # classes; beyond, numbers in the cells are too small to read
_LABELS_UP_TO = 40  # classes; beyond, only some are labelled


def save_confusion(matrix: np.ndarray, class_names: list[str], path: str | Path) -> None:
    """Write `confusion_figure` as a PNG."""
    save_figure(confusion_figure(matrix, class_names), path)


def confusion_figure(matrix: np.ndarray, class_names: list[str]) -> Figure:
    """The confusion matrix in % of each true class, with the most confused pairs beside it.

    Args:
        matrix: (K, K) counts, rows true and columns predicted.
        class_names: K names; [] numbers the classes.
    """
    matrix = np.asarray(matrix)
    num_classes = len(matrix)
    counts = matrix.sum(axis=1)
    percent = 100 * matrix / np.maximum(counts, 1)[:, None]
    names = name_classes(class_names, num_classes)
    side = float(np.clip(0.5 * num_classes, 4, 9))
    figure = Figure(figsize=(side + 6.0, side + 1), layout="constrained")
    axes, margin = figure.subplots(1, 2, width_ratios=(side + 1.5, 4.0))
    gamma = 1 if num_classes <= _CELL_NUMBERS_UP_TO else 0.5  # without numbers, rare confusions must show
    norm = PowerNorm(gamma, 0, 100)
    image = axes.imshow(percent, cmap="Blues", norm=norm, interpolation="nearest", aspect="auto")
    figure.colorbar(image, ax=axes, shrink=0.8, label="% of the true class")
    ticks = [*range(0, num_classes, -(-num_classes // _LABELS_UP_TO))]  # all, or about 40 evenly spaced
    axes.set_xticks(ticks, [names[k] for k in ticks], rotation=90 if num_classes > 4 else 0)
    axes.set_yticks(ticks, [f"{names[k]} ({counts[k]})" for k in ticks])
    axes.tick_params(labelsize=9 if num_classes <= _CELL_NUMBERS_UP_TO else 7)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true (clips)")
    if num_classes <= _CELL_NUMBERS_UP_TO:
        for row, column in np.argwhere(matrix > 0):
            color = "white" if percent[row, column] > 55 else "black"
            axes.text(column, row, f"{percent[row, column]:.0f}", ha="center", va="center", color=color, fontsize=9)
    margin.axis("off")
    margin.text(0, 1, _most_confused(matrix, counts, names), va="top", fontsize=9, linespacing=1.5)
    total = int(counts.sum())
    score = f": top-1 {100 * np.trace(matrix) / total:.1f}%" if total else ""
    headline(figure, f"Confusion matrix{score} (n = {count(total, 'clip')}, {count(num_classes, 'class')})")
    return figure


def save_class_bars(accuracy: np.ndarray, counts: np.ndarray, class_names: list[str], path: str | Path) -> None:
    """Draw the accuracy of every class as bars, best first; with many classes, name the lowest beside them.

    Args:
        accuracy: (K,) fractions 0..1; NaN for a class without clips.
        counts: (K,) clips per class.
        class_names: K names; [] numbers the classes.
        path: the PNG to write.
    """
    accuracy, counts = np.asarray(accuracy, dtype=float), np.asarray(counts)
    num_classes = len(accuracy)
    names = name_classes(class_names, num_classes, width=32)
    labels = [f"{name} (n={num_clips})" for name, num_clips in zip(names, counts, strict=True)]
    order = np.argsort(np.nan_to_num(accuracy, nan=-1.0), kind="stable")  # the last bar is drawn on top
    seen = accuracy[~np.isnan(accuracy)]
    mean = float(seen.mean()) if len(seen) else float("nan")
    many = num_classes > _LABELS_UP_TO
    height = 9.0 if many else 1.6 + 0.28 * num_classes
    figure = Figure(figsize=(14 if many else 9, height), layout="constrained")
    if many:
        left, right = figure.subplots(1, 2)
        _draw_bars(left, accuracy[order], [""] * num_classes, mean)
        left.set_yticks([])
        left.set_title(f"all {num_classes} classes, best on top", loc="left")
        lowest = order[~np.isnan(accuracy[order])][:_LABELS_UP_TO]
        _draw_bars(right, accuracy[lowest], [labels[k] for k in lowest], mean)
        right.set_title(f"the {len(lowest)} lowest", loc="left")
    else:
        _draw_bars(figure.subplots(), accuracy[order], [labels[k] for k in order], mean)
    unseen = f", {num_classes - len(seen)} without clips" if len(seen) < num_classes else ""
    facts = f"n = {count(counts.sum(), 'clip')}, {count(num_classes, 'class')}{unseen}"
    headline(figure, f"Accuracy by class: {f'mean {100 * mean:.1f}%' if len(seen) else 'none'} ({facts})")
    save_figure(figure, path)


def _draw_bars(axes: Axes, accuracy: np.ndarray, labels: list[str], mean: float) -> None:
    """Horizontal bars in %, from bottom to top, and the mean of all classes as a line."""
    rows, unseen, thin = np.arange(len(accuracy)), np.isnan(accuracy), len(accuracy) > _LABELS_UP_TO
    axes.barh(rows[unseen], 100, height=0.75, color="none", edgecolor=GREY, hatch="///", linewidth=0, alpha=0.4)
    bars = axes.barh(rows, np.nan_to_num(100 * accuracy), height=1.0 if thin else 0.75, color=BLUE)
    if not thin:
        texts = ["no clips" if np.isnan(value) else f"{100 * value:.0f}" for value in accuracy]
        axes.bar_label(bars, texts, padding=2, fontsize=8)
    if not np.isnan(mean):
        axes.axvline(100 * mean, color=VERMILION, linestyle="--", linewidth=1.5, label=f"mean {100 * mean:.1f}")
        axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)
    axes.set_yticks(rows, labels, fontsize=8)
    axes.set_ylim(-0.6, len(accuracy) - 0.4)
    axes.set_xlim(0, 106)
    axes.set_xlabel("top-1 accuracy (%)")
    tidy(axes, grid="x")


def most_confused(matrix: np.ndarray, most: int) -> list[tuple[int, int]]:
    """The largest cells (true, predicted) off the diagonal of a confusion matrix, the largest first."""
    errors = matrix - np.diag(np.diag(matrix))
    cells = [divmod(cell, len(matrix)) for cell in np.argsort(-errors, axis=None, kind="stable")[:most].tolist()]
    return [cell for cell in cells if errors[cell]]


def _most_confused(matrix: np.ndarray, counts: np.ndarray, names: list[str]) -> str:
    """The off-diagonal cells with most clips, as lines of text."""
    lines = ["Most confused (true → predicted)\n"]
    for true, predicted in most_confused(matrix, 10):
        wrong, count = matrix[true, predicted], counts[true]
        lines.append(f"{100 * wrong / count:.0f}% ({wrong} of {count})  {names[true]}")
        lines.append(f"        → {names[predicted]}")
    return "\n".join(lines if len(lines) > 1 else [*lines, "no errors"])
