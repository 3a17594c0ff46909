"""What a prediction loses when a part of the clip is covered: for any model, by its answers alone.

Zeiler and Fergus, 2014, "Visualizing and Understanding Convolutional Networks", section 4.2, with windows in space and
time that do not overlap.

Letters: C channels, T frames, H W pixels, P parts of the clip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

PATCH = 8  # pixels: sides of windows are multiples of it, as patches usually are
WINDOWS, TIMES = 7, 8  # about so many windows along the shorter side of a frame, and at most so many in time

_BAR: dict[str, Any] = {"desc": "occlusion", "unit": "window", "leave": False, "disable": None, "delay": 2}

Score = Callable[[Tensor], Tensor]  # clips (B, C, T, H, W) -> (B,)


def occlusion_map(score: Score, clip: Tensor, fill: Tensor, *, batch_size: int = 8) -> Tensor:
    """By how much `score` falls when a window of the clip is covered; negative where it rises.

    Args:
        score: of clips.
        clip: (C, T, H, W).
        fill: (C,), what covers a window.
        batch_size: clips of a pass.

    Returns:
        (T, rows, columns) of windows.
    """
    _, frames, height, width = clip.shape
    side = PATCH * max(1, round(min(height, width) / WINDOWS / PATCH))
    sizes = [min(frames, TIMES), -(-height // side), -(-width // side)]  # windows
    parts = [_equal_parts(*each) for each in zip((frames, height, width), sizes, strict=True)]
    window = parts[0][:, None, None] * sizes[1] * sizes[2] + parts[1][:, None] * sizes[2] + parts[2]  # (T, H, W)
    covered = ((window == number) for number in range(math.prod(sizes)))
    losses = _losses(score, clip, fill, tqdm(covered, total=math.prod(sizes), **_BAR), batch_size)
    return losses.view(*sizes)[parts[0]]


def occlusion_in_time(score: Score, clip: Tensor, fill: Tensor, *, batch_size: int = 8) -> Tensor:
    """By how much `score` falls when a frame is covered: (T,)."""
    frames = torch.arange(clip.shape[1])[:, None, None]
    covered = ((frames == number).expand(clip.shape[1:]) for number in range(clip.shape[1]))
    return _losses(score, clip, fill, covered, batch_size)


def cover(clip: Tensor, covered: Tensor, fill: Tensor) -> Tensor:
    """The clip (C, T, H, W) with `fill` (C,) where `covered`, bool (T, H, W)."""
    return torch.where(covered.to(clip.device), fill.view(-1, 1, 1, 1), clip)


def _equal_parts(length: int, number: int) -> Tensor:
    """Which of `number` parts of nearly the same size each of `length` places is in."""
    return torch.arange(length) * number // length


def _losses(score: Score, clip: Tensor, fill: Tensor, parts: Iterable[Tensor], batch_size: int) -> Tensor:
    """The fall of the score for each of `parts`, bool (T, H, W): (P,)."""
    scores, batch = [score(clip[None])], list[Tensor]()
    for covered in parts:
        batch.append(cover(clip, covered, fill))
        if len(batch) == batch_size:
            scores.append(score(torch.stack(batch)))
            batch.clear()
    if batch:
        scores.append(score(torch.stack(batch)))
    all_scores = torch.cat(scores).float().cpu()
    return all_scores[0] - all_scores[1:]
