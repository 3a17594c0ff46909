"""Multi-head attention among the tokens of rows.

Letters: R rows (independent sequences), L tokens of a row, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from timesformer.models import gpu_kernels
from timesformer.models.cpu_kernels import PlainAttention, linear, suits_plain_attention
from timesformer.models.linear import Linear

Projected: TypeAlias = "Tensor | tuple[Tensor, Tensor, Tensor]"  # qkv (R, L, 3D), or q, k, v (R, heads, L, D / heads)


class Weighing(NamedTuple):
    """What one call of `Attention.attend` got and gave.

    Attributes:
        q, k, v: (R, heads, L, D / heads).
        key_mask: (R, L) or (1, L), False where a key is not seen; None: all are.
        causal: a query sees the keys up to its own index only.
        mixed: (R, queries, D).
    """

    q: Tensor
    k: Tensor
    v: Tensor
    key_mask: Tensor | None
    causal: bool
    mixed: Tensor


@contextmanager
def recorded_attention(model: nn.Module) -> Iterator[dict[nn.Module, list[Weighing]]]:
    """Inside, every attention of `model` keeps what it weighs, by module and in the order of the calls."""
    modules = [module for module in model.modules() if isinstance(module, Attention)]
    for module in modules:
        module.recorded = []
    try:
        yield {module: module.recorded for module in modules if module.recorded is not None}
    finally:
        for module in modules:
            module.recorded = None


class Attention(nn.Module):
    """Multi-head self-attention among the tokens of each row.

    The blocks call this module for every attention of every scheme, so that forward hooks see its input: the normed
    rows (R, L, D), the cls token first where it takes part.
    """

    recorded: list[Weighing] | None = None  # inside `recorded_attention`

    def __init__(self, dim: int, num_heads: int, *, qkv_bias: bool, attn_drop: float, proj_drop: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attn_drop = attn_drop
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(
        self,
        x: Tensor | None,
        *,
        key_mask: Tensor | None = None,
        first_only: bool = False,
        mix: Callable[[Tensor], Tensor] | None = None,
        project_out: Callable[..., Tensor] | None = None,
        projected: Projected | None = None,
    ) -> Tensor:
        """Rows (R, L, D) -> (R, L, D).

        Args:
            x: the rows; None when `projected` is given.
            key_mask: (R, L), False where a key is not to be seen; None: all are.
            first_only: compute the first token of each row only, (R, 1, D).
            mix: weighs the values in another way: qkv (R, L, 3D) -> (..., D).
            project_out: in place of the output projection; called with the weighed values, `proj` and `proj_drop`.
            projected: what `project` gives, where it was computed before.
        """
        if projected is None:
            assert x is not None
            projected = self.project(x, first_only=first_only)
        if isinstance(projected, tuple):
            mixed = self.attend(*projected, key_mask)
        else:
            mixed = self.mix(projected, key_mask) if mix is None else mix(projected)
        if project_out is not None:
            return project_out(mixed, self.proj, dropout=self.proj_drop)
        out: Tensor = self.proj_drop(self.proj(mixed))
        return out

    def project(self, x: Tensor, *, first_only: bool = False) -> Projected:
        """(R, L, D) -> qkv (R, L, 3D); with `first_only` the first token's q (R, heads, 1, D / heads), and all k, v."""
        if not first_only:
            return self.qkv(x)  # type: ignore[no-any-return]
        width, weight, bias = x.shape[2], self.qkv.weight, self.qkv.bias
        q = F.linear(x[:, :1], weight[:width], None if bias is None else bias[:width])
        kv = linear(x, weight[width:], None if bias is None else bias[width:])
        k, v = split_heads(kv, self.num_heads, 2)
        return split_heads(q, self.num_heads, 1)[0], k, v

    def mix(self, qkv: Tensor, key_mask: Tensor | None = None, *, causal: bool = False) -> Tensor:
        """Queries, keys and values (R, L, 3D) -> the values as each query weighs them (R, L, D).

        Args:
            qkv: of the rows.
            key_mask: (R, L), False where a key is not to be seen; None: all are.
            causal: a query sees the keys up to its own index only (not with `key_mask`).
        """
        drops = self.training and self.attn_drop > 0.0
        if key_mask is None and not drops and self.recorded is None:
            if suits_plain_attention(qkv, self.num_heads):
                return PlainAttention.apply(qkv, self.num_heads, causal)  # type: ignore[no-any-return]
            if (mixed := gpu_kernels.mix(qkv, self.num_heads, causal)) is not None:
                return mixed
        q, k, v = split_heads(qkv, self.num_heads)
        return self.attend(q, k, v, key_mask, causal=causal)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None = None, *, causal: bool = False
    ) -> Tensor:
        """Torch's fused attention: queries, keys and values (R, heads, L, D / heads) -> (R, queries, D)."""
        mask = None if key_mask is None else key_mask[:, None, None]
        dropout_p = self.attn_drop if self.training else 0.0
        mixed = gpu_kernels.scaled_dot_product(q, k, v, mask, dropout_p, causal=causal)
        mixed = rearrange(mixed, "r heads l d -> r l (heads d)")
        if self.recorded is not None:
            self.recorded.append(Weighing(q, k, v, key_mask, causal, mixed))
        return mixed

    @property
    def output_is_observed(self) -> bool:
        """Whether a hook wants what this module or its projection computes, which a folded form does not."""
        return bool(self._forward_hooks or self.proj._forward_hooks or self.proj._forward_pre_hooks)


def split_heads(x: Tensor, num_heads: int, parts: int = 3) -> tuple[Tensor, ...]:
    """(R, L, parts * D) -> `parts` views (R, heads, L, D / heads)."""
    return tuple(rearrange(x, "r l (parts heads d) -> parts r heads l d", parts=parts, heads=num_heads))
