"""Linear layers that prepare their weights for passes without gradients, and two linear layers in a row as one.

Letters: R rows (independent sequences), L tokens of a row, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from timesformer.models.cpu_kernels import gains_by_packing, linear, pack, packed_linear
from timesformer.models.drop_path import DropPath


class PreparedWeights(NamedTuple):
    """A linear map for passes without gradients.

    Attributes:
        packed: `weight` is laid out for oneDNN. On an AMD CPU (Zen 4) that takes 0.75 to 0.85 of the time of a plain
            product in fp32, and 0.85 to 0.95 of it in bf16, where the weights need not be cast at every pass besides.
    """

    weight: Tensor
    bias: Tensor | None
    packed: bool

    def __call__(self, x: Tensor, *, gelu: bool = False) -> Tensor:
        """(..., in) -> (..., out), with an exact GELU after it if wanted."""
        if self.packed:
            return packed_linear(x, self.weight, self.bias, gelu=gelu)
        x = linear(x, self.weight, self.bias)
        return F.gelu(x) if gelu else x


class CachesPrepared(nn.Module):
    """A module that keeps prepared weights while no gradients are computed, until a weight changes.

    Changes are what torch counts: all but those inside `.data`, after which `eval()` or `train()` drops the cache; so
    does the next pass with gradients. Several processes cache inside `fixed_weights` only, since sharded weights are
    gathered into the same memory uncounted.
    """

    fixed = False  # whether the weights of all modules stay as they are
    _cached: tuple[list[Any], tuple[Tensor | None, ...], PreparedWeights] | None = None

    def _prepared(
        self, x: Tensor, sources: tuple[Tensor | None, ...], make: Callable[[], Any]
    ) -> PreparedWeights | None:
        """What `make` computes from `sources`, weight and bias, for the input `x`; None where nothing is cached."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return None
        if torch.is_grad_enabled():
            self._cached = None
            return None
        tensors = [tensor for tensor in sources if tensor is not None]
        alone = not (dist.is_available() and dist.is_initialized())
        if not (alone or CachesPrepared.fixed) or any(tensor.is_inference() for tensor in tensors):
            return None
        device = x.device.type
        cast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if cast else x.dtype
        key = [*map(id, sources), *((tensor.data_ptr(), tensor._version) for tensor in tensors), dtype]
        if self._cached is None or self._cached[0] != key:
            with torch.autocast(device, enabled=False) if cast else nullcontext():
                weight, bias = make()
                packed = device == "cpu" and gains_by_packing(weight, dtype) and (cast or weight.dtype == dtype)
                if packed:
                    bias = None if bias is None else bias.to(dtype)
                    weight = pack(weight.to(dtype))
            # with the sources, so that no other tensor gets the id of one
            self._cached = key, sources, PreparedWeights(weight, bias, packed)
        return self._cached[2]

    def train(self, mode: bool = True) -> CachesPrepared:
        self._cached = None
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> CachesPrepared:  # moved or cast: same tensors, other values
        self._cached = None
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:  # copies and pickles start without
        return self.__dict__ | {"_cached": None}


@contextmanager
def fixed_weights(model: nn.Module) -> Iterator[None]:
    """Say that nothing changes weights meanwhile: several processes then compute as one alone does, bit for bit."""
    CachesPrepared.fixed = True
    try:
        yield
    finally:
        CachesPrepared.fixed = False
        for module in model.modules():
            if isinstance(module, CachesPrepared):
                module._cached = None


class Linear(CachesPrepared, nn.Linear):
    """`nn.Linear`, whose weights a CPU keeps packed while no gradients are computed."""

    def forward(self, x: Tensor, *, gelu: bool = False) -> Tensor:
        """(..., in) -> (..., out), with an exact GELU after it if wanted."""
        prepared = None
        if x.device.type == "cpu":  # elsewhere there is nothing to prepare
            prepared = self._prepared(x, (self.weight, self.bias), lambda: (self.weight, self.bias))
        return (prepared or PreparedWeights(self.weight, self.bias, packed=False))(x, gelu=gelu)


class FoldedLinears(CachesPrepared):
    """Two linear maps with nothing but stochastic depth between them, as one: W2 (W1 x + b1) + b2 = (W2 W1) x + ...

    The maps stay where they are and keep their names; this module has no parameters. Their product is computed once a
    pass while gradients are computed; without gradients it is cached.
    """

    def forward(
        self, x: Tensor, first: nn.Linear, second: nn.Linear, *, dropout: nn.Dropout, drop_path: DropPath
    ) -> Tensor:
        """(R, L, D) -> (R, L, D), which is `second(drop_path(dropout(first(x))))`."""
        if dropout.training and dropout.p > 0.0:
            return second(drop_path(dropout(first(x))))  # type: ignore[no-any-return]
        factor = drop_path.row_factor(x)
        if factor is None:
            sources = (first.weight, first.bias, second.weight, second.bias)
            prepared = self._prepared(
                x, sources, lambda: (second.weight @ first.weight, F.linear(first.bias, second.weight, second.bias))
            )
            if prepared is not None:
                return prepared(x)
        few = not torch.compiler.is_compiling() and x.numel() <= x.shape[-1] ** 2  # a graph serves every batch size
        if few:  # fewer tokens than the width: the product is more work than it saves
            x = first(x)
            return second(x if factor is None else x * factor)  # type: ignore[no-any-return]
        weight, bias = linear(second.weight, first.weight.t()), F.linear(first.bias, second.weight)
        if factor is None:
            return linear(x, weight, bias + second.bias)
        x = linear(x, weight, bias)  # dropped rows still get the second bias, and only that
        return torch.addcmul(second.bias.to(x.dtype), x, factor.to(x.dtype))
