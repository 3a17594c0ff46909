"""Attention among few tokens on GPUs: the forms there are, and the choice of the fastest one by measurement.

Fused kernels work on tiles of 64 or 128 tokens, and so waste nearly all of a tile on a row of 8. All forms compute the
same function; which is fastest depends on the GPU and on torch, so it is measured where it is used.

Letters: R rows (independent sequences), L tokens of a row, D width.
"""

from __future__ import annotations

import contextlib
import functools
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

MAX_ROWS = 65_535  # of a call: CUDA's limit for a grid (issues 142228 and 146704 of torch)
DEVICE = "cuda"  # type of the devices that this is for
MAX_TOKENS = 64  # of a row to which another form than the fused one may be faster
TILE = 128  # tokens of the rows that are packed into one
RUNS = 20  # of a form in a measured window, of which there are 5


class Shape(NamedTuple):
    """What the fastest form depends on, besides the device."""

    length: int  # L
    width: int  # D
    heads: int
    dtype: str  # such as bfloat16
    causal: bool = False


def key(length: int, width: int, heads: int, dtype: str, causal: bool) -> str:
    """The name of a shape in a run's record."""
    return f"attention {length}x{width}/{heads} {dtype}{' causal' if causal else ''}"


_chosen: dict[str, str] = {}  # forms, by the key of the shape
_noted: dict[Shape, int] = {}  # rows, by shape


def scaled_dot_product(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout_p: float = 0.0, *, causal: bool = False
) -> Tensor:
    """Torch's fused attention, (R, heads, L, D / heads), for any number of rows.

    Args:
        q, k, v: the same R and heads.
        mask: (R or 1, 1, L or 1, L), False where a key is not seen.
        dropout_p: of the weights.
        causal: a query sees the keys up to its own index only.
    """
    if q.device.type != DEVICE or q.shape[0] <= MAX_ROWS:
        return F.scaled_dot_product_attention(q, k, v, mask, dropout_p, is_causal=causal)
    masks = [None] * -(-q.shape[0] // MAX_ROWS) if mask is None else mask.expand(len(q), -1, -1, -1).split(MAX_ROWS)
    parts = zip(q.split(MAX_ROWS), k.split(MAX_ROWS), v.split(MAX_ROWS), masks, strict=True)
    attend = functools.partial(F.scaled_dot_product_attention, dropout_p=dropout_p, is_causal=causal)
    return torch.cat([attend(q, k, v, mask) for q, k, v, mask in parts])


def _by_heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(R, L, 3D) -> three views (R, heads, L, D / heads)."""
    q, k, v = rearrange(qkv, "r l (parts heads d) -> parts r heads l d", parts=3, heads=heads)
    return q, k, v


def fused(qkv: Tensor, heads: int, causal: bool = False) -> Tensor:
    """Torch's fused attention: qkv (R, L, 3D) -> (R, L, D), as all forms."""
    return rearrange(scaled_dot_product(*_by_heads(qkv, heads), causal=causal), "r heads l d -> r l (heads d)")


def packed(qkv: Tensor, heads: int, causal: bool = False) -> Tensor:
    """Several rows as one of up to `TILE` tokens, under a block-diagonal mask: rows lie one after the other."""
    rows, length, width = qkv.shape
    most = max(1, TILE // length)
    together = next(number for number in range(most, 0, -1) if rows % number == 0)
    row = torch.arange(together * length, device=qkv.device)
    seen = row[:, None] // length == row // length
    if causal:
        seen &= row[:, None] >= row
    few = qkv.reshape(rows // together, together * length, width)
    mixed = scaled_dot_product(*_by_heads(few, heads), seen[None, None])
    return rearrange(mixed, "r heads (n l) d -> (r n) l (heads d)", n=together)


def products(qkv: Tensor, heads: int, causal: bool = False) -> Tensor:
    """Scores by batched products of matrices; they are kept for the backward pass."""
    q, k, v = _by_heads(qkv, heads)
    return _weigh(q @ k.transpose(2, 3), v, q.shape[3], causal, lambda weights: weights.to(v.dtype) @ v)


def pointwise(qkv: Tensor, heads: int, causal: bool = False) -> Tensor:
    """Scores by multiplication and sums, which a compiler makes one kernel of; in fp32, as a fused kernel."""
    q, k, v = (x.float() for x in _by_heads(qkv, heads))
    scores = (q[:, :, :, None] * k[:, :, None]).sum(4)
    mixed = _weigh(scores, v, q.shape[3], causal, lambda weights: (weights[..., None] * v[:, :, None]).sum(3))
    return mixed.to(qkv.dtype)


def _weigh(scores: Tensor, v: Tensor, size: int, causal: bool, mix: Callable[[Tensor], Tensor]) -> Tensor:
    """Scores (R, heads, L, L) before their division by the root of `size` -> (R, L, D), by `mix` of the weights."""
    scores = scores.float() * size**-0.5
    if causal:
        later = torch.ones(scores.shape[2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    return rearrange(mix(scores.softmax(3)), "r heads l d -> r l (heads d)")


@functools.cache
def _compile() -> Callable[[Tensor, int, bool], Tensor]:
    return torch.compile(pointwise)  # seconds: not at import of this file


def compiled(qkv: Tensor, heads: int, causal: bool = False) -> Tensor:
    """`pointwise`, compiled for L and D and any number of rows; inside a compiled block it becomes a part of that."""
    if torch.compiler.is_compiling():
        return pointwise(qkv, heads, causal)
    torch._dynamo.maybe_mark_dynamic(qkv, 0)
    for dimension in (1, 2):
        torch._dynamo.mark_static(qkv, dimension)
    return _compile()(qkv, heads, causal)


FORMS: Mapping[str, Callable[[Tensor, int, bool], Tensor]] = {
    "fused": fused, "packed": packed, "products": products, "compiled": compiled,
}  # fmt: skip


def mix(qkv: Tensor, heads: int, causal: bool) -> Tensor | None:
    """Attention by the form that was chosen for this shape: qkv (R, L, 3D) -> (R, L, D); None: it is the fused one."""
    if qkv.device.type != DEVICE or qkv.shape[1] > MAX_TOKENS:
        return None
    shape = Shape(qkv.shape[1], qkv.shape[2] // 3, heads, str(qkv.dtype).removeprefix("torch."), causal)
    if not torch.compiler.is_compiling():
        _noted[shape] = max(_noted.get(shape, 0), qkv.shape[0])
    name = _chosen.get(key(*shape), "fused")
    return None if name == "fused" else FORMS[name](qkv, heads, causal)


def noted() -> dict[Shape, int]:
    """The shapes that passes of this process had so far outside of compiled programs, with the most rows of each."""
    return dict(_noted)


def choose(shape: Shape, rows: int, device: torch.device, *, seconds: Callable[..., float] | None = None) -> str:
    """The name of the form that takes the least time for a forward and a backward pass.

    Args:
        shape: of the rows.
        rows: R, as in the training to come.
        device: where.
        seconds: measures a call; by default the median of windows of `RUNS` calls.
    """
    length, width, heads, dtype, causal = shape
    qkv = torch.randn(rows, length, 3 * width, device=device, dtype=getattr(torch, dtype), requires_grad=True)
    grad = torch.randn(rows, length, width, device=device, dtype=qkv.dtype)
    found = {}
    for name, form in FORMS.items():
        with contextlib.suppress(RuntimeError):  # no compiler, no memory, no kernel for this GPU
            run = lambda form=form: torch.autograd.grad(form(qkv, heads, causal), qkv, grad)  # noqa: E731
            run()
            found[name] = (seconds or _seconds)(run, device)
    return min(found, key=found.__getitem__, default="fused")


def _seconds(run: Callable[[], Any], device: torch.device) -> float:
    wait = functools.partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
    times = []
    for _ in range(5):
        wait()
        start = time.perf_counter()
        for _ in range(RUNS):
            run()
        wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def use_forms(forms: Mapping[str, str]) -> None:
    """Compute with these forms, by the key of the shape, and for other shapes with the fused one."""
    _chosen.clear()
    _chosen.update({shape: name for shape, name in forms.items() if name in FORMS})
