"""Which patches of a clip attend to one another: a clip's patches in groups, and back again.

Letters: B clips, H W patches of a frame, T frames, D width, G groups of a clip, L patches of a group.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

EACH = 0  # as many groups as places along an axis


class Groups(NamedTuple):
    """Height, width and time are each cut into some parts; a group is what lies in the same part along all three.

    A part is a run of neighbours, or with `strided` every n-th place of n parts. An axis that its parts do not divide
    is filled up at its end with patches that are masked, so that every group has the same size; an axis of one place
    is one part.

    Attributes:
        height, width, time: number of parts; `EACH`: every place is its own.
        strided: parts are interleaved.
    """

    height: int
    width: int
    time: int
    strided: bool = False

    def group(self, x: Tensor) -> Tensor:
        """(B, H, W, T, D) -> (B, G, L, D); a view where the order allows it."""
        fill = [amount for (parts, size), length in self._cuts(x.shape) for amount in (0, parts * size - length)]
        if any(fill):
            x = F.pad(x, (0, 0, *fill[4:], *fill[2:4], *fill[:2]))
        cuts = [cut for cut, _ in self._cuts(x.shape)]
        x = x.reshape(len(x), *(size for cut in cuts for size in (cut[::-1] if self.strided else cut)), x.shape[4])
        return x.permute(0, *self._order(), 7).flatten(4, 6).flatten(1, 3)

    def ungroup(self, groups: Tensor, shape: torch.Size) -> Tensor:
        """(B, G, L, D) -> (B, H, W, T, D) of the sizes H, W, T in `shape`: the way back, without what was filled up."""
        cuts = [cut for cut, _ in self._cuts(shape)]
        x = groups.reshape(len(groups), *(parts for parts, _ in cuts), *(size for _, size in cuts), groups.shape[3])
        order = self._order()
        x = x.permute(0, *(1 + order.index(axis) for axis in range(1, 7)), 7).flatten(5, 6).flatten(3, 4).flatten(1, 2)
        return x[:, : shape[1], : shape[2], : shape[3]]

    def real(self, x: Tensor) -> Tensor | None:
        """(G, L), False for patches that `group` has filled up; None when there are none."""
        if all(parts * size == length for (parts, size), length in self._cuts(x.shape)):
            return None
        return self.group(torch.ones(1, *x.shape[1:4], 1, dtype=torch.bool, device=x.device))[0, :, :, 0]

    def _cuts(self, shape: torch.Size) -> list[tuple[tuple[int, int], int]]:
        """((parts, places in a part), places) along each axis of tokens of `shape`."""
        found = []
        for length, parts in zip(shape[1:4], (self.height, self.width, self.time), strict=True):
            parts = min(parts, length) or length
            found.append(((parts, -(-length // parts)), length))
        return found

    def _order(self) -> tuple[int, ...]:
        """Places of the parts, then of what is in a part, among the six axes that height, width and time are cut to."""
        return (2, 4, 6, 1, 3, 5) if self.strided else (1, 3, 5, 2, 4, 6)
