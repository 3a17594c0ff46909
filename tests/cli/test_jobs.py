"""Arrays of jobs, lists that are checked before a job is submitted, and what became of jobs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from timesformer.cli import jobs, submit

ROOT = Path(__file__).parents[2]
KINETICS = ROOT / "configs/Kinetics/TimeSformer_divST_8x32_224.yaml"
GESTURES = ROOT / "configs/Gestures/LightTimeSformer_demo.yaml"


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Slurm that takes every job, and forgets it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("sbatch", "echo Submitted batch job 4711"), ("scontrol", "exit 1"), ("sacct", "exit 1")):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "job"


def test_an_array_has_a_job_and_a_folder_for_each_value(slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--cfg", str(GESTURES), "--job_dir", str(slurm), "--num_gpus", "0", "--array-of", "RNG_SEED", "0", "7"]
    assert submit.main([*words, "SOLVER.MAX_EPOCH", "3"]) == 0
    assert "submitted job 4711_1 (timesformer)" in capsys.readouterr().out
    settings = [(slurm / f"code/1/job{index}.yaml").read_text() for index in (0, 1)]
    assert all("MAX_EPOCH: 3" in text for text in settings)
    assert f"OUTPUT_DIR: {slurm}/RNG_SEED_7" in settings[1] and "RNG_SEED: 7" in settings[1]

    folder = slurm / "RNG_SEED_7"
    folder.mkdir()
    row = {"kind": "test", "epoch": 3, "step": 9, "top1": 75.0}
    (folder / "metrics.jsonl").write_text(json.dumps(row) + '\n{"half')
    (slurm / "logs").mkdir(exist_ok=True)
    log = slurm / "logs/4711_0_0_log.out"
    log.write_text(
        "epoch 1\nerror: a loader process ended\nslurmstepd-n1: error: *** JOB 4711 CANCELLED DUE TO TIME LIMIT\n"
    )
    assert jobs.main([str(slurm)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["4711_0", "FAILED", "-", str(slurm / "RNG_SEED_0")]
    assert "4711_1" in lines[3] and "COMPLETED" in lines[3] and "test at epoch 3: top1 75.0" in lines[3]
    assert f"4711_0  log    {log}" in lines
    assert "4711_0  cause  slurmstepd-n1: error: *** JOB 4711 CANCELLED DUE TO TIME LIMIT" in lines


def test_a_list_or_a_file_that_is_not_there_is_reported_before_the_job_waits(
    slurm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--cfg", str(KINETICS), "--job_dir", str(slurm), "--num_gpus", "1"]
    lists = ["DATA.PATH_TO_DATA_DIR", str(tmp_path / "gone"), "TRAIN.BATCH_SIZE", "8"]
    lists += ["MODEL.WEIGHTS", ""]
    assert submit.main([*words, *lists]) == 1
    assert "DATA.PATH_TO_DATA_DIR must be the folder" in capsys.readouterr().err
    assert submit.main([*words, *lists, "TRAIN.CHECKPOINT_FILE_PATH", "gone.pyth", "TRAIN.FINETUNE", "True"]) == 1
    assert "TRAIN.CHECKPOINT_FILE_PATH gone.pyth: no such file" in capsys.readouterr().err
    assert not slurm.exists()
    assert submit.main([*words, "--no-check", *lists]) == 0


def test_a_folder_without_jobs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert jobs.main([str(tmp_path)]) == 1
    assert "jobs.jsonl: no such file" in capsys.readouterr().err
