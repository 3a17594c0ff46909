"""Stochastic depth: whole rows of a residual branch are dropped in training."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., ECCV 2016): zeroes whole rows in training and scales up the kept ones."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self._drop_prob = drop_prob
        self.drops = drop_prob > 0.0
        # A compiled block reads the rates from tensors, so that one program serves blocks of different rates. They stay
        # on the CPU: a number there is an argument of the device's kernels, and no copy.
        self._dropped, self._kept = (
            torch.tensor(rate, dtype=torch.float32, device="cpu") for rate in (drop_prob, 1.0 - drop_prob)
        )

    @property
    def drop_prob(self) -> float:
        """The probability that a row is dropped; fixed."""
        return self._drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """(R, ...) -> (R, ...), each of the R rows kept or dropped as a whole."""
        return x if (factor := self.row_factor(x)) is None else x * factor

    def row_factor(self, x: Tensor) -> Tensor | None:
        """What each row of `x` (R, ...) is multiplied by, shape (R, 1, ...); None when nothing is dropped."""
        if not self.training or not self.drops:
            return None
        kept = torch.rand(x.shape[0], device=x.device) >= self._dropped
        return (kept.to(x.dtype) / self._kept).view(-1, *[1] * (x.ndim - 1))

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob}"
