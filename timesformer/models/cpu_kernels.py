"""Faster forms of two operations on CPUs: linear maps with packed weights, and attention among few tokens.

Both compute the same function as torch's own forms, up to rounding. Which form is faster depends on CPU and shape: a
run measures it (`measured_forms`), takes it (`use_forms`) and keeps it in its checkpoints, so that it computes the same
bits when it resumes. Without a measurement attention follows a table, and weights are packed.

Letters: R rows (independent sequences), L tokens of a row, D width.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from timesformer.utils.env import cpu_name
from timesformer.utils.files import write_whole

# Rows of up to so many tokens are attended to with plain matrix products, a few rows at a time; longer ones by torch's
# fused attention. Measured on an AMD CPU (Zen 4), time of the fused form over that of the plain one, forward and with
# the backward pass: bf16 2.1 and 1.5 at 8 tokens, 2.3 and 2.8 at 32, 1.6 and 1.7 at 197, 0.8 forward at 1569; fp32 1.9
# and 1.5 at 8, 0.9 and 0.8 at 197.
MAX_TOKENS = {torch.float32: 8, torch.bfloat16: 512}
CHUNK = 8_000_000  # numbers of queries, keys, values and scores at a time: they stay in the cache

NAMES = {True: "own form", False: "torch's"}
REPEATS = 7  # of each form when they are compared
MEASURED_NUMBERS = 1_000_000  # of queries, keys and values, or of inputs, when they are compared: milliseconds
LEAST_SEC = 5e-4  # that a form is called for

_forms: dict[str, bool] = {}  # by the operation's key: whether the form of this module is used
_torch_only = False  # whether no form of this module is used
_noted: dict[str, torch.Size] | None = None  # shapes of queries, keys and values that came, inside `_noting`

# oneDNN's operators are private to torch, and builds for Apple's processors have none.
_HAS_PACKED = all(hasattr(torch.ops.mkldnn, name) for name in ("_linear_pointwise", "_reorder_linear_weight"))


def use_forms(forms: Mapping[str, bool] | None) -> None:
    """Use these forms in this process, for other operations those of the table; None: torch's own only."""
    global _torch_only
    _forms.clear()
    _forms.update(forms or {})
    _torch_only = forms is None


def measured_forms(
    shell: nn.Module, input_shape: Sequence[int], *, clips: int, dtype: torch.dtype, store: Path | None = None
) -> dict[str, bool]:
    """Whether the forms of this module take less CPU time than torch's, for each operation of the model.

    Args:
        shell: the model without values (see `summary.without_values`).
        input_shape: (C, T, H, W) of a clip.
        clips: of a forward pass.
        dtype: that it computes in.
        store: a file that keeps the results, so that all runs on such a machine choose alike; unreadable: it is made.
    """
    with torch.no_grad(), _noting() as shapes:
        shell.eval()(torch.empty(1, *input_shape, device="meta"))
    operations: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {}
    for key, (rows, length, width) in shapes.items():
        heads = int(key.rpartition("/")[2])
        rows = max(1, min(clips * rows, MEASURED_NUMBERS // (length * width)))
        qkv = _random(rows, length, width).to(dtype)
        operations[_name(key, dtype, training=False)] = attention_forms(qkv, heads, training=False)
        operations[_name(key, dtype, training=True)] = attention_forms(qkv, heads, training=True)
    for module in shell.modules():
        if isinstance(module, nn.Linear) and hasattr(module, "_prepared") and can_pack(dtype):
            operations[linear_key(module.weight, dtype)] = _linears(module.weight.shape, dtype)
    machine = machine_name()
    before = _stored(store).get(machine, {})
    measured = {name: _is_faster(*forms) for name, forms in operations.items() if name not in before}
    known = _stored(store)  # again: of runs that started with this one the first decides for all
    known[machine] = measured | known.get(machine, {})
    if measured and store is not None:
        with contextlib.suppress(OSError):  # then the next run measures again
            store.parent.mkdir(parents=True, exist_ok=True)
            write_whole(store, json.dumps(known, indent=1).encode())
    return {name: known[machine][name] for name in operations}


def attention_forms(qkv: Tensor, heads: int, *, training: bool) -> tuple[Callable[[], object], Callable[[], object]]:
    """Our form and torch's; in training with the backward pass."""
    qkv.requires_grad_(training)

    def run(form: Callable[[], Tensor]) -> Callable[[], object]:
        def whole() -> object:
            with torch.set_grad_enabled(training):
                out = form()
            return torch.autograd.grad(out, qkv, out.detach()) if training else out

        return whole

    def fused() -> Tensor:
        q, k, v = rearrange(qkv, "r l (parts heads d) -> parts r heads l d", parts=3, heads=heads)
        return rearrange(F.scaled_dot_product_attention(q, k, v), "r heads l d -> r l (heads d)")

    return run(lambda: PlainAttention.apply(qkv, heads)), run(fused)  # type: ignore[no-any-return]


def _linears(shape: torch.Size, dtype: torch.dtype) -> tuple[Callable[[], object], Callable[[], object]]:
    """A product with packed weights (out, in) and one with plain weights, which are cast at each pass."""
    weight, x = _random(*shape), _random(max(1, MEASURED_NUMBERS // shape[1]), shape[1]).to(dtype)
    packed = pack(weight.to(dtype))
    return lambda: packed_linear(x, packed, None), lambda: F.linear(x, weight.to(dtype))


def cpu_seconds(own: Callable[[], object], torchs: Callable[[], object]) -> tuple[float, float]:
    """CPU time of a call of each: medians of calls in turn."""
    own(), torchs()
    start = time.process_time()
    torchs()
    calls = max(1, int(LEAST_SEC / max(1e-6, time.process_time() - start)))
    spent: tuple[list[float], list[float]] = ([], [])
    for _ in range(REPEATS):
        for form, times in zip((own, torchs), spent, strict=True):
            start = time.process_time()
            for _ in range(calls):
                form()
            times.append((time.process_time() - start) / calls)
    own_sec, torchs_sec = map(statistics.median, spent)
    return own_sec, torchs_sec


def _is_faster(own: Callable[[], object], torchs: Callable[[], object]) -> bool:
    own_sec, torchs_sec = cpu_seconds(own, torchs)
    return own_sec < torchs_sec


def _random(*shape: int) -> Tensor:
    """Numbers that take none from the generator of the run."""
    return torch.randn(*shape, generator=torch.Generator())


@contextlib.contextmanager
def _noting() -> Iterator[dict[str, torch.Size]]:
    global _noted
    _noted = {}
    try:
        yield _noted
    finally:
        _noted = None


def machine_name() -> str:
    """What decides which form is faster."""
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{cpu_name()}, {capability}, torch {torch.__version__}, {torch.get_num_threads()} threads"


def _stored(store: Path | None) -> dict[str, dict[str, bool]]:
    known = None
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(store.read_text()) if store is not None else None
    return known if isinstance(known, dict) and all(isinstance(each, dict) for each in known.values()) else {}


def _name(key: str, dtype: torch.dtype, *, training: bool) -> str:
    return f"{key} {str(dtype).removeprefix('torch.')} {'training' if training else 'forward'}"


def linear_key(weight: Tensor, dtype: torch.dtype) -> str:
    """The name of a linear map in `use_forms`."""
    return f"linear {'x'.join(map(str, weight.shape))} {str(dtype).removeprefix('torch.')}"


def gains_by_packing(weight: Tensor, dtype: torch.dtype) -> bool:
    """Whether packed weights are the faster form of a linear map."""
    return not _torch_only and can_pack(dtype) and _forms.get(linear_key(weight, dtype), True)


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


def suits_plain_attention(qkv: Tensor, num_heads: int) -> bool:
    """Whether `PlainAttention` is the faster form for queries, keys and values (R, L, 3D).

    Never while a program is recorded: a trace would lose what is written into its output.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    _, length, width = qkv.shape
    key = f"attention {length}x{width // 3}/{num_heads}"
    if _noted is not None:
        _noted[key] = qkv.shape
    if qkv.device.type != "cpu" or _torch_only:
        return False
    training = torch.is_grad_enabled() and qkv.requires_grad
    return _forms.get(_name(key, qkv.dtype, training=training), length <= MAX_TOKENS.get(qkv.dtype, 0))


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
