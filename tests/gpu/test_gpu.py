"""On an NVIDIA GPU: exactness, no waiting, resume, NCCL, fp16 and memory. Skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.gpu import checks

GPU = torch.device("cuda", 0)
CPU = torch.device("cpu")
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU here")
# Each check runs on the GPU, if there is one, and in what it can be on the CPU, so that it is known to work.
DEVICES = [pytest.param(GPU, marks=[pytest.mark.gpu, on_gpu], id="gpu"), pytest.param(CPU, id="cpu")]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("scheme", checks.SCHEMES)
@pytest.mark.parametrize("device", DEVICES)
def test_logits_and_gradients_are_the_textbook_forms(device: torch.device, scheme: str, precision: str) -> None:
    if device == CPU and precision == "fp16":
        pytest.skip("a CPU has no fp16")
    own, textbook = checks.errors(scheme, precision, device)
    assert own <= checks.allowed(precision, textbook)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("device", DEVICES)
def test_a_step_waits_for_nothing(device: torch.device, precision: str) -> None:
    if device == CPU and precision == "fp16":
        pytest.skip("a CPU has no fp16")
    losses = checks.steps_wait_for_nothing(device, precision)
    assert all(0 < loss < 100 for loss in losses)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("device", DEVICES)
def test_resume_is_exact(device: torch.device, precision: str) -> None:
    assert checks.resumes_exactly(device, precision)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("device", DEVICES)
def test_one_process_of_a_group_trains_as_one_alone(device: torch.device, strategy: str, tmp_path: Path) -> None:
    assert checks.one_rank(device, strategy, tmp_path) < 1e-4


@pytest.mark.gpu
@on_gpu
def test_fp16_skips_a_step_with_an_infinite_loss() -> None:
    before, after, later, stayed = checks.infinity_is_skipped(GPU)
    assert stayed and after == before / 2 and later >= after


@pytest.mark.gpu
@on_gpu
def test_after_too_many_clips_fewer_work() -> None:
    assert "out of memory" in checks.too_many_then_few(GPU, too_many=4096, few=8, evaluated=336)
