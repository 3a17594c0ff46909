"""What a full disk takes from a run: its pictures and log file, with a warning each, but no result."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., int]
PICTURES = ("input_clips.png", "curves.png", "confusion.png", "per_class.png", "worst_clips.png")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, of Linux")
def test_pictures_and_log_that_cannot_be_written_end_no_run(
    tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    names = (*PICTURES, "log.txt", "report.html")
    for name in names:
        os.symlink("/dev/full", tmp_path / name)
    assert run(tmp_path, "TEST.REPORT", True) == 0
    printed = "".join(capfd.readouterr())
    assert "Traceback" not in printed
    for name in (*PICTURES, "log.txt"):
        assert f"{tmp_path / name} cannot be written: " in printed
    assert "no report: " in printed
    assert run(tmp_path / "next") == 0  # the next run of the process, with room on the disk
    assert all((tmp_path / name).stat().st_size for name in ("predictions.csv", "results.json", "metrics.jsonl"))
