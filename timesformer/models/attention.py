"""Attention among the tokens of rows, stochastic depth of rows, and two linear maps in a row as one.

Letters: R rows (independent sequences), L tokens of a row, D width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

# Rows of up to so many tokens are attended explicitly when a CPU trains: there torch's fused attention takes longer to
# go backward than it saves. Measured: in fp32 1.1 to 1.3x the time at 8 tokens and 0.5x at 32; in bf16 1.3x at 8 and
# 1.9x at 32. Without gradients it is always as fast or faster (up to 4x at 8 tokens).
FEW_TOKENS = {torch.float32: 8, torch.bfloat16: 32, torch.float16: 32}


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


class Attention(nn.Module):
    """Multi-head self-attention among the tokens of each row: `project`, `mix`, `proj`, `proj_drop`."""

    def __init__(self, dim: int, num_heads: int, *, qkv_bias: bool, attn_drop: float, proj_drop: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attn_drop = attn_drop
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """(R, L, D) -> (R, L, D)."""
        return self.proj_drop(self.proj(self.mix(*self.project(x), key_mask)))

    def project(self, x: Tensor, num_queries: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(R, L, D) -> queries of the first `num_queries` tokens, keys and values of all, (R, heads, L, D / heads)."""
        if num_queries is None:
            q, k, v = self.qkv(x).chunk(3, dim=2)
        else:
            width, weight, bias = x.shape[2], self.qkv.weight, self.qkv.bias
            q = F.linear(x[:, :num_queries], weight[:width], None if bias is None else bias[:width])
            k, v = F.linear(x, weight[width:], None if bias is None else bias[width:]).chunk(2, dim=2)
        q, k, v = (part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in (q, k, v))  # views
        return q, k, v

    def mix(self, q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """The values (R, heads, L, D / heads) as each query weighs them -> (R, queries, D).

        Args:
            key_mask: (R, L), False where a key is not to be seen; None: all are.
        """
        dropout_p = self.attn_drop if self.training else 0.0
        if key_mask is None and k.shape[2] <= FEW_TOKENS.get(k.dtype, 0) and not k.is_cuda and torch.is_grad_enabled():
            weights = ((q * q.shape[3] ** -0.5) @ k.transpose(2, 3)).softmax(3)
            mixed = F.dropout(weights, dropout_p) @ v
        else:
            mask = None if key_mask is None else key_mask[:, None, None]
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p)
        return mixed.transpose(1, 2).flatten(2)


class LinearPair(nn.Module):
    """Two linear maps with nothing but stochastic depth between them, as one: W2 (W1 x + b1) + b2 = (W2 W1) x + ...

    The maps stay where they are and keep their names; this module has no parameters. Their product is taken once a
    pass while gradients are computed; without, it is kept until a weight changes (as torch counts it: every change
    but one inside `.data`, after which `eval()` or `train()` makes it forget). Several processes keep nothing, since
    sharded weights are gathered into the same memory uncounted.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kept: tuple[list[Any], tuple[Tensor, ...], tuple[Tensor, Tensor]] | None = None

    def forward(
        self, x: Tensor, first: nn.Linear, second: nn.Linear, *, dropout: nn.Dropout, drop_path: DropPath
    ) -> Tensor:
        """(R, L, D) -> (R, L, D), which is `second(drop_path(dropout(first(x))))`."""
        product = None if dropout.training and dropout.p > 0.0 else self._product(x, first, second)
        if product is None:
            return second(drop_path(dropout(first(x))))
        weight, bias = product
        if (factor := drop_path.row_factor(x)) is None:
            return F.linear(x, weight, bias + second.bias)
        x = F.linear(x, weight, bias)  # dropped rows still get the second bias, and only that
        return torch.addcmul(second.bias.to(x.dtype), x, factor.to(x.dtype))

    def _product(self, x: Tensor, first: nn.Linear, second: nn.Linear) -> tuple[Tensor, Tensor] | None:
        """W2 W1 and W2 b1; None where taking the product is more work than it saves."""
        sources = (first.weight, first.bias, second.weight)
        alone = not (dist.is_available() and dist.is_initialized())
        counted = not torch.compiler.is_compiling() and not any(tensor.is_inference() for tensor in sources)
        keeps = alone and counted and not torch.is_grad_enabled()
        if not keeps and x.numel() <= x.shape[-1] ** 2:  # fewer tokens than the width
            return None
        if not keeps:
            return second.weight @ first.weight, F.linear(first.bias, second.weight)
        device = x.device.type
        cast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        versions = [(tensor.data_ptr(), tensor._version) for tensor in sources]
        key = [*map(id, sources), *versions, torch.get_autocast_dtype(device) if cast else None]
        if self._kept is None or self._kept[0] != key:
            product = second.weight @ first.weight, F.linear(first.bias, second.weight)
            self._kept = key, sources, product  # the sources, so that no other tensor gets the id of one
        return self._kept[2]

    def train(self, mode: bool = True) -> LinearPair:
        self._kept = None
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> LinearPair:  # moved or cast: the same tensors, other values
        self._kept = None
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:  # copies and pickles start without
        return self.__dict__ | {"_kept": None}
