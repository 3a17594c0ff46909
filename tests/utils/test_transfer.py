"""Copies to a GPU come from page-locked memory and run on a stream of their own (a simulated GPU notes the calls)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from timesformer.utils.transfer import ClipTransfer, to_device

CUDA = torch.device("cuda", 0)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is asked of CUDA, in order, with fake tensors."""
    found: list[str] = []

    class Stream:
        def wait_stream(self, other: Any) -> None:
            found.append("wait")

    @contextlib.contextmanager
    def stream(other: Any) -> Iterator[None]:
        found.append("enter")
        yield
        found.append("leave")

    def pin(tensor: Tensor) -> Tensor:
        found.append("pin")
        return tensor

    real = Tensor.to

    def to(tensor: Tensor, device: torch.device, *, non_blocking: bool) -> Tensor:
        found.append("copy" if non_blocking else "blocking copy")
        return real(tensor, device)

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    monkeypatch.setattr(Tensor, "is_pinned", lambda tensor: False)
    monkeypatch.setattr(Tensor, "pin_memory", pin)
    monkeypatch.setattr(Tensor, "record_stream", lambda tensor, stream: found.append("record"))
    monkeypatch.setattr(Tensor, "to", to)
    with FakeTensorMode():
        yield found


def test_small_tensors_are_pinned_and_copied_without_waiting(calls: list[str]) -> None:
    assert to_device(torch.ones(3), CUDA).device == CUDA and calls == ["pin", "copy"]


def test_clips_are_copied_beside_the_computation(calls: list[str]) -> None:
    assert ClipTransfer(CUDA)(torch.ones(2, 3)).device == CUDA
    assert calls == ["enter", "pin", "copy", "leave", "wait", "record"]


def test_clips_that_are_on_the_gpu_stay_there(calls: list[str]) -> None:
    ClipTransfer(CUDA)(torch.ones(2, 3, device=CUDA))
    assert calls == ["copy"]  # which `Tensor.to` leaves out


def test_on_the_cpu_nothing_is_copied() -> None:
    clips = torch.ones(2, 3)
    assert ClipTransfer(torch.device("cpu"))(clips) is clips
