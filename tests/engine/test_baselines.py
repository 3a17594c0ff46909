"""Baselines beside the result of a run: computed once, kept for the same lists, never the end of a test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from timesformer.datasets.records import VideoList, VideoRecord
from timesformer.engine import baselines
from timesformer.engine.baselines import comparison, hold_against_baselines, read_baselines
from timesformer.engine.setup import load_run_config
from timesformer.evaluation.baselines import Score
from timesformer.utils.logging import setup_logging

Run = Callable[..., int]
WITH = ("TEST.BASELINES", True)
ONE_EPOCH = ("SOLVER.MAX_EPOCH", 1, "SOLVER.WARMUP_EPOCHS", 0)


def baseline_lines(text: str) -> list[str]:
    starts = ("baselines  ", "WARNING: no baselines", "WARNING: the model")
    return [line for line in text.splitlines() if line.startswith(starts)]


def test_a_test_holds_its_score_against_baselines_that_are_computed_once(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, *WITH, *ONE_EPOCH) == 0
    lines = baseline_lines(capsys.readouterr().out)
    file = tmp_path / "baseline.json"
    content = json.loads(file.read_text())
    assert content["split"] == "test" and content["scored"] == 12 and set(content["lists"]) == {"train", "test"}
    of_run = json.loads((tmp_path / "dataset.json").read_text())
    assert content["lists"] == {split: of_run[split] for split in ("train", "test")}
    scores = [Score(**score) for score in content["baselines"]]
    assert [score.name for score in scores] == ["majority", "middle frame", "motion images"]
    shown = ", ".join(f"{score.name} {score.top1:.1f}%" for score in scores)
    assert lines[0] == f"baselines         {shown} ({file})"
    top1 = json.loads((tmp_path / "results.json").read_text())["top1"]
    assert lines[1:] == [f"WARNING: {line}" for line in [comparison(top1, scores)] if line]
    written = file.stat().st_mtime_ns
    assert run(tmp_path, *WITH, "TRAIN.ENABLE", False) == 0  # the training list is not there, the file is
    assert baseline_lines(capsys.readouterr().out) == lines and file.stat().st_mtime_ns == written
    assert run(tmp_path, *WITH, "TRAIN.ENABLE", False, "TEST.SPLIT", "val") == 0  # another list
    (line,) = baseline_lines(capsys.readouterr().out)
    assert line == "baselines         not known without the training list; `timesformer baseline` computes them"


def test_a_baseline_that_fails_is_a_warning_and_the_test_is_done(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "baseline.json").mkdir()
    assert run(tmp_path, *WITH, *ONE_EPOCH) == 0
    (line,) = baseline_lines(capsys.readouterr().out)
    assert line.startswith(f"WARNING: no baselines: cannot write {tmp_path}/baseline.json: ")
    assert json.loads((tmp_path / "results.json").read_text())["scored"] == 12


@pytest.fixture
def lists() -> dict[str, VideoList]:
    return {split: VideoList([VideoRecord(f"{split}.mp4", 0, "train.csv:1")]) for split in ("train", "test")}


def log_of(lists: dict[str, VideoList], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    setup_logging()
    hold_against_baselines(load_run_config(None, ["OUTPUT_DIR", str(folder)]).cfg, 50.0, lists)
    return capsys.readouterr().out


def test_long_lists_are_left_to_the_command(
    tmp_path: Path, lists: dict[str, VideoList], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(baselines, "MAX_VIDEOS", 1)
    assert "left out, 2 videos are more than 1; `timesformer baseline` computes them" in log_of(lists, tmp_path, capsys)


@pytest.mark.parametrize(
    ("error", "message"),
    [(None, "no baselines: none of the 1 videos could be read"), (ValueError("odd"), "no baselines: ValueError: odd")],
)
def test_no_error_ends_a_test(
    tmp_path: Path,
    lists: dict[str, VideoList],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception | None,
    message: str,
) -> None:
    if error:
        monkeypatch.setattr(baselines, "read_clips", lambda *_, **__: (_ for _ in ()).throw(error))
    assert message in log_of(lists, tmp_path, capsys)


def test_baselines_of_other_lists_and_broken_files_are_not_used(tmp_path: Path, lists: dict[str, VideoList]) -> None:
    known = {split: baselines.fingerprint(videos.records) for split, videos in lists.items()}
    score = {"name": "majority", "top1": 10.0, "low": 5.0, "high": 19.0, "seconds": 0.0}
    file = tmp_path / "baseline.json"
    assert read_baselines(tmp_path, known) == []
    file.write_text(json.dumps({"lists": known, "baselines": [score]}))
    assert read_baselines(tmp_path, known) == read_baselines(tmp_path, {"test": known["test"]}) == [Score(**score)]
    assert read_baselines(tmp_path, {**known, "train": known["test"]}) == []
    for text in ("", "[]", json.dumps({"lists": known, "baselines": [{"name": "majority"}]})):
        file.write_text(text)
        assert read_baselines(tmp_path, known) == []


def test_the_comparison_names_the_best_baseline() -> None:
    scores = [Score("majority", 10, 5, 19, 0), Score("motion images", 57.8, 47, 70.4, 15.3)]
    known = "motion images + logistic regression: 57.8% [47.0, 70.4] in 15 seconds"
    assert comparison(14.1, scores) == f"the model (14.1%) is not better than {known}"
    assert comparison(57.8, scores) == f"the model (57.8%) is not better than {known}"
    assert comparison(65.6, scores) == f"the model (65.6%) is not clearly better than {known}"
    assert comparison(70.5, scores) == ""
