"""A GPU that torch does not see, that does not start, or that torch has no code for; the driver is simulated."""

from __future__ import annotations

import pytest
import torch

from timesformer.utils.errors import ConfigError
from timesformer.utils.gpu import check_device, has_code_for, is_fault, why_unseen

# What torch 2.14 raises, word for word.
OLD_DRIVER = (
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by downloading "
    "and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx Alternatively, go to: "
    "https://pytorch.org to install a PyTorch version that has been compiled with your version of the CUDA driver."
)
NO_DRIVER = (
    "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a driver from "
    "http://www.nvidia.com/Download/index.aspx"
)
WHEELS = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]  # of torch 2.14 with CUDA 13.0


@pytest.mark.parametrize(
    ("raised", "why", "fault"),
    [
        (OLD_DRIVER, "The NVIDIA driver on your system is too old (found version 11040)", True),
        (NO_DRIVER, "Found no NVIDIA driver on your system", False),
        ("No CUDA GPUs are available", "No CUDA GPUs are available", False),
        (None, "CUDA_VISIBLE_DEVICES hides them, or the job has no access to them", False),
    ],
)
def test_why_torch_sees_no_gpu(monkeypatch: pytest.MonkeyPatch, raised: str | None, why: str, fault: bool) -> None:
    def init() -> None:
        if raised:
            raise RuntimeError(raised)

    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert why_unseen() == why and is_fault(why) is fault


def test_a_build_without_cuda_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    assert why_unseen() == "this build of torch has no CUDA" and not is_fault(why_unseen())


@pytest.mark.parametrize(
    ("capability", "built_for", "runs"),
    [
        ((7, 0), WHEELS, False),  # Volta
        ((7, 5), WHEELS, True),
        ((8, 9), WHEELS, True),  # a later minor capability of sm_86
        ((9, 0), WHEELS, True),
        ((10, 3), WHEELS, True),
        ((11, 0), WHEELS, False),
        ((8, 0), ["sm_86"], False),  # an earlier one
        ((11, 0), [*WHEELS, "compute_90"], True),  # intermediate code is compiled for later ones
        ((7, 0), ["compute_75"], False),
        ((9, 0), ["sm_90a"], True),
        ((10, 3), ["sm_100a"], False),
        ((9, 0), [], True),
    ],
)
def test_code_for_a_capability(capability: tuple[int, int], built_for: list[str], runs: bool) -> None:
    assert has_code_for(capability, built_for) is runs


def test_a_gpu_without_code_or_that_does_not_start_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda", 1)
    for name, value in {
        "set_device": None, "synchronize": None, "get_device_name": "Tesla V100", "get_device_capability": (7, 0),
        "get_arch_list": WHEELS,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    with pytest.raises(ConfigError, match=r"cuda:1, Tesla V100, is of compute capability 7.0, and torch .* sm_75, "):
        check_device(device)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    check_device(device)

    def busy(device: torch.device) -> None:
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable\nCUDA kernel errors might ...")

    monkeypatch.setattr(torch.cuda, "set_device", busy)
    with pytest.raises(ConfigError, match=r"^cuda:1 does not start \(CUDA error: all .* unavailable\). Look at nvid"):
        check_device(device)
    check_device(torch.device("cpu"))
