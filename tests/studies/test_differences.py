"""Bit for bit on the same machine; on another one, near is near and an edit is still an edit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from timesformer.studies.differences import compare_predictions, compare_weights, other_machine
from timesformer.utils.env import collect_versions


def checkpoint(weights: torch.Tensor) -> dict[str, Any]:
    state = {"state": {0: {"exp_avg": weights * 2, "step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]}
    return {"model_state": {"w": weights}, "optimizer_state": state, "epoch": 3}


@pytest.mark.parametrize(
    ("noise", "edit", "reasons", "result"),
    [
        (0.0, 0.0, [], "ok"),
        (0.0, 0.0, ["CPU"], "ok"),
        (1e-7, 0.0, [], "DIFFERS"),
        (1e-4, 0.0, ["CPU"], "within tolerance"),
        (1e-4, 1.0, ["CPU"], "DIFFERS"),
        (0.1, 0.0, ["CPU"], "DIFFERS"),
    ],
)
def test_weights(noise: float, edit: float, reasons: list[str], result: str) -> None:
    generator = torch.Generator().manual_seed(0)
    before = torch.randn(50, 40, generator=generator)
    now = before + 0.01 * torch.randn(50, 40, generator=generator)
    there = now + noise * torch.randn(50, 40, generator=generator)
    there[3, 4] += edit
    found, detail = compare_weights(
        checkpoint(there), checkpoint(now), checkpoint(before), reasons, where="training now"
    )
    assert found == result
    if result == "ok":
        assert detail == "4 tensors bit for bit as training now"
    elif result == "DIFFERS":
        assert "model_state.w: " in detail and "differ, by up to" in detail


def test_other_tensors_and_numbers_are_differences() -> None:
    one = checkpoint(torch.ones(2))
    other = checkpoint(torch.ones(2))
    other["optimizer_state"]["param_groups"][0]["lr"] = 0.2
    assert "param_groups[0].lr" in compare_weights(one, other, None, [], where="now")[1]
    assert compare_weights(one, checkpoint(torch.ones(3)), None, ["CPU"], where="now")[0] == "DIFFERS"
    other["model_state"]["x"] = torch.ones(1)
    assert compare_weights(one, other, None, [], where="now") == ("DIFFERS", "other tensors than now: model_state.x")
    hole = torch.tensor([float("nan"), 1.0])
    assert compare_weights(checkpoint(hole), checkpoint(hole.clone()), None, [], where="now")[0] == "ok"
    assert compare_weights(checkpoint(hole), checkpoint(hole.nan_to_num()), None, [], where="now")[0] == "DIFFERS"


@pytest.mark.parametrize(
    ("there", "reasons", "result"),
    [
        ("a.mp4,0,0,0.9,0.1\nb.mp4,1,1,0.2,0.8\n", [], "ok"),
        ("a.mp4,0,0,0.9,0.1\nb.mp4,1,1,0.201,0.799\n", [], "DIFFERS"),
        ("a.mp4,0,0,0.9,0.1\nb.mp4,1,1,0.201,0.799\n", ["CPU"], "within tolerance"),
        ("a.mp4,0,0,0.9,0.1\nb.mp4,1,1,0.3,0.7\n", ["CPU"], "DIFFERS"),
        ("a.mp4,0,0,0.9,0.1\nb.mp4,0,1,0.2,0.8\n", ["CPU"], "DIFFERS"),
        ("a.mp4,0,0,0.9,0.1\n", ["CPU"], "DIFFERS"),
    ],
)
def test_predictions(tmp_path: Path, there: str, reasons: list[str], result: str) -> None:
    for name, rows in (("there", there), ("now", "a.mp4,0,0,0.9,0.1\nb.mp4,1,1,0.2,0.8\n")):
        (tmp_path / name).write_text(f"path,label,prediction,score_0,score_1\n{rows}")
    assert compare_predictions(tmp_path / "there", tmp_path / "now", reasons)[0] == result


def test_what_makes_other_bits_is_named() -> None:
    here = collect_versions()
    assert [reason for reason in other_machine(here) if "GPUs add" not in reason] == []
    there = {**here, "cpu": "Abacus", "libraries": {**here["libraries"], "torch": "1.0"}}
    text = "; ".join(other_machine(there, {"num_processes": 4}))
    assert "torch 1.0 there" in text and "CPU Abacus there" in text and "4 processes there" in text
