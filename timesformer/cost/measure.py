"""What a piece of work costs: time beside other work, memory, multiply-accumulates, and the machine's matrix rate."""

from __future__ import annotations

import contextlib
import copy
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from timesformer.utils.env import free_memory

Name = TypeVar("Name")
Work = Callable[[], object]

OUT_OF_MEMORY = (MemoryError, torch.OutOfMemoryError)


def interleaved(works: Mapping[Name, Work], *, device: torch.device, repeats: int) -> dict[Name, list[float]]:
    """Seconds of every run of each work; the works take turns, so that all meet the same machine.

    On a GPU by the clock on the wall, with the device's queue empty before and after. On a CPU it is the CPU time of
    all threads of this process, which other programs lengthen least. What only a first run does (compiling, memory for
    the optimiser's state) is counted as well: let each work run once before.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            start = _clock(device)
            work()
            seconds[name].append(_clock(device) - start)
    return seconds


def _clock(device: torch.device) -> float:
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def saved_for_backward(forward: Callable[[], Tensor], model: nn.Module) -> int:
    """Bytes that a forward pass keeps for its backward pass: each piece of memory once, parameters left out."""
    known = {_place(parameter) for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if _place(tensor) not in known:
            kept[_place(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = forward()  # holds all that was kept: no two pieces have the same place
    del output
    return sum(kept.values())


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def peak_bytes(work: Work, device: torch.device) -> int:
    """Largest amount of GPU memory that all tensors of this process hold while `work` runs."""
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return torch.cuda.max_memory_allocated(device)


def multiply_accumulates(
    model: nn.Module, input_shape: Sequence[int], *, clips: int = 1, backward: bool = False
) -> int:
    """Those of matrix products and convolutions for a batch, by torch's counter, without running anything.

    Args:
        input_shape: (C, T, H, W) of one clip.
        backward: also of the backward pass, the model being in training mode; else of a forward pass in eval mode.
    """
    on_meta = {
        id(tensor): nn.Parameter(tensor.detach().to("meta"), tensor.requires_grad) for tensor in model.parameters()
    }
    on_meta |= {id(tensor): tensor.to("meta") for tensor in model.buffers()}  # type: ignore[misc]
    shell = copy.deepcopy(model, on_meta).train(backward)
    with torch.set_grad_enabled(backward), FlopCounterMode(display=False) as counter:
        output = shell(torch.empty(clips, *input_shape, device="meta"))
        if backward:
            output.sum().backward()
    return counter.get_total_flops() // 2


def matrix_product(device: torch.device, dtype: torch.dtype | None) -> tuple[Work, int]:
    """A large product of square matrices, the most a machine can be expected to reach, and its multiply-accumulates.

    Args:
        dtype: that of autocast, None for fp32 by torch's settings.
    """
    side = 8192 if device.type == "cuda" else 1536
    a, b = torch.randn(2, side, side, device=device, dtype=dtype or torch.float32)
    return lambda: a @ b, side**3


@contextlib.contextmanager
def memory_refused(device: torch.device) -> Iterator[None]:
    """On a Linux CPU, what exceeds the free memory becomes a `MemoryError` instead of an end by the kernel.

    Elsewhere the context does nothing: a GPU refuses by itself.
    """
    free = free_memory()
    if device.type == "cuda" or free is None or sys.platform != "linux":
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    most = held + free if hard == resource.RLIM_INFINITY else min(held + free, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    try:
        yield
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
        raise MemoryError(str(error)) from error
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
