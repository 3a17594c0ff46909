"""Rank, world size and the few collectives the engine needs; with one process all of them are trivial."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn


def is_distributed() -> bool:
    """Whether a process group is up."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Index of this process among all processes, from 0."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Number of processes over all nodes."""
    return dist.get_world_size() if is_distributed() else 1


def broadcast_buffers(model: nn.Module) -> None:
    """Give every process the first one's running statistics, which each updates from its own clips."""
    if is_distributed():
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def barrier() -> None:
    """Wait for all processes."""
    if is_distributed():
        dist.barrier()


def all_gather(value: Any) -> list[Any]:
    """The picklable `value` of every process, in rank order, on every process."""
    if not is_distributed():
        return [value]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def total(value: int, device: torch.device) -> int:
    """The sum of `value` over all processes, on every process; waits for the device."""
    if not is_distributed():
        return value
    tensor = torch.tensor(value, device=device)
    dist.all_reduce(tensor)
    return int(tensor)
