"""What a pass of a model computes with: device, precision, mode."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from timesformer.utils.errors import ConfigError

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_precision(wanted: str, device: torch.device, *, sharded: bool = False) -> tuple[str, str]:
    """The precision that `PRECISION` means on a device, and why.

    Args:
        wanted: auto takes what the device multiplies fastest of what training takes.
        sharded: under FSDP2, which does without fp16 (see `config/check.py`).

    Raises:
        ConfigError: fp16 without a GPU.
    """
    if wanted == "fp16" and device.type != "cuda":
        raise ConfigError("PRECISION fp16 needs a GPU. Add: PRECISION bf16 (or fp32)")
    if wanted != "auto":
        return wanted, f"PRECISION {wanted}"
    if device.type != "cuda":
        if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
            return "bf16", "PRECISION auto: this CPU multiplies it"
        return "fp32", "PRECISION auto: this CPU has neither avx512_bf16 nor AMX"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16", "PRECISION auto: this GPU multiplies it"
    if torch.cuda.get_device_capability(device)[0] == 7 and not sharded:
        return "fp16", "PRECISION auto: this GPU has no bf16"
    return "fp32", f"PRECISION auto: this GPU has no bf16, and fp16 is {'not for fsdp' if sharded else 'slow'}"


def autocast_dtype(precision: str, device: torch.device, *, sharded: bool = False) -> torch.dtype | None:
    """The dtype of autocast for `PRECISION`, None for plain fp32; see `choose_precision`."""
    return PRECISIONS[choose_precision(precision, device, sharded=sharded)[0]]


def autocast(device: torch.device, dtype: torch.dtype | None) -> contextlib.AbstractContextManager[None]:
    """An autocast context, or nothing for fp32."""
    if dtype is None:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


@contextlib.contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """The model in eval mode; afterwards every module is in its own mode again (frozen ones may stay in eval)."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
