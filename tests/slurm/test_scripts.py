"""The scripts of slurm_scripts/ on a real Slurm: they train, and survive what clusters do, with the same result."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.conftest import Job, check_came_back, check_same, preempt
from timesformer.engine.checkpoint import position_of

pytestmark = pytest.mark.slow

TWO_NODES = ("run_multi_node_job", "--ntasks-per-node=1")


def test_two_nodes_and_one_node_train_the_same(undisturbed: dict[str, Any], sbatch: Callable[..., Job]) -> None:
    job = sbatch("run_single_node_job", "--ntasks-per-node=2", words=("TRAIN.BATCH_SIZE", 16))
    assert job.wait_for()["JobState"] == "COMPLETED", job.log_end
    assert "2 processes on 1 node(s)" in job.log
    check_same(job, undisturbed)


@pytest.mark.parametrize("signal_name", ["USR2", "TERM"])
def test_a_preempted_job_saves_leaves_and_comes_back(
    cluster: Cluster, undisturbed: dict[str, Any], sbatch: Callable[..., Job], signal_name: str
) -> None:
    """TERM is what clusters without `preempt_send_user_signal` send, and a job that then ends counts as failed."""
    job = sbatch(*TWO_NODES, f"--signal={signal_name}@120")
    job.wait_for_steps(3)
    preempt(cluster)
    job.wait_for("PENDING")
    assert len(job.steps()) < 120 and "requeueing job" in job.log
    assert position_of(job.checkpoint()).epoch < 60
    check_came_back(job, undisturbed)


def test_a_job_that_is_preempted_with_no_time_to_leave_comes_back(
    cluster: Cluster, undisturbed: dict[str, Any], sbatch: Callable[..., Job]
) -> None:
    job = sbatch(*TWO_NODES, "--partition=quick")
    job.wait_for_steps(3)
    preempt(cluster)
    job.wait_for("PENDING")
    check_came_back(job, undisturbed)


def test_a_job_saves_and_comes_back_before_its_time_limit(
    cluster: Cluster, undisturbed: dict[str, Any], sbatch: Callable[..., Job]
) -> None:
    job = sbatch(*TWO_NODES)
    job.wait_for_steps(3)
    cluster.run("scontrol", "update", f"jobid={job.number}", "TimeLimit=2")  # less than two minutes are left
    cluster.signal_tasks(job.number, signal.SIGSTOP)
    time.sleep(35)  # Slurm looks at limits every 30 seconds
    cluster.signal_tasks(job.number, signal.SIGCONT)
    job.wait_for("PENDING")
    assert "requeueing job" in job.log and job.checkpoint()
    cluster.run("scontrol", "update", f"jobid={job.number}", "TimeLimit=60")
    check_came_back(job, undisturbed)


def test_restarts_have_an_end(cluster: Cluster, sbatch: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cluster.environment, "RESTARTS", "0")
    job = sbatch(*TWO_NODES)
    job.wait_for_steps(1)
    cluster.run("scancel", "--signal=USR2", job.number)
    ended = job.wait_for()
    assert (ended["JobState"], ended["ExitCode"]) == ("FAILED", "75:0"), job.log_end
    assert "not requeued" in job.log and job.checkpoint()


def test_scancel_saves_and_ends_the_job(cluster: Cluster, sbatch: Callable[..., Job]) -> None:
    job = sbatch(*TWO_NODES)
    job.wait_for_steps(3)
    cluster.run("scancel", job.number)
    assert job.wait_for("CANCELLED")["Restarts"] == "0"
    assert "requeueing" not in job.log and job.checkpoint()


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_a_job_outlives_its_node(
    cluster: Cluster, undisturbed: dict[str, Any], sbatch: Callable[..., Job], number: int
) -> None:
    job = sbatch(*TWO_NODES, words=("TRAIN.CHECKPOINT_PERIOD_STEPS", 2))
    job.wait_for_steps(5)
    cluster.signal_node(cluster.nodes[1], number)
    job.wait_for("PENDING")
    cluster.wait_for_idle(cluster.nodes[0])  # what was left of the job is gone
    cluster.signal_node(cluster.nodes[1], signal.SIGKILL)
    cluster.start_node(cluster.nodes[1])
    cluster.wait_for_idle(*cluster.nodes)
    time.sleep(10)  # Slurm 22.05 gets confused by a job on a node that came back within the same second
    check_came_back(job, undisturbed)


def test_a_job_that_fails_says_why(cluster: Cluster, sbatch: Callable[..., Job]) -> None:
    job = sbatch(*TWO_NODES, words=("DATA.PATH_TO_DATA_DIR", "/nowhere", "TRAIN.DATASET", "kinetics"))
    ended = job.wait_for()
    assert (ended["JobState"], ended["Reason"], ended["Restarts"]) == ("FAILED", "NonZeroExitCode", "0"), job.log_end
    assert "error: " in job.log and "/nowhere" in job.log and "Traceback" not in job.log


def test_a_job_whose_process_is_killed_ends_at_once(cluster: Cluster, sbatch: Callable[..., Job]) -> None:
    job = sbatch(*TWO_NODES)
    job.wait_for_steps(3)
    cluster.signal_tasks(job.number, signal.SIGKILL, "SLURM_PROCID=1")
    since = time.monotonic()
    ended = job.wait_for()
    assert time.monotonic() - since < 60
    assert (ended["JobState"], ended["Reason"], ended["Restarts"]) == ("FAILED", "NonZeroExitCode", "0"), job.log_end
    assert "task 1: Killed" in job.log
