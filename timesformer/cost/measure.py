"""Measuring: time of works that take turns, memory of a pass, the machine's rate of matrix products."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from timesformer.utils.env import free_memory

Name = TypeVar("Name")
Work = Callable[[], object]

WINDOW = 10
OUT_OF_MEMORY = (MemoryError, torch.OutOfMemoryError)


def interleaved(works: Mapping[Name, Work], *, device: torch.device, repeats: int) -> dict[Name, list[float]]:
    """Seconds of every run of each work; the works take turns, so that the machine is the same for all of them.

    On a GPU: wall-clock time of `WINDOW` runs in a row, over their number, with the device's queue empty before and
    after: a single run from an empty queue would also show how long the CPU takes to submit it. On a CPU: CPU time of
    all threads of this process, which other programs affect least. The first run of a work costs more (compiling,
    memory for the optimiser's state): let each run once before.
    """
    window = WINDOW if device.type == "cuda" else 1
    seconds: dict[Name, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            start = _clock(device)
            for _ in range(window):
                work()
            seconds[name].append((_clock(device) - start) / window)
    return seconds


def _clock(device: torch.device) -> float:
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def saved_for_backward(forward: Callable[[], Tensor], model: nn.Module) -> int:
    """Bytes that a forward pass keeps for its backward pass: each storage once, without the parameters."""
    parameters = {_address(parameter) for parameter in model.parameters()}
    kept: dict[int, int] = {}  # address -> bytes

    def note(tensor: Tensor) -> Tensor:
        if _address(tensor) not in parameters:
            kept[_address(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = forward()  # holds all that was kept, so that no address is used twice
    del output
    return sum(kept.values())


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def peak_bytes(work: Work, device: torch.device) -> int:
    """Largest amount of GPU memory that all tensors of this process hold while `work` runs."""
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return torch.cuda.max_memory_allocated(device)


def matrix_product(device: torch.device, dtype: torch.dtype | None) -> tuple[Work, int]:
    """A large product of square matrices, the most a machine can be expected to reach, and its multiply-accumulates.

    Args:
        device: where the matrices are.
        dtype: that of autocast, None for fp32 by torch's settings.
    """
    side = 8192 if device.type == "cuda" else 1536
    a, b = torch.randn(2, side, side, device=device, dtype=dtype or torch.float32)
    return lambda: a @ b, side**3


@contextlib.contextmanager
def memory_refused(device: torch.device) -> Iterator[None]:
    """On a Linux CPU, what exceeds the free memory raises `MemoryError`, before the kernel kills the process.

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
