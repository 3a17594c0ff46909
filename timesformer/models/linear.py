"""Linear layers of the blocks: with weights laid out for a CPU when no gradient is asked for, and two in a row as one.

Letters: R rows (independent sequences), L tokens of a row, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from timesformer.models.drop_path import DropPath


class Ready(NamedTuple):
    """A linear map that is kept for passes without gradients.

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
            x = x.to(self.weight.dtype)
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "gelu" if gelu else "none", [], "none")
        x = F.linear(x, self.weight, self.bias)
        return F.gelu(x) if gelu else x


@register_flop_formula(torch.ops.mkldnn._linear_pointwise)
def _flops_of_packed(x_shape: torch.Size, weight_shape: torch.Size, *_: Any, **__: Any) -> int:
    """Operations as torch's counter counts those of a plain product."""
    return 2 * x_shape.numel() * weight_shape[0]


class Keeping(nn.Module):
    """A module that keeps a linear map while no gradients are computed, until a weight of it changes.

    Changes are what torch counts: all but those inside `.data`, after which `eval()` or `train()` makes it forget; so
    does the next pass with gradients. Several processes keep nothing, since sharded weights are gathered into the same
    memory uncounted.
    """

    _kept: tuple[list[Any], tuple[Tensor | None, ...], Ready] | None = None

    def _ready(self, x: Tensor, sources: tuple[Tensor | None, ...], make: Callable[[], Any]) -> Ready | None:
        """What `make` gives, weight and bias computed from `sources`, for the input `x`; None where nothing is kept."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return None
        if torch.is_grad_enabled():
            self._kept = None
            return None
        tensors = [tensor for tensor in sources if tensor is not None]
        alone = not (dist.is_available() and dist.is_initialized())
        if not alone or any(tensor.is_inference() for tensor in tensors):
            return None
        device = x.device.type
        cast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if cast else x.dtype
        key = [*map(id, sources), *((tensor.data_ptr(), tensor._version) for tensor in tensors), dtype]
        if self._kept is None or self._kept[0] != key:
            with torch.autocast(device, enabled=False) if cast else nullcontext():
                weight, bias = make()
                packed = device == "cpu" and _can_pack(dtype) and (cast or weight.dtype == dtype)
                if packed:
                    bias = None if bias is None else bias.to(dtype)
                    weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(dtype).contiguous())
            self._kept = key, sources, Ready(weight, bias, packed)  # the sources, so that no other gets the id of one
        return self._kept[2]

    def train(self, mode: bool = True) -> Keeping:
        self._kept = None
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Keeping:  # moved or cast: the same tensors, other values
        self._kept = None
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:  # copies and pickles start without
        return self.__dict__ | {"_kept": None}


def _can_pack(dtype: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkldnn.enabled:
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


class Linear(Keeping, nn.Linear):
    """`nn.Linear`, whose weights a CPU keeps packed while no gradients are computed."""

    def forward(self, x: Tensor, *, gelu: bool = False) -> Tensor:
        """(..., in) -> (..., out), with an exact GELU after it if wanted."""
        ready = None
        if x.device.type == "cpu":  # elsewhere there is nothing to keep
            ready = self._ready(x, (self.weight, self.bias), lambda: (self.weight, self.bias))
        return (ready or Ready(self.weight, self.bias, packed=False))(x, gelu=gelu)


class LinearPair(Keeping):
    """Two linear maps with nothing but stochastic depth between them, as one: W2 (W1 x + b1) + b2 = (W2 W1) x + ...

    The maps stay where they are and keep their names; this module has no parameters. Their product is taken once a
    pass while gradients are computed; without, it is kept.
    """

    def forward(
        self, x: Tensor, first: nn.Linear, second: nn.Linear, *, dropout: nn.Dropout, drop_path: DropPath
    ) -> Tensor:
        """(R, L, D) -> (R, L, D), which is `second(drop_path(dropout(first(x))))`."""
        if dropout.training and dropout.p > 0.0:
            return second(drop_path(dropout(first(x))))
        factor = drop_path.row_factor(x)
        if factor is None:
            sources = (first.weight, first.bias, second.weight, second.bias)
            ready = self._ready(
                x, sources, lambda: (second.weight @ first.weight, F.linear(first.bias, second.weight, second.bias))
            )
            if ready is not None:
                return ready(x)
        if x.numel() <= x.shape[-1] ** 2:  # fewer tokens than the width: the product is more work than it saves
            x = first(x)
            return second(x if factor is None else x * factor)
        weight, bias = second.weight @ first.weight, F.linear(first.bias, second.weight)
        if factor is None:
            return F.linear(x, weight, bias + second.bias)
        x = F.linear(x, weight, bias)  # dropped rows still get the second bias, and only that
        return torch.addcmul(second.bias.to(x.dtype), x, factor.to(x.dtype))
