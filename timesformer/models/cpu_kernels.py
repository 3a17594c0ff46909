"""Faster forms of operations on CPUs: linear maps by oneDNN, forward and in training, and attention among few tokens.

They compute the same function as torch's own forms, up to rounding. Which form is faster depends on CPU and shape: a
run measures it (`measured_forms`), takes it (`use_forms`) and keeps it in its checkpoints, so that it computes the same
bits when it resumes. Without a measurement attention follows a table, weights are packed for passes without gradients,
and training computes linear maps as torch does.

Letters: R rows (independent sequences), L tokens of a row, D width.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

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
MEASURED_QKV = 4_000_000  # queries, keys and values when forms are compared: beyond the caches, as in training
MEASURED_INPUTS = 1_000_000  # of a linear map: milliseconds
LEAST_WORK = 2**23  # multiply-accumulates of a linear map below which a convolution costs more than it gains
LEAST_SEC = 5e-4  # that a form is called for
LEAST_GAIN = 1.05  # times as fast as torch's form that ours is where it is used: two measurements differ by less
EDITION = 2  # of the forms of this module: other ones are measured again

Forms: TypeAlias = tuple[Callable[[], object], Callable[[], object]]  # our form of an operation, and torch's

_forms: dict[str, bool] = {}  # by the operation's key: whether the form of this module is used
_torch_only = False  # whether no form of this module is used
_noted: dict[str, torch.Size] | None = None  # inside `_noting`: shapes of queries, keys and values, and of weights

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
    """Whether the forms of this module take clearly less CPU time than torch's, for each operation of the model.

    Args:
        shell: the model without values (see `summary.without_values`).
        input_shape: (C, T, H, W) of a clip.
        clips: of a forward pass.
        dtype: that it computes in.
        store: a file that keeps the results, so that all runs on such a machine choose alike; unreadable: it is made.
    """
    with torch.no_grad(), _noting() as shapes:
        shell.eval()(torch.empty(1, *input_shape, device="meta"))
    operations: dict[str, Callable[[], Forms]] = {}  # made when they are measured: they hold tensors
    for key, shape in shapes.items():
        if key.startswith("linear"):
            if can_pack(dtype):
                operations[linear_key(shape, dtype)] = partial(packed_forms, shape, dtype)
            if can_convolve(dtype):
                operations[linear_key(shape, dtype, packed=False)] = partial(convolution_forms, shape)
            continue
        rows, length, width = shape
        heads = int(key.rpartition("/")[2])
        rows = max(1, min(clips * rows, MEASURED_QKV // (length * width)))
        make_qkv = partial(_random, rows, length, width, dtype=dtype)
        for training in (False, True):
            operations[_name(key, dtype, training=training)] = partial(_attention, make_qkv, heads, training)
    machine = machine_name()
    before = _stored(store).get(machine, {})
    measured = {name: _is_faster(*make()) for name, make in operations.items() if name not in before}
    known = _stored(store)  # again: of runs that started with this one the first decides for all
    known[machine] = measured | known.get(machine, {})
    if measured and store is not None:
        with contextlib.suppress(OSError):  # then the next run measures again
            store.parent.mkdir(parents=True, exist_ok=True)
            write_whole(store, json.dumps(known, indent=1).encode())
    return {name: known[machine][name] for name in operations}


def _attention(make_qkv: Callable[[], Tensor], heads: int, training: bool) -> Forms:
    return attention_forms(make_qkv(), heads, training=training)


def attention_forms(qkv: Tensor, heads: int, *, training: bool) -> Forms:
    """Our form and torch's for qkv (R, L, 3D), a leaf; in training with the backward pass."""
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


def packed_forms(shape: torch.Size, dtype: torch.dtype) -> Forms:
    """A product with packed weights (out, in) and one with plain weights, which are cast at each pass."""
    weight, x = _random(*shape), _random(max(1, MEASURED_INPUTS // shape[1]), shape[1], dtype=dtype)
    packed = pack(weight.to(dtype))
    return lambda: packed_linear(x, packed, None), lambda: F.linear(x, weight.to(dtype))


def convolution_forms(shape: torch.Size) -> Forms:
    """A linear map with weights (out, in) and its backward pass, as a convolution and as torch's."""
    weight, x = _random(*shape), _random(max(1, MEASURED_INPUTS // shape[1]), shape[1])
    bias, grad = _random(shape[0]), _random(len(x), shape[0])
    inputs = [tensor.requires_grad_() for tensor in (x, weight, bias)]

    def run(form: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[], object]:
        def whole() -> object:
            with torch.enable_grad():
                return torch.autograd.grad(form(x, weight, bias), inputs, grad)

        return whole

    return run(convolved_linear), run(F.linear)


def cpu_seconds(
    own: Callable[[], object],
    torchs: Callable[[], object],
    *,
    repeats: int = REPEATS,
    of: Callable[[list[float]], float] = min,
) -> tuple[float, float]:
    """CPU time of a call of each, in turn: the least of several, since other programs can only add to it."""
    own(), torchs()
    start = time.process_time()
    torchs()
    calls = max(1, int(LEAST_SEC / max(1e-6, time.process_time() - start)))
    spent: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for form, times in zip((own, torchs), spent, strict=True):
            start = time.process_time()
            for _ in range(calls):
                form()
            times.append((time.process_time() - start) / calls)
    own_sec, torchs_sec = map(of, spent)
    return own_sec, torchs_sec


def _is_faster(own: Callable[[], object], torchs: Callable[[], object]) -> bool:
    own_sec, torchs_sec = cpu_seconds(own, torchs)
    return LEAST_GAIN * own_sec < torchs_sec


def _random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Numbers that take none from the generator of the run."""
    return torch.randn(*shape, generator=torch.Generator()).to(dtype)


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
    return f"{cpu_name()}, {capability}, torch {torch.__version__}, {torch.get_num_threads()} threads, forms {EDITION}"


def _stored(store: Path | None) -> dict[str, dict[str, bool]]:
    known = None
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(store.read_text()) if store is not None else None
    return known if isinstance(known, dict) and all(isinstance(each, dict) for each in known.values()) else {}


def _name(key: str, dtype: torch.dtype, *, training: bool) -> str:
    return f"{key} {str(dtype).removeprefix('torch.')} {'training' if training else 'forward'}"


def linear_key(shape: torch.Size, dtype: torch.dtype, *, packed: bool = True) -> str:
    """The name in `use_forms` of a linear map with weights of this shape, packed or as a convolution."""
    name = f"linear {'x'.join(map(str, shape))} {str(dtype).removeprefix('torch.')}"
    return name if packed else f"{name} convolution"


def gains_by_packing(weight: Tensor, dtype: torch.dtype) -> bool:
    """Whether packed weights are the faster form of a linear map."""
    return not _torch_only and can_pack(dtype) and _forms.get(linear_key(weight.shape, dtype), True)


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


def can_convolve(dtype: torch.dtype) -> bool:
    """Whether training may compute linear maps as convolutions by oneDNN here."""
    return dtype == torch.float32 and torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(..., in) -> (..., out): a linear map without packed weights, in the form that was measured to be faster."""
    if _noted is not None:
        _noted[f"linear {tuple(weight.shape)}"] = weight.shape
    return (convolved_linear if _suits_convolution(x, weight) else F.linear)(x, weight, bias)


def _suits_convolution(x: Tensor, weight: Tensor) -> bool:
    if x.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    if _torch_only or torch.is_autocast_enabled("cpu"):
        return False
    if x.dtype != weight.dtype or x.numel() * weight.shape[0] < LEAST_WORK:
        return False
    return _forms.get(linear_key(weight.shape, x.dtype, packed=False), False)


def convolved_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear map (..., in) -> (..., out) as a convolution with one pixel, forward and backward by oneDNN.

    Products of matrices in fp32 go to MKL instead, which on AMD CPUs uses vectors of half the width (AVX2): on Zen 5
    they take 2.1 times as long. With one thread torch would use MKL here too but for the dilation, which changes
    nothing for one pixel.
    """
    pixels = x.reshape(1, 1, -1, x.shape[-1]).permute(0, 3, 1, 2)  # channels last: a view
    out = F.conv2d(pixels, weight[:, :, None, None], bias, dilation=2)
    return out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)


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
    """Attention with explicit scores, a few rows at a time.

    The backward pass computes the scores of long rows again; those of short ones are small, and kept.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, num_heads: int, causal: bool = False) -> Tensor:
        """(R, L, 3D) -> (R, L, D)."""
        ctx.num_heads, ctx.causal = num_heads, causal
        out = qkv.new_empty(*qkv.shape[:2], qkv.shape[2] // 3)
        parts = _parts(qkv, num_heads)
        kept = torch.empty(parts.shape, dtype=qkv.dtype) if ctx.needs_input_grad[0] else None
        all_weights = []
        for rows in _chunks(qkv, num_heads):
            few = parts[:, rows].contiguous() if kept is None else kept[:, rows].copy_(parts[:, rows])
            q, k, v = few.flatten(1, 2)
            weights = _weights(q, k, causal)
            _by_heads(out[rows], num_heads).copy_(_product(weights, v).unflatten(0, (-1, num_heads)))
            if kept is not None and _keeps_weights(q):
                all_weights.append(weights)
        if kept is not None:
            ctx.save_for_backward(kept, *all_weights)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """(R, L, D) -> (R, L, 3D)."""
        kept, *all_weights = ctx.saved_tensors
        grad_qkv = grad.new_empty(*grad.shape[:2], 3 * grad.shape[2])
        parts = _parts(grad_qkv, ctx.num_heads)
        for index, rows in enumerate(_chunks(grad_qkv, ctx.num_heads)):
            q, k, v = kept[:, rows].flatten(1, 2)
            weights = all_weights[index] if all_weights else _weights(q, k, ctx.causal)
            mixed = _by_heads(grad[rows], ctx.num_heads).flatten(0, 1)
            scores = torch._softmax_backward_data(_product(mixed, v.transpose(1, 2)), weights, 2, weights.dtype)
            scale = q.shape[2] ** -0.5
            of_q, of_k = _product(scores, k, scale), _product(scores.transpose(1, 2), q, scale)
            gradients = of_q, of_k, _product(weights.transpose(1, 2), mixed)
            for part, gradient in zip(parts[:, rows], gradients, strict=True):
                part.copy_(gradient.unflatten(0, (-1, ctx.num_heads)))
        return grad_qkv, None, None


def _chunks(qkv: Tensor, num_heads: int) -> Iterator[slice]:
    """Rows of (R, L, 3D) whose queries, keys, values and scores stay in the cache."""
    num_rows, length, width = qkv.shape
    few = max(1, CHUNK // (length * (width + num_heads * length)))
    return (slice(start, start + few) for start in range(0, num_rows, few))


def _keeps_weights(q: Tensor) -> bool:
    """Whether the weights are at most a quarter of queries (rows, L, D / heads), keys and values."""
    return 4 * q.shape[1] <= 3 * q.shape[2]


def _parts(qkv: Tensor, num_heads: int) -> Tensor:
    """(R, L, 3D) -> a view (3, R, heads, L, D / heads)."""
    return rearrange(qkv, "r l (parts heads d) -> parts r heads l d", parts=3, heads=num_heads)


def _by_heads(x: Tensor, num_heads: int) -> Tensor:
    return rearrange(x, "r l (heads d) -> r heads l d", heads=num_heads)


def _weights(q: Tensor, k: Tensor, causal: bool) -> Tensor:
    """(rows, L, D / heads) each -> (rows, L, L)."""
    scores = _product(q, k.transpose(1, 2), q.shape[2] ** -0.5)
    if causal:
        length = q.shape[1]
        scores.masked_fill_(torch.ones(length, length, dtype=torch.bool).triu_(1), -torch.inf)
    return scores.softmax(2)


def _product(a: Tensor, b: Tensor, scale: float = 1.0) -> Tensor:
    """`scale` * a b for each row, in the precision that they have."""
    with torch.autocast("cpu", enabled=False):
        return torch.baddbmm(a.new_empty(1), a, b, beta=0, alpha=scale)
