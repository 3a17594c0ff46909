"""Which patches of a clip attend to one another: a clip's patches in groups, and back again.

Letters: B clips, H W patches of a frame, T frames, D width, G groups of a clip, L patches of a group.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

EACH = 0  # as many parts as patches along an axis


class Groups(NamedTuple):
    """Height, width and time are each cut into some parts; a group is what lies in the same part along all three.

    A part is a run of neighbours, or with `strided` every n-th patch of n parts. An axis that its parts do not divide
    is padded at its end with patches that are masked, so that every group has the same size.

    Attributes:
        height, width, time: number of parts; `EACH`: every patch is its own.
        strided: parts are interleaved.
    """

    height: int
    width: int
    time: int
    strided: bool = False

    def group(self, x: Tensor) -> Tensor:
        """(B, H, W, T, D) -> (B, G, L, D); a view where the order allows it."""
        cuts = self._cuts(x.shape)
        padding = [parts * size - length for (parts, size), length in zip(cuts, x.shape[1:4], strict=True)]
        if any(padding):
            x = F.pad(x, (0, 0, 0, padding[2], 0, padding[1], 0, padding[0]))
        return rearrange(x, f"{self._grid} -> b (gh gw gt) (h w t) d", **self._parts(cuts))

    def ungroup(self, groups: Tensor, shape: torch.Size) -> Tensor:
        """(B, G, L, D) -> (B, H, W, T, D) of the sizes H, W, T in `shape`: the way back, without padding."""
        cuts = self._cuts(shape)
        sizes = dict(zip("hwt", (size for _, size in cuts), strict=True))
        x = rearrange(groups, f"b (gh gw gt) (h w t) d -> {self._grid}", **self._parts(cuts), **sizes)
        return x[:, : shape[1], : shape[2], : shape[3]]

    def real(self, x: Tensor) -> Tensor | None:
        """(G, L), False for patches that `group` pads with; None when there are none."""
        if all(parts * size == length for (parts, size), length in zip(self._cuts(x.shape), x.shape[1:4], strict=True)):
            return None
        return self.group(torch.ones(1, *x.shape[1:4], 1, dtype=torch.bool, device=x.device))[0, :, :, 0]

    @property
    def _grid(self) -> str:
        """How the tokens of a clip are made of parts (gh gw gt) and what is in a part (h w t)."""
        return "b (h gh) (w gw) (t gt) d" if self.strided else "b (gh h) (gw w) (gt t) d"

    def _cuts(self, shape: torch.Size) -> list[tuple[int, int]]:
        """(parts, patches in a part) along height, width and time of tokens of `shape`."""
        counts = zip(shape[1:4], (self.height, self.width, self.time), strict=True)
        parts = [(length, min(parts, length) or length) for length, parts in counts]
        return [(number, -(-length // number)) for length, number in parts]

    @staticmethod
    def _parts(cuts: list[tuple[int, int]]) -> dict[str, int]:
        return {axis: parts for axis, (parts, _) in zip(("gh", "gw", "gt"), cuts, strict=True)}
