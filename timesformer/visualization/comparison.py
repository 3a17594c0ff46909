"""Bars that compare experiments: mean, spread and single runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from timesformer.visualization.figures import BLUE, GREY, SKY, headline, plain, save_figure, tidy


def save_comparison(rows: list[dict[str, Any]], path: str | Path, title: str) -> None:
    """Draw one horizontal bar per experiment, the first on top.

    Args:
        rows: dicts with ``name`` and ``mean``, and where there are any: ``std``, or ``low`` and ``high``, for the
            whisker; ``n``, the number of runs; ``values``, the runs' own scores; ``note``, a few words. Scores
            are in percent.
        path: the PNG to write.
        title: headline of the picture.
    """
    figure = Figure(figsize=(11, 1.5 + 0.5 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for position, row in enumerate(rows):
        mean, std, values = row["mean"], row.get("std") or 0.0, row.get("values") or []
        low, high = mean - std, mean + std
        if row.get("low") is not None and row.get("high") is not None:
            low, high = row["low"], row["high"]
        axes.barh(position, mean, height=0.62, color=SKY)
        if low < high:
            axes.hlines(position, low, high, color="black", linewidth=1.4)
            axes.scatter([low, high], [position, position], marker="|", s=60, color="black")
        offsets = np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else np.zeros(len(values))
        axes.scatter(values, position + offsets, s=18, color=BLUE, edgecolor="white", linewidth=0.5, zorder=3)
        spread = f" ± {std:.1f}" if std > 0 else f" [{low:.1f}, {high:.1f}]" if low < high else ""
        number = f" (n={row['n']})" if row.get("n") else ""
        note = f"   {plain(str(row['note']), 60)}" if row.get("note") else ""
        end = max([mean, high, *values]) + 1
        axes.text(end, position, f"{mean:.1f}{spread}{number}{note}", va="center", fontsize=9)
    axes.set_yticks(range(len(rows)), [plain(row["name"], 48) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    whisker = "interval" if any(row.get("low") is not None for row in rows) else "standard deviation"
    dots = ", dot: one run" if any(row.get("values") for row in rows) else ""
    axes.set_xlabel(f"score in %; whisker: {whisker}{dots}", color=GREY)
    tidy(axes, grid="x")
    headline(figure, title)
    save_figure(figure, path)
