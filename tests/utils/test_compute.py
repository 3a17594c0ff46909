"""Which device `auto` is, and the precision of each: simulated accelerators, since a machine has one kind at most."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest
import torch

from timesformer.utils.compute import PRECISIONS, autocast, choose_device, choose_precision, is_sharded, set_arithmetic
from timesformer.utils.errors import ConfigError


@pytest.fixture
def accelerators(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with `count` accelerators of type `kind`; a build for that type, but no such device, with none."""
    kind, count = request.param
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(kind))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("accelerators", "auto"),
    [(("cuda", 2), "cuda"), (("mps", 1), "mps"), (("xpu", 1), "xpu"), (("cuda", 0), "cpu")],
    indirect=["accelerators"],
)
def test_auto_is_the_accelerator_of_the_machine(accelerators: None, auto: str) -> None:
    assert choose_device() == choose_device("auto") == torch.device(auto)
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("accelerators", [("cuda", 2)], indirect=True)
def test_a_device_that_the_machine_does_not_have_is_refused(accelerators: None) -> None:
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    for name in ("cuda:2", "xpu", "gpu"):
        with pytest.raises(ConfigError, match=f"no device '{name}'. Allowed: auto, cpu, cuda:0, cuda:1$"):
            choose_device(name)


@pytest.mark.parametrize("accelerators", [("mps", 0)], indirect=True)
def test_a_build_for_an_accelerator_that_is_not_there_has_the_cpu_only(accelerators: None) -> None:
    with pytest.raises(ConfigError, match="no device 'mps'. Allowed: auto, cpu$"):
        choose_device("mps")


def test_auto_precision_of_other_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_precision("auto", torch.device("mps")) == ("fp32", "PRECISION auto: this GPU (mps) computes in fp32")
    for has_bf16, precision in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.xpu, "is_bf16_supported", lambda including_emulation, has_bf16=has_bf16: has_bf16)
        assert choose_precision("auto", torch.device("xpu", 0))[0] == precision


@pytest.mark.parametrize("kind", ["mps", "xpu"])
def test_a_precision_that_is_named_is_the_one_of_any_accelerator(kind: str) -> None:
    device = torch.device(kind)
    assert choose_precision("fp16", device) == ("fp16", "PRECISION fp16")
    assert isinstance(autocast(device, None), contextlib.nullcontext)
    assert not torch.amp.GradScaler(kind, enabled=False).is_enabled()


def test_tf32_is_for_gpus_that_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for capability, cuda in (((7, 5), "cuda"), ((8, 0), "cpu")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, of=capability: of)
        with pytest.raises(ConfigError, match=r"tf32 needs .* capability 8 or later. Add: PRECISION fp32"):
            choose_precision("tf32", torch.device(cuda))
    assert (
        choose_precision("tf32", torch.device("cuda", 0)) == ("tf32", "PRECISION tf32") and PRECISIONS["tf32"] is None
    )


def test_fp32_is_fp32_unless_tf32_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    set_by: dict[str, object] = {}
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda value: set_by.update(matmul=value))
    monkeypatch.setattr(torch.backends, "cudnn", SimpleNamespace())
    for precision, matmul, convolutions in (("tf32", "high", True), ("fp32", "highest", False)):
        set_arithmetic(precision, torch.device("cuda", 0))
        assert set_by == {"matmul": matmul} and torch.backends.cudnn.allow_tf32 is convolutions
    set_by.clear()
    set_arithmetic("fp32", torch.device("cpu"))
    assert not set_by


def test_plain_tensors_are_not_sharded() -> None:
    assert not is_sharded(torch.nn.Parameter(torch.ones(2)))
