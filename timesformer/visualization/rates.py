"""The loss against the learning rate of a range test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from timesformer.visualization.figures import BLUE, GREY, VERMILION, headline, save_figure, tidy


def save_rates(
    rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], suggestion: float | None, path: Path
) -> None:
    """Write the picture as a PNG; the rate of the suggestion, if there is one, is a vertical line."""
    figure = Figure(figsize=(7.5, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses, color=GREY, linewidth=0.8, marker=".", markersize=3, label="loss of a step")
    axes.plot(rates, smoothed, color=BLUE, linewidth=2, label="smoothed")
    if suggestion is not None:
        axes.axvline(suggestion, color=VERMILION, linestyle="--", label=f"suggestion {suggestion:.2g}")
    axes.set_xscale("log")
    axes.set_ylim(top=min(max(losses), 2 * max(smoothed[0], min(smoothed))) * 1.05)
    axes.set(xlabel="learning rate", ylabel="training loss")
    axes.legend(frameon=False)
    tidy(axes)
    headline(figure, "Learning-rate range test", width=80)
    save_figure(figure, path)
