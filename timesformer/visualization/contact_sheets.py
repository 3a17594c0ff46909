"""Contact sheets: the frames of clips side by side, one clip a row."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from timesformer.visualization.figures import plain, save_figure

Row = tuple[str, np.ndarray]  # caption, frames (T, H, W, 3) uint8 RGB

_WIDTH, _HIGHEST = 14.0, 3.5  # inches: of the sheet, of one row
MOST_FRAMES = 16  # in a row; more would be too small to see


def clip_frames(clip: Any) -> np.ndarray:
    """The frames (T, H, W, C) of a clip (C, T, H, W), an array or a tensor on the CPU."""
    return np.asarray(clip).transpose(1, 2, 3, 0)


def label_name(label: int | tuple[int, ...], class_names: list[str]) -> str:
    """The class names of a label, or of several; a class without a name is called by its number."""
    labels = label if isinstance(label, tuple) else (label,)
    return ", ".join(class_names[each] if each < len(class_names) else f"label {each}" for each in labels)


def save_contact_sheet(rows: list[Row], path: str | Path, title: str) -> None:
    """Draw each clip as a strip of frames under its caption.

    Args:
        rows: clips, whose sizes may differ. Of more than 16 frames, 16 evenly spaced ones are shown and the caption
            says so.
        path: the PNG to write.
        title: headline of the sheet.
    """
    strips = [strip(frames) for _, frames in rows]
    captions = [_caption(caption, len(frames)) for caption, frames in rows]
    columns = [min(len(frames), MOST_FRAMES) for _, frames in rows]
    widths = [0.98 * _WIDTH * count / max(columns) for count in columns]  # frames of all rows equally wide
    heights = [
        min(width * picture.shape[0] / picture.shape[1], _HIGHEST)
        for width, picture in zip(widths, strips, strict=True)
    ]
    text_heights = [0.12 + 0.17 * (1 + caption.count("\n")) for caption in captions]
    total = 0.45 + sum(heights) + sum(text_heights)
    figure = Figure(figsize=(_WIDTH, total))
    figure.text(0.01, (total - 0.1) / total, plain(title, 120), va="top", fontweight="bold", fontsize=12)
    top = total - 0.4
    for picture, caption, height, text_height in zip(strips, captions, heights, text_heights, strict=True):
        figure.text(0.01, (top - 0.08) / total, caption, va="top", fontsize=9)
        top -= text_height + height
        width = height * picture.shape[1] / picture.shape[0]
        axes = figure.add_axes((0.01, top / total, width / _WIDTH, height / total))
        axes.imshow(picture, aspect="auto", interpolation="nearest")
        axes.axis("off")
    save_figure(figure, path)


def strip(frames: np.ndarray) -> np.ndarray:
    """Frames (T, H, W, 3) beside each other with white gaps: (H, T * (W + gap) - gap, 3)."""
    gap = max(1, frames.shape[2] // 40)
    padded = np.pad(frames[shown_frames(len(frames))], ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=255)
    return np.concatenate(list(padded), axis=1)[:, :-gap]


def shown_frames(num_frames: int) -> np.ndarray:
    """Indices of the frames that a row shows: all, or 16 evenly spaced ones."""
    return np.linspace(0, num_frames - 1, min(num_frames, MOST_FRAMES)).round().astype(int)


def _caption(caption: str, num_frames: int) -> str:
    note = f" ({MOST_FRAMES} of {num_frames} frames shown)" if num_frames > MOST_FRAMES else ""
    return "\n".join(textwrap.wrap(plain(caption, 300) + note, 150))
