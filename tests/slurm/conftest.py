"""A Slurm for the tests that ask for one, and trainings of a tiny model on it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.conftest import gestures_dir, tiny  # noqa: F401  (fixtures)
from tests.slurm.cluster import Cluster, wait_until
from timesformer.engine.checkpoint import read_newest

ROOT = Path(__file__).parents[2]
CFG = ROOT / "configs/Gestures/LightTimeSformer_demo.yaml"
# Long enough to be interrupted, and no checkpoint that nobody asks for before the end.
LONG = ("SOLVER.MAX_EPOCH", 60, "TRAIN.EVAL_PERIOD", 60, "TRAIN.CHECKPOINT_PERIOD", 60, "TENSORBOARD.ENABLE", False)


@dataclass
class Job:
    """A submitted training."""

    cluster: Cluster
    number: int
    output_dir: Path
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    @property
    def log_end(self) -> str:
        """The end of the log, without the steps."""
        return "\n".join([line for line in self.log.splitlines() if not line.startswith("epoch")][-40:])

    def wait_for(self, *states: str) -> dict[str, str]:
        """See `Cluster.wait_for`; a surprise shows the log."""
        try:
            return self.cluster.wait_for(self.number, *states)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log_end}") from None

    def wait_for_steps(self, count: int) -> None:
        """Until that many steps are logged."""

        def done() -> bool:
            self.wait_for("RUNNING")  # it may have ended too early
            return len(self.steps()) >= count

        wait_until(done, 180.0)

    def steps(self) -> list[tuple[int, float]]:
        """(step, loss) of all that was logged, in order."""
        path = self.output_dir / "metrics.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [(row["step"], row["loss"]) for row in rows if row["kind"] == "train"]

    def checkpoint(self) -> Mapping[str, Any]:
        found = read_newest(self.output_dir)
        assert found is not None, f"no checkpoint\n{self.log_end}"
        return found[1]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    if not os.environ.get("TIMESFORMER_TEST_SLURM"):
        pytest.skip("starts a Slurm on this machine (Debian's packages, as root) only with TIMESFORMER_TEST_SLURM=1")
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip("starts a Slurm on this machine only as root of a Debian")
    with Cluster() as running:
        yield running


@pytest.fixture
def sbatch(cluster: Cluster, tmp_path: Path, tiny: list[str]) -> Callable[..., Job]:  # noqa: F811
    """Submit a script of slurm_scripts/ as README says, with options of sbatch and the tiny model."""

    def submit(script: str, *options: object, words: tuple[object, ...] = ()) -> Job:
        output_dir, log = tmp_path / "output", tmp_path / "job.log"
        small = ["--gpus-per-node=2", "--cpus-per-task=1", f"--output={log}", "--time=60"]
        tail = [*tiny, "NUM_GPUS", "0", *LONG, *words]
        python = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        settings = {"PATH": python, "ACTIVATE": "", "CONFIG": str(CFG), "OUTPUT_DIR": str(output_dir)}
        line = ["sbatch", "--parsable", *small, *options, ROOT / f"slurm_scripts/{script}.sh", *tail]
        answer = cluster.run(*line, environment=settings, folder=tmp_path)  # from anywhere
        return Job(cluster, int(answer), output_dir, log)

    return submit


@pytest.fixture(scope="session")
def reference() -> dict[str, Any]:
    return {}


@pytest.fixture
def undisturbed(reference: dict[str, Any], sbatch: Callable[..., Job]) -> dict[str, Any]:
    """What a job on two nodes leaves that nothing happens to, for those that something happens to."""
    if not reference:
        job = sbatch("run_multi_node_job", "--ntasks-per-node=1")
        ended = job.wait_for()
        assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("COMPLETED", "0:0", "0"), job.log_end
        assert "2 processes on 2 node(s)" in job.log and "videos scored     12 of 12" in job.log
        reference.update(steps=job.steps(), weights=job.checkpoint()["model_state"])
        job.output_dir.rename(job.output_dir.with_name("undisturbed"))
        job.log_file.unlink()
    return reference


def check_same(job: Job, undisturbed: Mapping[str, Any]) -> None:
    """Each step once, with the same loss, to the same weights, bit for bit."""
    assert job.steps() == undisturbed["steps"]
    weights, wanted = job.checkpoint()["model_state"], undisturbed["weights"]
    assert weights.keys() == wanted.keys()
    assert all(torch.equal(weights[name], wanted[name]) for name in weights)
    assert "videos scored     12 of 12" in job.log


def check_came_back(job: Job, undisturbed: Mapping[str, Any]) -> None:
    """The job has started twice and gone on where it was, as if nothing had happened."""
    ended = job.wait_for()
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("COMPLETED", "0:0", "1"), job.log_end
    assert job.log.count("resuming from") == 1 and "error: scontrol" not in job.log
    check_same(job, undisturbed)


def preempt(cluster: Cluster) -> None:
    """A job that matters more takes both nodes for a moment."""
    cluster.run("sbatch", "-p", "high", "-N2", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 1")
