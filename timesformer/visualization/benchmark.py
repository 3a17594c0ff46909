"""Pictures of what models cost: lines of time and memory over the size of the input, and bars of ratios."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from timesformer.visualization.figures import BLUE, GREY, SKY, VERMILION, headline, plain, save_figure, tidy

_GREEN, _PURPLE = "#009E73", "#CC79A7"  # Okabe and Ito, too
_COLORS = (VERMILION, BLUE, _GREEN, SKY, _PURPLE, GREY)


def save_lines(panels: list[dict[str, Any]], path: str | Path, title: str) -> None:
    """Draw a panel of lines for each of `panels`, their x axis logarithmic.

    Args:
        panels: dicts with ``title``, ``xlabel``, ``ylabel``, ``axes`` (what matplotlib shall set, such as a scale) and
            ``lines``: dicts with ``name``, which is drawn in one colour in all panels, ``x`` (ascending), ``y`` and
            perhaps ``low``, the lower end of a band that ends at the line.
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
            place, x, y = names.index(line["name"]), line["x"], line["y"]
            style = {"color": _COLORS[place % len(_COLORS)], "linestyle": "-" if place < len(_COLORS) else "--"}
            drawn[line["name"]] = axes.plot(x, y, marker="o", markersize=4, **style)[0]
            axes.fill_between(x, line.get("low", y), y, color=style["color"], alpha=0.18, linewidth=0)
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_title(plain(panel["title"]), loc="left", fontsize=10)
        tidy(axes)
    if drawn:
        figure.legend([*drawn.values()], [*map(plain, drawn)], frameon=False, loc="outside right upper")
    headline(figure, title, width=110)
    save_figure(figure, path)


def save_ratios(rows: list[dict[str, Any]], path: str | Path, title: str) -> None:
    """Draw one horizontal bar for each ratio, the first on top, and a line at 1.

    Args:
        rows: dicts with ``name`` and ``ratio``.
        path: the PNG to write.
        title: headline of the picture.
    """
    figure = Figure(figsize=(11, 1.4 + 0.34 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        axes.barh(place, row["ratio"], height=0.62, color=SKY if row["ratio"] >= 1 else GREY)
        axes.text(row["ratio"], place, f" {row['ratio']:.2f}x", va="center", fontsize=9)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(rows)), [plain(row["name"], 70) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.margins(x=0.1)
    tidy(axes, grid="x")
    headline(figure, title, width=110)
    save_figure(figure, path)
