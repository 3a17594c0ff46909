"""What a pass of a model computes with: device, precision, mode."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import nn

from timesformer.utils.errors import ConfigError

PRECISIONS = {"fp32": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
ON_GPUS = ("tf32", "fp16")  # those that a CPU does not have


def choose_device(requested: str = "auto") -> torch.device:
    """The device of a name such as cpu, cuda:1, mps or xpu; auto is this machine's accelerator, without one the CPU.

    Raises:
        ConfigError: this machine has no such device.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    count = torch.accelerator.device_count() if accelerator else 0
    if requested == "auto":
        return accelerator or torch.device("cpu")
    with contextlib.suppress(RuntimeError):  # not the name of a device
        device = torch.device(requested)
        if device.type == "cpu" or (accelerator and device.type == accelerator.type and (device.index or 0) < count):
            return device
    allowed = ["auto", "cpu", *(f"{accelerator.type}:{i}" for i in range(count) if accelerator)]
    raise ConfigError(f"this machine has no device {requested!r}. Allowed: {', '.join(allowed)}")


def choose_precision(requested: str, device: torch.device, *, sharded: bool = False) -> tuple[str, str]:
    """The precision that `PRECISION` means on a device, and why.

    Args:
        requested: auto is the fastest that training can use on this device.
        sharded: under FSDP2, which does without fp16 (see `config/check.py`).

    Raises:
        ConfigError: fp16 on a CPU, or tf32 where there is none.
    """
    kind = device.type
    if requested == "tf32" and (kind != "cuda" or torch.cuda.get_device_capability(device)[0] < 8):
        raise ConfigError("PRECISION tf32 needs an NVIDIA GPU of compute capability 8 or later. Add: PRECISION fp32")
    if requested == "fp16" and kind == "cpu":
        raise ConfigError("PRECISION fp16 needs a GPU. Add: PRECISION bf16 (or fp32)")
    if requested != "auto":
        return requested, f"PRECISION {requested}"
    why = "PRECISION auto: this " + ("CPU" if kind == "cpu" else "GPU")
    if _has_bf16(device):
        return "bf16", f"{why} supports bf16"
    if kind == "cpu":
        return "fp32", f"{why} has neither avx512_bf16 nor AMX"
    if kind != "cuda":
        return "fp32", f"{why} ({kind}) computes in fp32"
    if torch.cuda.get_device_capability(device)[0] == 7 and not sharded:
        return "fp16", f"{why} has no bf16"
    return "fp32", f"{why} has no bf16, and fp16 is {'not for fsdp' if sharded else 'slow'}"


def _has_bf16(device: torch.device) -> bool:
    """Whether the hardware computes in bf16, without emulation."""
    if device.type == "cpu":
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # private: not every torch has them
        return any(getattr(torch.cpu, probe, bool)() for probe in probes)
    probe = getattr(torch.get_device_module(device), "is_bf16_supported", None)  # of cuda and xpu, not of mps
    return probe is not None and probe(including_emulation=False)


def autocast_dtype(precision: str, device: torch.device, *, sharded: bool = False) -> torch.dtype | None:
    """The dtype of autocast for `PRECISION`, None for plain fp32; see `choose_precision`."""
    return PRECISIONS[choose_precision(precision, device, sharded=sharded)[0]]


def set_arithmetic(precision: str, device: torch.device) -> None:
    """What torch computes fp32 with on a GPU, in this process: TensorFloat-32 for tf32, else fp32 itself.

    Convolutions try their algorithms once for each size; their sums are not the same at every run anyway.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = precision == "tf32"  # torch's default is True, for convolutions alone
        torch.backends.cudnn.benchmark = True


def autocast(device: torch.device, dtype: torch.dtype | None) -> contextlib.AbstractContextManager[None]:
    """An autocast context, or nothing for fp32."""
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether this process holds only its part of a tensor of several processes, a `DTensor` of FSDP2."""
    return hasattr(tensor, "full_tensor")  # `isinstance` needs torch.distributed.tensor, whose import is slow


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


@contextlib.contextmanager
def cpu_threads(number: int) -> Iterator[None]:
    """Inside, this thread's operations on a CPU are computed by `number` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def mapped(device: torch.device, *, at_once: bool = True) -> Iterator[Callable[..., Iterable[Any]]]:
    """`map` for independent passes of a model; on a CPU each has one thread, and several run `at_once`.

    The last bits of a product of matrices depend on the number of threads, and so on the processes beside this one.
    """
    num_threads = torch.get_num_threads()
    if device.type != "cpu":
        yield map
        return
    with cpu_threads(1):
        if at_once and num_threads > 1:
            with ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                yield pool.map
        else:
            yield map
