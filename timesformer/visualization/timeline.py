"""The scores of the strongest classes over the time of a video."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from timesformer.visualization.figures import COLORS, headline, plain, save_figure, tidy


def save_timeline(
    times_sec: np.ndarray, scores: np.ndarray, class_names: Sequence[str], path: str | Path, title: str
) -> None:
    """Draw a line for each of the classes that reach the highest scores.

    Args:
        times_sec: (n,) the middles of the windows.
        scores: (n, K).
        class_names: K names.
        path: the PNG to write.
        title: headline of the picture.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots()
    for label, color in zip(np.argsort(-scores.max(axis=0), kind="stable"), COLORS, strict=False):
        axes.plot(times_sec, scores[:, label], color=color, marker=".", label=plain(class_names[label]))
    axes.set(xlabel="time in s", ylabel="score")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    tidy(axes)
    headline(figure, title)
    save_figure(figure, path)
