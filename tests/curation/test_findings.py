"""Findings as a table and as text to paste."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from timesformer.curation.findings import ERROR, WARNING, Finding, Listed, correction, summary, table
from timesformer.datasets.records import VideoRecord


def listed(name: str, source: str) -> Listed:
    return Listed("train", VideoRecord(name, 0, source))


def test_the_table_has_errors_first_and_each_advice_once() -> None:
    small = Finding(WARNING, "small classes", "up (2)", "Record more.")
    copies = [Finding(ERROR, "copies", f"pair {i}", "Keep one.", [listed(f"{i}.mp4", f"a.csv:{i}")]) for i in range(20)]
    text = table([small, *copies])
    assert text.splitlines()[2:4] == [
        "error     copies         20        20",
        "warning   small classes  1",
    ]
    assert "    train: 3.mp4 (a.csv:3)\n" in text and "  ... and 12 more: --json has all" in text
    assert text.count("-> Keep one.") == 1 and "pair 9" not in text
    assert summary([small, *copies]) == "20 errors, 1 warning" and summary([]) == "0 errors, 0 warnings"


@pytest.mark.skipif(not shutil.which("sed"), reason="no sed on this system")
def test_the_block_removes_these_lines_and_files_and_sets_these_keys(tmp_path: Path) -> None:
    (tmp_path / "my list.csv").write_text("1\n2\n3\n4\n")
    (tmp_path / "it's.mp4").touch()
    remove = [listed("x.mp4", "my list.csv:3"), listed("y.mp4", "my list.csv:1"), listed("it's.mp4", "wave")]
    settings = {"DATA.SAMPLING_RATE": "auto", "DATA.RANDOM_FLIP": False, "TRAIN.BATCH_SIZE": 8}
    text = correction([Finding(ERROR, "", "", "", remove, remove, settings), Finding(ERROR, "", "", "", (), remove)])
    commands, _, block = text.partition("# settings for the YAML file\n")
    subprocess.run(["sh", "-e", "-c", commands], cwd=tmp_path, check=True)
    assert (tmp_path / "my list.csv").read_text() == "2\n4\n"
    assert (tmp_path / "left_out/it's.mp4").exists()
    assert yaml.safe_load(block) == {
        "DATA": {"SAMPLING_RATE": "auto", "RANDOM_FLIP": False},
        "TRAIN": {"BATCH_SIZE": 8},
    }
    assert correction([]) == ""
