"""The forms of operations that a run computes with: measured once, kept in checkpoints, taken up by a resumed run."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import pytest
import torch

from tests.gpu.fakes import fake_gpu
from tests.models.small_models import SMALL
from timesformer.engine import kernels
from timesformer.engine.kernels import choose_kernels
from timesformer.models import cpu_kernels, gpu_kernels
from timesformer.models.gpu_kernels import Shape, key
from timesformer.models.kernels import record_of
from timesformer.models.vit import TimeSformer

FRAMES = Shape(4, 24, 2, "bfloat16")  # 16 places of a clip: rows of 4 frames
SPACE = Shape(17, 24, 2, "bfloat16")  # 4 frames: rows of 16 places and the cls token
BOTH = {key(*FRAMES): "packed", key(*SPACE): "packed"}
CPU = {"attention 8x24/2 float32 forward": True}


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The records that are computed with, one after the other."""
    records: list[Any] = []
    monkeypatch.setattr(kernels, "use_kernels", records.append)
    return records


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Starts a run of 6 clips a pass: its record, and the shapes that were measured, with their rows."""

    def run(kind: str, recorded: Any = None, setting: str = "auto") -> tuple[dict[str, Any], dict[Any, Any]]:
        measured: dict[Any, Any] = {}

        def choose(shape: Shape, rows: int, device: torch.device) -> str:
            measured[shape] = rows
            return "packed"

        def measured_forms(*_: Any, clips: int, **__: Any) -> dict[str, bool]:
            measured["cpu"] = clips
            return CPU

        monkeypatch.setattr(gpu_kernels, "choose", choose)
        monkeypatch.setattr(cpu_kernels, "measured_forms", measured_forms)
        device = torch.device(kind)
        how: Any = {"setting": setting, "device": device, "dtype": torch.bfloat16}
        with fake_gpu() if kind != "cpu" else contextlib.nullcontext():
            with device:
                model = TimeSformer(**SMALL, init="scratch")
            return choose_kernels(model, clips=6, recorded=recorded, **how), measured

    return run


def test_a_new_run_measures_what_its_device_computes(
    start: Any, used: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="timesformer"):
        on_gpu = {"cpu_kernels": {}, "gpu_kernels": BOTH}
        assert start("cuda") == (on_gpu, {FRAMES: 6 * 16, SPACE: 6 * 4})
        assert "attention 4x24/2 bfloat16: the packed form is the fastest on this GPU" in caplog.text
        on_cpu = {"cpu_kernels": CPU, "gpu_kernels": {}}
        assert start("cpu") == (on_cpu, {"cpu": 6})
        assert "CPU kernels, measured: own form of 1 of 1 operations" in caplog.text
        assert start("meta") == ({"cpu_kernels": {}, "gpu_kernels": {}}, {})
    assert used == [on_gpu, on_cpu, {"cpu_kernels": {}, "gpu_kernels": {}}]


def test_a_resumed_run_measures_what_its_record_lacks_on_a_gpu(start: Any, used: list[Any]) -> None:
    part = {"cpu_kernels": CPU, "gpu_kernels": {key(*FRAMES): "products"}}
    whole = part | {"gpu_kernels": {key(*FRAMES): "products", key(*SPACE): "packed"}}
    assert start("cuda", part) == (whole, {SPACE: 6 * 4})
    assert start("cuda", whole) == (whole, {})
    assert start("cpu", {"model_state": {}, "gpu_kernels": BOTH})[1] == {}  # of weights that have no record
    assert used[0] == used[1] == whole


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_torchs_own_forms_alone(start: Any, used: list[Any], kind: str) -> None:
    record = {"cpu_kernels": CPU, "gpu_kernels": BOTH}
    assert start(kind, record, "torch") == (record, {}) and used == [None]


def test_a_damaged_record_is_none() -> None:
    assert record_of({"cpu_kernels": 3, "gpu_kernels": [1]}) == record_of({}) == {"cpu_kernels": {}, "gpu_kernels": {}}
