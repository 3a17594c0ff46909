"""Lines that show how well training scales with the number of processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from timesformer.visualization.figures import BLUE, GREY, SKY, VERMILION, headline, plain, save_figure, tidy

_COLORS = (VERMILION, BLUE, SKY, GREY)


def save_scaling(panels: list[dict[str, Any]], path: str | Path, title: str) -> None:
    """Draw a panel for each network, and in it a band between two efficiencies for each way to train.

    Args:
        panels: dicts with ``title`` and ``bands``, which are dicts with ``name``, ``processes`` (ascending), and
            ``low`` and ``high``, the efficiency in percent at each of them.
        path: the PNG to write.
        title: headline of the picture.
    """
    figure = Figure(figsize=(4.4 * max(2, len(panels)), 4.4), layout="constrained")
    for number, (axes, panel) in enumerate(zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True)):
        for color, band in zip(_COLORS, panel["bands"], strict=False):
            axes.fill_between(band["processes"], band["low"], band["high"], color=color, alpha=0.18, linewidth=0)
            for key, style, label in (("high", "-", plain(band["name"])), ("low", "--", None)):
                axes.plot(band["processes"], band[key], style, marker="o", markersize=4, color=color, label=label)
            ticks = band["processes"]
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set_ylim(0, 104)
        axes.set_xlabel("processes")
        axes.set_title(plain(panel["title"]), loc="left", fontsize=10)
        tidy(axes)
        if not number:
            axes.set_ylabel("efficiency (%)")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), frameon=False, loc="outside right upper")
    headline(figure, title, width=110)
    save_figure(figure, path)
