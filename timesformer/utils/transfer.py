"""Copies from host memory to a device that wait for nothing."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`; from page-locked memory to a GPU, since other copies wait until its queue is empty."""
    if device.type == "cuda" and tensor.device.type == "cpu" and not tensor.is_pinned():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


class ClipTransfer:
    """`to_device` for clips: to a GPU on a stream of its own, beside what the GPU still computes."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, clips: Tensor) -> Tensor:
        """The clips on the device."""
        if self._stream is None or clips.device.type != "cpu":
            return to_device(clips, self.device)
        with torch.cuda.stream(self._stream):
            copy = to_device(clips, self.device)
        compute = torch.cuda.current_stream(self.device)
        compute.wait_stream(self._stream)
        copy.record_stream(compute)  # its memory is not used again before `compute` is done with it
        return copy
