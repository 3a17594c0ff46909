"""The range test: rates that grow, an end when the loss diverges, a rule for the suggestion, no trace in the run."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from timesformer.cli.main import main
from timesformer.engine.lr_finder import RateSweep, growing_rates


def sweep_of(loss: object, *, steps: int = 100) -> RateSweep:
    sweep = RateSweep()
    for rate in growing_rates(1e-6, 10.0, steps):
        if not sweep.diverged:
            sweep.add(rate, loss(rate))  # type: ignore[operator]
    return sweep


def test_the_suggestion_is_a_tenth_of_the_rate_of_the_lowest_loss() -> None:
    sweep = sweep_of(lambda rate: 2.0 - 1.5 * math.exp(-((math.log10(rate) + 2) ** 2)) + 1e4 * max(0, rate - 0.5))
    lowest = sweep.rates[int(np.argmin(sweep.smoothed))]
    assert 0.01 < lowest < 0.1 and sweep.suggestion() == lowest / 10
    assert sweep.diverged and len(sweep.rates) < 100
    assert sweep.smoothed[0] == sweep.losses[0]


def test_a_loss_that_does_not_fall_or_is_not_finite() -> None:
    assert sweep_of(lambda rate: 1.0 + rate).suggestion() is None
    ended = sweep_of(lambda rate: math.nan if rate > 1e-3 else 2.0 - 1e3 * rate)
    assert ended.diverged and max(ended.rates) <= 1e-3 and len(ended.losses) == len(ended.smoothed) == len(ended.rates)
    assert RateSweep().suggestion() is None


def test_the_command_draws_suggests_and_leaves_the_run_alone(
    tmp_path: Path, tiny: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    out = tmp_path / "run"
    cfg = str(Path(__file__).parents[2] / "configs/Gestures/LightTimeSformer_demo.yaml")
    words = [*tiny, "OUTPUT_DIR", str(out), "SOLVER.BASE_LR_BATCH_SIZE", "8"]
    picture = tmp_path / "pictures/rates.png"
    command = ["lr-find", "--cfg", cfg, "--steps", "24", "--first", "1e-5", "--out", str(picture), *words]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "Smith 2017" in printed or "no suggestion" in printed
    assert picture.stat().st_size > 0 and not out.exists()
    assert [name for name in os.listdir(tmp_path) if "lr_find" in name] == []


def test_what_cannot_be_swept_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lr-find", "--first", "1", "--last", "0.1"]) == 1
    assert "--first must be above 0 and below --last" in capsys.readouterr().err
