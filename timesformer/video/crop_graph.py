"""`EvalTransform` as tensor operations, for graphs that are exported: frames of any size, the same pixels.

OpenCV scales uint8 frames with weights in units of 1/2048: a row's two weighted pixels are summed exactly, and sums of
two rows are cut to 1/4 of a grey level before they are rounded. So do these operations, to the last bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from timesformer.video.transforms import EvalTransform

_UNIT = 2048  # OpenCV's weights are whole multiples of 1/2048

# Sizes and places are 0-d tensors of float64: whole numbers, exact, and free to change with the size of the frames.


def crop_views(frames: Tensor, transform: EvalTransform) -> Tensor:
    """uint8 frames (B, T, H, W, 3) -> the views of `transform`, uint8 (B, V, 3, T, h, w)."""
    frame_size = tuple(torch.full((), side, dtype=torch.float64) for side in frames.shape[2:4])
    resized, corners = _places(frame_size, transform)
    views = []
    for corner in corners:
        (y, y_part), (x, x_part) = (
            _source(place + torch.arange(length), source, target)
            for place, length, source, target in zip(corner, transform.crop_size, frame_size, resized, strict=True)
        )
        views.append(_resize(frames, y, y_part, x, x_part))
    return torch.stack(views, dim=1).permute(0, 1, 5, 2, 3, 4)


def _places(
    frame_size: tuple[Tensor, ...], transform: EvalTransform
) -> tuple[tuple[Tensor, ...], list[tuple[Tensor, ...]]]:
    """Size of the scaled frame, and (top, left) of each crop: `scaled_size` and `crop_corners` of transforms.py."""
    height, width = frame_size
    crop = tuple(torch.tensor(side, dtype=torch.float64) for side in transform.crop_size)
    zero = torch.zeros((), dtype=torch.float64)
    if transform.crop_mode != "crop":
        return crop, [(zero, zero)]
    shortest = torch.minimum(height, width)
    scaled = [(side * transform.short_side / shortest).floor() for side in frame_size]
    fits = (scaled[0] >= crop[0]) & (scaled[1] >= crop[1])
    by_height = crop[0] * width >= crop[1] * height
    cover = (
        torch.where(by_height, crop[0], (height * crop[1] / width).floor()),
        torch.where(by_height, (width * crop[0] / height).floor(), crop[1]),
    )
    resized = tuple(torch.where(fits, large, small) for large, small in zip(scaled, cover, strict=True))
    slack = [side - cut for side, cut in zip(resized, crop, strict=True)]
    centre = tuple(((each + 1) / 2).floor() for each in slack)
    if transform.num_crops == 1:
        return resized, [centre]
    tall = slack[0] > slack[1]
    first = torch.where(tall, zero, centre[0]), torch.where(tall, centre[1], zero)
    last = torch.where(tall, slack[0], centre[0]), torch.where(tall, centre[1], slack[1])
    return resized, [first, centre, last]


def _source(places: Tensor, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Where `places` of a side scaled from `source` to `target` lie there: whole pixels, and the float32 rest."""
    at = ((places + 0.5) * (1 / (target / source)) - 0.5).to(torch.float32)
    pixel = at.floor()
    return pixel.to(torch.int64), at - pixel


def _resize(frames: Tensor, y: Tensor, y_part: Tensor, x: Tensor, x_part: Tensor) -> Tensor:
    """Pixels between (y, x) and their neighbours below and right: uint8 (B, T, H, W, 3) -> (B, T, h, w, 3)."""
    last_row, last_column = frames.shape[2] - 1, frames.shape[3] - 1
    inside = (x >= 0) & (x < last_column)
    left, right = _weights(torch.where(inside, x_part, 0.0))
    x = x.clamp(0, last_column)
    columns = (x, left), ((x + 1).clamp(max=last_column), right)
    total = torch.full((), 2, dtype=torch.int32)
    for rows, weight in zip((y, y + 1), _weights(y_part), strict=True):
        line = frames.index_select(2, rows.clamp(0, last_row))
        row = sum(line.index_select(3, column).to(torch.int32) * share[:, None] for column, share in columns)
        total = total + ((weight[:, None, None] * (row >> 4)) >> 16)
    return (total >> 2).to(torch.uint8)


def _weights(part: Tensor) -> tuple[Tensor, Tensor]:
    """Weights, int32, of a pixel and of the next one, `part` of a pixel on."""
    near, far = ((each * _UNIT).round().to(torch.int32) for each in (1 - part, part))
    return near, far
