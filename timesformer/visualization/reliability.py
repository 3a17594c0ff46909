"""The reliability diagram: accuracy against confidence, and how many videos are in each bin."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from timesformer.visualization.figures import BLUE, GREY, VERMILION, tidy


def reliability_figure(counts: np.ndarray, confidence: np.ndarray, accuracy: np.ndarray) -> Figure:
    """Bars of accuracy in each bin of confidence with the diagonal of a calibrated model, above the counts.

    Args:
        counts: (B,) videos in each bin of equal width.
        confidence: (B,) their mean confidence, 0..1; NaN in an empty bin.
        accuracy: (B,) share of them predicted right, 0..1; NaN in an empty bin.
    """
    num_bins = len(counts)
    middles, width, filled = (np.arange(num_bins) + 0.5) / num_bins, 0.92 / num_bins, counts > 0
    figure = Figure(figsize=(6, 5.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.bar(middles[filled], accuracy[filled], width, color=BLUE, label="accuracy in the bin")
    above.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1.2, label="calibrated")
    above.plot(
        confidence[filled],
        accuracy[filled],
        color=VERMILION,
        marker="o",
        markersize=5,
        linestyle="none",
        label="at the bin's mean confidence",
    )
    above.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.03))
    above.legend(frameon=False, loc="upper left")
    below.bar(middles, counts, width, color=GREY)
    below.set(xlabel="confidence (score of the predicted class)", ylabel="videos")
    for axes in (above, below):
        tidy(axes)
    return figure
