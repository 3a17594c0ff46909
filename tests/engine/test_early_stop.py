"""The best validation by a chosen metric, the stop when it gets old, and both the same after a resume."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine.test_resume import assert_identical, final_state, rows
from tests.engine.test_state import make_state

Run = Callable[..., int]


@pytest.mark.parametrize(
    ("metric", "better", "worse"),
    [
        ("auto", {"top1": 2.0, "loss": 9.0}, {"top1": 1.0, "loss": 1.0}),
        ("auto", {"mAP": 2.0}, {"mAP": 1.0}),
        ("loss", {"top1": 1.0, "loss": 1.0}, {"top1": 2.0, "loss": 9.0}),
        ("macro_f1", {"top1": 1.0, "macro_f1": 2.0}, {"top1": 2.0, "macro_f1": 1.0}),
    ],
)
def test_the_chosen_metric_decides(metric: str, better: dict[str, float], worse: dict[str, float]) -> None:
    state = make_state()
    state.best_metric = metric
    assert [state.score(each, epoch=i) for i, each in enumerate((worse, better, worse, {}), 1)] == [1, 1, 0, 0]
    assert (state.best_epoch, state.stale_epochs) == (2, 2) and math.isfinite(state.best_score)


def val_epochs(folder: Path) -> list[float]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [row["epoch"] for row in lines if row["kind"] == "val"]


def test_a_run_stops_when_nothing_gets_better(tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing changes at a rate of 0: the first validation stays the best."""
    words = ["SOLVER.BASE_LR", 0, "SOLVER.WARMUP_EPOCHS", 0, "SOLVER.MAX_EPOCH", 9, "TRAIN.BEST_METRIC", "loss"]
    words += ["TRAIN.CHECKPOINT_PERIOD", 9, "TRAIN.AUTO_RESUME", True, "TEST.ENABLE", False]
    assert run(tmp_path, *words, "TRAIN.EARLY_STOP_EPOCHS", 2) == 0
    printed = capsys.readouterr().out
    assert "3 of 9 epochs trained: no better validation for 2 (TRAIN.EARLY_STOP_EPOCHS); best validation: " in printed
    assert "after epoch 1\n" in printed and val_epochs(tmp_path) == [1, 2, 3]
    before = final_state(tmp_path)
    assert before["epoch"] == 2 and before["best_epoch"] == 1

    assert run(tmp_path, *words, "TRAIN.EARLY_STOP_EPOCHS", 2) == 0  # it has ended
    assert "3 of 9 epochs trained: no better" in capsys.readouterr().out and val_epochs(tmp_path) == [1, 2, 3]
    assert run(tmp_path, *words, "TRAIN.EARLY_STOP_EPOCHS", 4, "TRAIN.EVAL_PERIOD", 3) == 0  # only validations stop it
    assert val_epochs(tmp_path) == [1, 2, 3, 6]


def test_balance_repeats_and_the_best_epoch_resume_exactly(tmp_path: Path, run: Run) -> None:
    words = ["TRAIN.BALANCE", "sampling", "TRAIN.REPEATED_AUG", 2, "AUG.NOISE", 0.1, "TRAIN.BEST_METRIC", "macro_f1"]
    words += ["TRAIN.EARLY_STOP_EPOCHS", 1, "TRAIN.CHECKPOINT_PERIOD_STEPS", 1, "TRAIN.CHECKPOINT_KEEP", 0]
    words += ["TRAIN.AUTO_RESUME", True, "TEST.ENABLE", False]
    assert run(tmp_path / "a", *words) == 0
    (tmp_path / "b/checkpoints").mkdir(parents=True)
    (tmp_path / "b/metrics.jsonl").write_bytes((tmp_path / "a/metrics.jsonl").read_bytes())
    for name in ("checkpoint_epoch_00001_step_000002.pyth", "checkpoint_best.pyth"):
        (tmp_path / "b/checkpoints" / name).write_bytes((tmp_path / "a/checkpoints" / name).read_bytes())
    assert run(tmp_path / "b", *words) == 0
    assert_identical(final_state(tmp_path / "a"), final_state(tmp_path / "b"))
    assert rows(tmp_path / "a") == rows(tmp_path / "b")
    assert sum(row["kind"] == "train" for row in rows(tmp_path / "a")) == 6  # 24 clips, each twice, in steps of 16
