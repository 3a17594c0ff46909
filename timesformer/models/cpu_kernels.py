"""Faster forms of two operations on CPUs: linear maps with packed weights, and attention among few tokens.

Both compute the same function as torch's own forms, which are used wherever these are not available.

Letters: R rows (independent sequences), L tokens of a row, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import register_flop_formula

# Rows of up to so many tokens are attended to with plain matrix products, a few rows at a time; longer ones by torch's
# fused attention. Measured on an AMD CPU (Zen 4), time of the fused form over that of the plain one, forward and with
# the backward pass: bf16 2.1 and 1.5 at 8 tokens, 2.3 and 2.8 at 32, 1.6 and 1.7 at 197, 0.8 forward at 1569; fp32 1.9
# and 1.5 at 8, 0.9 and 0.8 at 197.
MAX_TOKENS = {torch.float32: 8, torch.bfloat16: 512}
CHUNK = 8_000_000  # numbers of queries, keys, values and scores at a time: they stay in the cache

# oneDNN's operators are private to torch, and builds for Apple's processors have none.
_HAS_PACKED = all(hasattr(torch.ops.mkldnn, name) for name in ("_linear_pointwise", "_reorder_linear_weight"))


def can_pack(dtype: torch.dtype) -> bool:
    """Whether weights of `dtype` can be laid out for oneDNN here."""
    if not (_HAS_PACKED and torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def pack(weight: Tensor) -> Tensor:
    """A weight (out, in) laid out for oneDNN; only `packed_linear` can read it."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous())
    return packed


def packed_linear(x: Tensor, weight: Tensor, bias: Tensor | None, *, gelu: bool = False) -> Tensor:
    """(..., in) -> (..., out) with a packed weight, and an exact GELU after it if wanted."""
    activation = "gelu" if gelu else "none"
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x.to(weight.dtype), weight, bias, activation, [], "none")
    return out


if _HAS_PACKED:

    @register_flop_formula(torch.ops.mkldnn._linear_pointwise)
    def _operations(x_shape: torch.Size, weight_shape: torch.Size, *_: Any, **__: Any) -> int:
        """Operations of a packed product, as torch's counter counts those of a plain one."""
        return 2 * x_shape.numel() * weight_shape[0]


def suits_plain_attention(qkv: Tensor) -> bool:
    """Whether `PlainAttention` is the faster form for queries, keys and values (R, L, 3D).

    Never while a program is recorded: a trace would lose what is written into its output.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return qkv.device.type == "cpu" and qkv.shape[1] <= MAX_TOKENS.get(qkv.dtype, 0)


class PlainAttention(torch.autograd.Function):
    """Attention with explicit scores, a few rows at a time; the backward pass computes the scores again."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, num_heads: int, causal: bool = False) -> Tensor:
        """(R, L, 3D) -> (R, L, D)."""
        ctx.save_for_backward(qkv)
        ctx.num_heads, ctx.causal = num_heads, causal
        out = qkv.new_empty(*qkv.shape[:2], qkv.shape[2] // 3)
        rows = _rows_at_a_time(qkv, num_heads)
        for few, mixed in zip(qkv.split(rows), out.split(rows), strict=True):
            _by_heads(mixed, num_heads).copy_(_attend(few, num_heads, causal))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """(R, L, D) -> (R, L, 3D)."""
        (qkv,) = ctx.saved_tensors
        grad_qkv = torch.empty_like(qkv)
        rows = _rows_at_a_time(qkv, ctx.num_heads)
        for few, grad_few, result in zip(qkv.split(rows), grad.split(rows), grad_qkv.split(rows), strict=True):
            with torch.enable_grad():
                mixed = _attend(leaf := few.detach().requires_grad_(), ctx.num_heads, ctx.causal)
            result.copy_(torch.autograd.grad(mixed, leaf, _by_heads(grad_few, ctx.num_heads))[0])
        return grad_qkv, None, None


def _rows_at_a_time(qkv: Tensor, num_heads: int) -> int:
    _, length, width = qkv.shape
    return max(1, CHUNK // (length * (width + num_heads * length)))


def _by_heads(x: Tensor, num_heads: int) -> Tensor:
    return rearrange(x, "r l (heads d) -> r heads l d", heads=num_heads)


def _attend(qkv: Tensor, num_heads: int, causal: bool) -> Tensor:
    """(R, L, 3D) -> (R, heads, L, D / heads)."""
    with torch.autocast("cpu", enabled=False):
        q, k, v = rearrange(qkv, "r l (parts heads d) -> parts (r heads) l d", parts=3, heads=num_heads)
        scores = torch.baddbmm(q.new_empty(1), q, k.transpose(1, 2), beta=0, alpha=q.shape[2] ** -0.5)
        if causal:
            length = qkv.shape[1]
            scores.masked_fill_(torch.ones(length, length, dtype=torch.bool).triu_(1), -torch.inf)
        return rearrange(torch.bmm(scores.softmax(2), v), "(r heads) l d -> r heads l d", heads=num_heads)
