"""Explanations of predictions: maps over the frames of a clip, as a contact sheet and as a movie.

Letters: T pictures that a model sees, P frames of a movie, H W pixels, rows and columns of the map's cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from timesformer.visualization.contact_sheets import MOST_FRAMES, shown_frames, strip
from timesformer.visualization.figures import COLORS, GREY, plain, save_figure, tidy

_WIDTH, _LABELS, _BARS = 14.0, 0.85, 0.55  # inches: of a sheet, of the names of its rows, of the bars' height
_HIGHEST, _HIGHEST_OF_MANY = 2.6, 1.0  # inches, of a row of frames: of a clip alone, of several
_OPAQUE = 0.8  # of the map where it is strongest
_COLORS = "inferno"


class Map(NamedTuple):
    """What counts in a clip.

    Attributes:
        name: of its row, short.
        cells: (T, rows, columns), at least 0.
        time: (T,) the share of each picture.
    """

    name: str
    cells: np.ndarray
    time: np.ndarray


class Panel(NamedTuple):
    """An explained clip.

    Attributes:
        caption: what is explained.
        frames: uint8 (T, H, W, 3).
        pictures: uint8 (T, H, W, 3), what the model sees; drawn where it is not the frames.
        maps: at least one, each drawn over the frames.
    """

    caption: str
    frames: np.ndarray
    pictures: np.ndarray
    maps: Sequence[Map]


def overlay(frames: np.ndarray, cells: np.ndarray, strongest: float) -> np.ndarray:
    """Grey frames under the colours of the map: uint8 (T, H, W, 3).

    Args:
        frames: uint8 (T, H, W, 3).
        cells: (T, rows, columns).
        strongest: the value of the brightest colour.
    """
    height, width = frames.shape[1:3]
    down, across = (_between(*sizes) for sizes in ((cells.shape[1], height), (cells.shape[2], width)))
    strength = np.clip(down @ (cells / (strongest or 1.0)) @ across.T, 0.0, 1.0)
    colours = matplotlib.colormaps[_COLORS](strength)[..., :3] * 255
    grey = frames.mean(axis=3, keepdims=True)
    opaque = _OPAQUE * strength[..., None]
    return (grey * (1.0 - opaque) + colours * opaque).astype(np.uint8)


def save_explanations(panels: Sequence[Panel], path: str | Path, title: str) -> None:
    """Write `explanations_figure` as the PNG `path`."""
    save_figure(explanations_figure(panels, title), path)


def explanations_figure(panels: Sequence[Panel], title: str) -> Figure:
    """Draw each clip as rows of frames, of what the model sees of them and of the map over them, above bars over time.

    Args:
        panels: the clips. Of more than 16 frames, 16 evenly spaced ones are shown; the bars show all.
        title: headline of the sheet.
    """
    rows = [_rows(panel) for panel in panels]
    widest = max(min(len(panel.frames), MOST_FRAMES) for panel in panels)
    highest = _HIGHEST if len(panels) == 1 else _HIGHEST_OF_MANY
    sizes = [
        _inches(strips[0][1], len(panel.frames) / widest, highest) for panel, strips in zip(panels, rows, strict=True)
    ]
    heights = [0.35 + len(strips) * (size[1] + 0.06) + _BARS + 0.4 for strips, size in zip(rows, sizes, strict=True)]
    total = 0.4 + sum(heights)
    figure = Figure(figsize=(_WIDTH, total))
    figure.text(0.01, 1 - 0.1 / total, plain(title, 120), va="top", fontweight="bold", fontsize=12)
    top = total - 0.4
    for panel, strips, (width, height), full in zip(panels, rows, sizes, heights, strict=True):
        colors = dict(zip((each.name for each in panel.maps), COLORS, strict=False))
        figure.text(0.01, (top - 0.1) / total, plain(panel.caption, 160), va="top", fontsize=10)
        at = top - 0.35
        for name, picture in strips:
            at -= height + 0.06
            axes = figure.add_axes((_LABELS / _WIDTH, at / total, width / _WIDTH, height / total))
            axes.imshow(picture, aspect="auto", interpolation="nearest")
            axes.axis("off")
            figure.text(0.01, (at + height / 2) / total, name, va="center", fontsize=9, color=colors.get(name, GREY))
        at -= _BARS + 0.04
        bars = figure.add_axes((_LABELS / _WIDTH, at / total, width / _WIDTH, _BARS / total))
        _draw_bars(bars, [each.time for each in panel.maps])
        figure.text(0.01, (at + _BARS / 2) / total, "share", va="center", fontsize=9, color=GREY)
        top -= full
    return figure


def movie(frames: np.ndarray, times: np.ndarray, panel: Panel, positions: np.ndarray) -> Iterator[np.ndarray]:
    """Pictures of a movie, uint8 RGB of one size: each frame beside the map over it, under them the bars over time.

    Args:
        frames: uint8 (P, H, W, 3).
        times: (P,), ascending, in the unit of `positions`.
        panel: gives the caption and one map.
        positions: (T,) when each of the panel's pictures is.
    """
    order = np.argsort(positions, kind="stable")
    at = np.interp(times, positions[order], np.arange(len(order)))  # place among the pictures in order
    before = np.floor(at).astype(int)
    after, share = np.minimum(before + 1, len(order) - 1), (at - before)[:, None, None]
    cells = panel.maps[0].cells[order]
    maps = cells[before] * (1 - share) + cells[after] * share  # (P, rows, columns)
    height, width = frames.shape[1:3]
    figure = Figure(figsize=(8.0, 1.3 + 3.9 * height / width), dpi=80)
    canvas = FigureCanvasAgg(figure)
    figure.text(0.02, 0.97, plain(panel.caption, 90), va="top", fontsize=10)
    total = 1.3 + 3.9 * height / width
    places = [(left, 0.85 / total, 0.475, 3.8 * height / width / total) for left in (0.02, 0.505)]
    images = [figure.add_axes(place).imshow(frames[0], aspect="auto") for place in places]
    for image in images:
        image.axes.axis("off")
    bars = figure.add_axes((0.02, 0.28 / total, 0.96, 0.5 / total))
    _draw_bars(bars, [panel.maps[0].time[order]])
    cursor = bars.axvline(0, color="black", linewidth=1.5)
    strongest = float(cells.max())
    for index, frame in enumerate(frames):
        images[0].set_data(frame)
        images[1].set_data(overlay(frame[None], maps[index][None], strongest)[0])
        cursor.set_xdata([at[index], at[index]])
        canvas.draw()
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _rows(panel: Panel) -> list[tuple[str, np.ndarray]]:
    """Names and strips (H, all W, 3) of the rows of a panel."""
    rows = [("frames", panel.frames)]
    if not np.array_equal(panel.frames, panel.pictures):
        rows.append(("seen as", panel.pictures))
    rows += [(each.name, overlay(panel.frames, each.cells, float(each.cells.max()))) for each in panel.maps]
    return [(name, strip(frames)) for name, frames in rows]


def _inches(strip: np.ndarray, share: float, highest: float) -> tuple[float, float]:
    """Width and height of a strip (H, W, 3) that has this share of the sheet's width, or less to be no higher."""
    rows, columns = strip.shape[:2]
    height = min((_WIDTH - _LABELS - 0.15) * min(share, 1.0) * rows / columns, highest)
    return height * columns / rows, height


def _draw_bars(axes: Axes, times: Sequence[np.ndarray]) -> None:
    """The shares of each map beside each other."""
    number, width = len(times[0]), 0.9 / len(times)
    for index, (time, color) in enumerate(zip(times, COLORS, strict=False)):
        left = np.arange(number) - 0.45 + width * index
        axes.bar(left, time, width=width, align="edge", color=color)
    axes.set_xlim(-0.5, number - 0.5)
    axes.set_ylim(0, 1.05 * max(float(time.max()) for time in times) or 1)
    axes.set_yticks([])
    shown = shown_frames(number)
    axes.set_xticks(shown, [str(number + 1) for number in shown], fontsize=8)
    tidy(axes, "y")


def _between(count: int, pixels: int) -> np.ndarray:
    """Weights (pixels, count) of linear interpolation between the middles of `count` cells."""
    places = np.clip((np.arange(pixels) + 0.5) * count / pixels - 0.5, 0, count - 1)
    return np.maximum(0.0, 1.0 - abs(places[:, None] - np.arange(count)))
