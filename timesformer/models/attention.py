"""Attention among the tokens of rows, in the form that suits their number, precision and device.

Letters: R rows (independent sequences), L tokens of a row, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from timesformer.models.linear import Linear

# Rows of up to so many tokens a CPU attends to with plain matrix products, a few rows at a time; longer ones, and all
# on GPUs, by torch's fused attention. Measured on an AMD CPU (Zen 4), time of the fused form over that of the plain
# one, forward and with the backward pass: bf16 2.1 and 1.5 at 8 tokens, 2.3 and 2.8 at 32, 1.6 and 1.7 at 197, 0.8
# forward at 1569; fp32 1.9 and 1.5 at 8, 0.9 and 0.8 at 197.
MOST_TOKENS = {torch.float32: 8, torch.bfloat16: 512}
CHUNK = 8_000_000  # numbers of queries, keys, values and scores at a time: they stay in the cache


class Attention(nn.Module):
    """Multi-head self-attention among the tokens of each row: `qkv`, `mix`, `proj`, `proj_drop`."""

    def __init__(self, dim: int, num_heads: int, *, qkv_bias: bool, attn_drop: float, proj_drop: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attn_drop = attn_drop
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """(R, L, D) -> (R, L, D)."""
        return self.proj_drop(self.proj(self.mix(self.qkv(x), key_mask)))

    def mix(self, qkv: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """Queries, keys and values (R, L, 3D) -> the values as each query weighs them (R, L, D).

        Args:
            key_mask: (R, L), False where a key is not to be seen; None: all are.
        """
        drops = self.training and self.attn_drop > 0.0
        plain = qkv.device.type == "cpu" and qkv.shape[1] <= MOST_TOKENS.get(qkv.dtype, 0)
        if plain and key_mask is None and not drops and not torch.compiler.is_compiling():
            return PlainAttention.apply(qkv, self.num_heads)
        q, k, v = heads_of(qkv, self.num_heads)
        return self.attend(q, k, v, key_mask)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """Torch's fused attention: queries, keys and values (R, heads, L, D / heads) -> (R, queries, D)."""
        mask = None if key_mask is None else key_mask[:, None, None]
        dropout_p = self.attn_drop if self.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, mask, dropout_p).transpose(1, 2).flatten(2)

    def project_first(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(R, L, D) -> the query of each row's first token, keys and values of all, (R, heads, 1 or L, D / heads)."""
        width, weight, bias = x.shape[2], self.qkv.weight, self.qkv.bias
        q = F.linear(x[:, :1], weight[:width], None if bias is None else bias[:width])
        kv = F.linear(x, weight[width:], None if bias is None else bias[width:])
        k, v = heads_of(kv, self.num_heads, 2)
        return heads_of(q, self.num_heads, 1)[0], k, v


def heads_of(x: Tensor, num_heads: int, parts: int = 3) -> tuple[Tensor, ...]:
    """(R, L, parts * D) -> `parts` views (R, heads, L, D / heads)."""
    return tuple(part.unflatten(2, (num_heads, -1)).transpose(1, 2) for part in x.chunk(parts, dim=2))


class PlainAttention(torch.autograd.Function):
    """Attention with explicit scores, a few rows at a time; the backward pass computes the scores again."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, num_heads: int) -> Tensor:
        """(R, L, 3D) -> (R, L, D)."""
        ctx.save_for_backward(qkv)
        ctx.num_heads = num_heads
        out = qkv.new_empty(*qkv.shape[:2], qkv.shape[2] // 3)
        rows = _rows_at_a_time(qkv, num_heads)
        for few, mixed in zip(qkv.split(rows), out.split(rows), strict=True):
            heads_of(mixed, num_heads, 1)[0].copy_(_explicit(few, num_heads))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """(R, L, D) -> (R, L, 3D)."""
        (qkv,) = ctx.saved_tensors
        grad_qkv = torch.empty_like(qkv)
        rows = _rows_at_a_time(qkv, ctx.num_heads)
        for few, grad_few, wanted in zip(qkv.split(rows), grad.split(rows), grad_qkv.split(rows), strict=True):
            with torch.enable_grad():
                mixed = _explicit(leaf := few.detach().requires_grad_(), ctx.num_heads)
            wanted.copy_(torch.autograd.grad(mixed, leaf, heads_of(grad_few, ctx.num_heads, 1)[0])[0])
        return grad_qkv, None


def _rows_at_a_time(qkv: Tensor, num_heads: int) -> int:
    _, length, width = qkv.shape
    return max(1, CHUNK // (length * (width + num_heads * length)))


def _explicit(qkv: Tensor, num_heads: int) -> Tensor:
    """(R, L, 3D) -> (R, heads, L, D / heads)."""
    with torch.autocast("cpu", enabled=False):
        q, k, v = qkv.unflatten(2, (3, num_heads, -1)).permute(2, 0, 3, 1, 4).flatten(1, 2)  # each (R*heads, L, ...)
        scores = torch.baddbmm(q.new_empty(1), q, k.transpose(1, 2), beta=0, alpha=q.shape[2] ** -0.5)
        return torch.bmm(scores.softmax(2), v).unflatten(0, (-1, num_heads))
