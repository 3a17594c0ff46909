"""Stochastic depth: whole rows of a residual branch are dropped in training."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., ECCV 2016): zeroes whole rows in training and scales up the kept ones."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """(R, ...) -> (R, ...), each of the R rows kept or dropped as a whole."""
        return x if (factor := self.row_factor(x)) is None else x * factor

    def row_factor(self, x: Tensor) -> Tensor | None:
        """What each row of `x` (R, ...) is multiplied by, shape (R, 1, ...); None when nothing is dropped."""
        if not self.training or self.drop_prob == 0.0:
            return None
        kept = torch.rand(x.shape[0], device=x.device) >= self.drop_prob
        return (kept.to(x.dtype) / (1.0 - self.drop_prob)).view(-1, *[1] * (x.ndim - 1))

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob}"
