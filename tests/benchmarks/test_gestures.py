"""The benchmark of the README, with runs of seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import gestures

TINY = {
    "GESTURES.NUM_SUBJECTS": "[2, 1, 1]",
    "GESTURES.FRAME_SIZE": "[48, 48]",
    "TIMESFORMER.EMBED_DIM": "24",
    "TIMESFORMER.DEPTH": "1",
    "SOLVER.MAX_EPOCH": "1",
}


def test_table_picture_and_scores_and_no_run_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for pair in TINY.items() for word in pair] + ["DATA.PATH_TO_DATA_DIR", str(tmp_path / "data")]
    command = ["--out", str(tmp_path), "--settings", "light", "space", "--data-seeds", "0", "--train-seeds", "0"]
    gestures.main([*command, "--overrides", *words])
    table = capsys.readouterr().out
    assert "| LightTimeSformer: divided, whole video |" in table and "| space-only, whole video |" in table
    assert [row["n"] for row in json.loads((tmp_path / "scores.json").read_text())] == [1, 1]
    assert (tmp_path / "comparison.png").stat().st_size > 10_000
    written = (tmp_path / "light_data0_train0/results.json").stat().st_mtime_ns
    gestures.main([*command, "--overrides", *words])
    assert capsys.readouterr().out == table
    assert (tmp_path / "light_data0_train0/results.json").stat().st_mtime_ns == written
