"""Panels of lines over the size of the input or the number of processes, with a logarithmic x axis."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from timesformer.visualization.figures import COLORS, headline, plain, save_figure, tidy

_MARKERS = "osD^vPX"


def save_lines(panels: list[dict[str, Any]], path: str | Path, title: str) -> None:
    """Draw a panel of lines for each of `panels`.

    Args:
        panels: dicts with ``title``, ``xlabel``, ``ylabel``, ``axes`` (settings of the axes, such as a scale) and
            ``lines``: dicts with ``name`` (drawn in one style in all panels), ``x`` (ascending), ``y`` and perhaps
            ``low``, the lower end of a band that ends at the line.
        path: the PNG to write.
        title: headline of the picture.
    """
    columns = 2 if len(panels) > 1 else 1
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(5.2 * columns + 1.8, 0.8 + 3.8 * rows), layout="constrained")
    names = list(dict.fromkeys(line["name"] for panel in panels for line in panel["lines"]))
    drawn: dict[str, Any] = {}
    for axes, panel in zip(figure.subplots(rows, columns, squeeze=False).flat, panels, strict=False):
        ticks = sorted({x for line in panel["lines"] for x in line["x"]})
        axes.set_xscale("log", base=2)
        axes.set(xlabel=panel["xlabel"], ylabel=panel["ylabel"], **panel["axes"])
        for line in panel["lines"]:
            index, x, y = names.index(line["name"]), line["x"], line["y"]
            below = min(len(names) - 1 - index, 5)  # thicker, so that lines with equal values all show
            color, style = COLORS[index % len(COLORS)], "-" if index < len(COLORS) else "--"
            sizes = {"linewidth": 1.2 + 1.6 * below, "markersize": 4 + 2.2 * below, "markerfacecolor": "white"}
            marker = _MARKERS[index % len(_MARKERS)]
            (drawn[line["name"]],) = axes.plot(x, y, color=color, linestyle=style, marker=marker, **sizes)
            axes.fill_between(x, line.get("low", y), y, color=color, alpha=0.18, linewidth=0)
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_title(plain(panel["title"]), loc="left", fontsize=10)
        tidy(axes)
    if drawn:
        figure.legend([*drawn.values()], [*map(plain, drawn)], frameon=False, loc="outside right upper")
    headline(figure, title, width=110)
    save_figure(figure, path)
