"""Picture sizes as users write them."""

from __future__ import annotations

from collections.abc import Sequence


def height_width(size: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) in pixels of a `size` setting: the side of a square, or [height, width]."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width
