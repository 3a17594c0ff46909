"""tools/submit.py on a real Slurm: two nodes, preemption, code that is edited while the job waits, what ends a job."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.cluster import ROOT, Cluster
from tests.slurm.conftest import CFG, LONG, Job, check_came_back, preempt
from timesformer.engine.checkpoint import position_of

pytestmark = pytest.mark.slow


@pytest.fixture
def submit(cluster: Cluster, tmp_path: Path, tiny: list[str]) -> Callable[..., Job]:
    """Submit the tiny model on two nodes with the tools/submit.py of a checkout, and read what it prints."""

    def call(*options: object, words: tuple[object, ...] = (), checkout: Path = ROOT) -> Job:
        command = [sys.executable, checkout / "tools/submit.py", "--cfg", CFG, "--job_dir", tmp_path / "job"]
        command += ["--num_shards", 2, "--num_gpus", 0, "--cpus_per_gpu", 1, "--timeout", 60, *options]
        printed = cluster.run(*command, *tiny, *LONG, *words, environment={"PYTHONPATH": str(checkout)})
        found = re.search(r"^submitted job (\d+)(?:.|\n)*^log +(.+)$", printed, re.MULTILINE)
        assert found, printed
        return Job(cluster, int(found[1]), tmp_path / "job", Path(found[2]))

    return call


def test_a_job_runs_the_code_it_was_submitted_with_and_outlives_a_preemption(
    cluster: Cluster, undisturbed: dict[str, Any], submit: Callable[..., Job], tmp_path: Path
) -> None:
    checkout = tmp_path / "checkout"
    for folder in ("timesformer", "tools", "configs"):
        shutil.copytree(ROOT / folder, checkout / folder)
    other = cluster.run("sbatch", "--parsable", "-N2", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 600")
    job = submit(checkout=checkout)
    job.wait_for("PENDING")
    for path in checkout.rglob("*.py"):
        path.write_text("raise SystemExit('edited while the job was waiting')")
    shutil.rmtree(checkout / "configs")
    cluster.run("scancel", other)
    job.wait_for_steps(3)
    preempt(cluster)
    job.wait_for("PENDING")
    assert job.log.index("stopped: by SIGUSR2") < job.log.index("Calling checkpoint method")
    assert job.log.count(f"Requeued job {job.number}") == 1
    check_came_back(job, undisturbed)


def test_a_job_that_has_come_back_often_enough_says_so(cluster: Cluster, submit: Callable[..., Job]) -> None:
    job = submit("--requeue", 0, "--timeout", 10)  # of so short a job submitit takes every signal for its time limit
    job.wait_for_steps(3)
    cluster.run("scancel", "--signal=USR2", job.number)
    ended = job.wait_for()
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("FAILED", "75:0", "0"), job.log_end
    assert "timed-out too many times" in job.log and "the same command resumes" in job.log
    assert "Traceback" not in job.log and position_of(job.checkpoint()).epoch < 60


def test_scancel_ends_a_job_after_its_checkpoint(cluster: Cluster, submit: Callable[..., Job]) -> None:
    job = submit()
    job.wait_for_steps(3)
    cluster.run("scancel", job.number)
    assert job.wait_for("CANCELLED")["Restarts"] == "0"
    cluster.wait_for_idle(*cluster.nodes)
    assert "Requeued" not in job.log and job.checkpoint()


def test_a_job_that_fails_says_why(submit: Callable[..., Job]) -> None:
    job = submit("--no-check", words=("DATA.PATH_TO_DATA_DIR", "/nowhere", "TRAIN.DATASET", "kinetics"))
    ended = job.wait_for()
    assert (ended["JobState"], ended["Reason"], ended["Restarts"]) == ("FAILED", "NonZeroExitCode", "0"), job.log_end
    assert "error: " in job.log and "/nowhere" in job.log and "Traceback" not in job.log
