"""The forms of attention that a run's GPU computes with: measured once, recorded, taken up by a resumed run (fakes)."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.gpu.fakes import fake_gpu
from tests.models.small_models import SMALL
from timesformer.distributed.launch import Processes
from timesformer.engine import attention_forms
from timesformer.engine.attention_forms import choose_forms
from timesformer.models import gpu_kernels
from timesformer.models.gpu_kernels import Shape
from timesformer.models.vit import TimeSformer

FRAMES = Shape(4, 24, 2, "bfloat16")  # 16 places of a clip: rows of 4 frames
SPACE = Shape(17, 24, 2, "bfloat16")  # 4 frames: rows of 16 places and the cls token


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Starts a run of 6 clips a pass; the shapes that were measured, with their rows, and the forms in use then."""

    def run(kind: str = "cuda") -> tuple[dict[Shape, int], dict[Shape, str]]:
        measured: dict[Shape, int] = {}

        def choose(shape: Shape, rows: int, device: torch.device) -> str:
            measured[shape] = rows
            return "packed"

        monkeypatch.setattr(gpu_kernels, "choose", choose)
        device = torch.device(kind)
        run: Any = SimpleNamespace(device=device, dtype=torch.bfloat16, output_dir=tmp_path, processes=Processes())
        with fake_gpu():
            with device:
                model = TimeSformer(**SMALL, init="scratch")
            choose_forms(run, model, clips=6)
            return measured, dict(gpu_kernels._chosen)

    return run


def test_what_is_measured_once_is_used_again(start: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="timesformer"):
        both = {FRAMES: "packed", SPACE: "packed"}
        assert start() == ({FRAMES: 6 * 16, SPACE: 6 * 4}, both)
    assert "attention among 4 tokens: the packed form is the fastest on this GPU" in caplog.text
    assert start() == ({}, both)
    attention_forms.write(tmp_path / "attention.json", {FRAMES: "products"})
    mended = {FRAMES: "products", SPACE: "packed"}
    assert start() == ({SPACE: 6 * 4}, mended)
    assert attention_forms.read(tmp_path / "attention.json") == mended


@pytest.mark.parametrize("damaged", ["[", "[1]", '[{"shape": [1]}]', '{"a": 1}'])
def test_a_damaged_record_is_measured_again(
    start: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, damaged: str
) -> None:
    _, both = start()
    (tmp_path / "attention.json").write_text(damaged)
    assert start()[1] == both and attention_forms.read(tmp_path / "attention.json") == both
    assert "attention.json is damaged" in caplog.text


def test_on_a_cpu_nothing_is_measured(start: Any, tmp_path: Path) -> None:
    assert start("cpu") == ({}, {}) and list(tmp_path.iterdir()) == []
