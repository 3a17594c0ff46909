"""What versions.json records, and how many CPUs there are."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch

from timesformer.utils import env
from timesformer.utils.env import SlurmTask


def test_versions_name_what_can_change_a_result_and_fit_into_json() -> None:
    versions = json.loads(json.dumps(env.collect_versions()))
    assert {"python", "libraries", "ffmpeg", "cuda", "devices", "git", "timesformer"} <= versions.keys()
    assert {"torch", "torchvision", "av", "timm"} <= versions["libraries"].keys()
    assert "libavcodec" in versions["ffmpeg"]
    assert versions["cpu"] and versions["threads"] == torch.get_num_threads()


def test_git_state_is_clean_or_dirty_and_of_its_own_checkout_only(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    assert env.git_state(tmp_path) is None
    git("init")
    assert env.git_state(tmp_path) is None  # no commit yet
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "first")
    clean = env.git_state(tmp_path)
    assert clean is not None and len(clean["revision"]) == 40 and clean["dirty"] is False
    (tmp_path / "a").write_text("2")
    assert env.git_state(tmp_path) == {**clean, "dirty": True}

    (tmp_path / "inside").mkdir()  # such as site-packages in somebody else's checkout
    assert env.git_state(tmp_path / "inside") is None


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "max 100000\n"}, 2**31),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2**31),
        ({}, 2**31),
    ],
)
def test_cpu_quota_of_a_container_counts(tmp_path: Path, files: dict[str, str], cpus: int) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert env._cgroup_cpus(tmp_path) == cpus
    assert env.available_cpus() >= 1


def test_free_memory_is_what_the_container_leaves(tmp_path: Path) -> None:
    (tmp_path / "memory.current").write_text("700000\n")
    (tmp_path / "memory.stat").write_text("anon 500000\ninactive_file 200000\n")
    for limit in ("max", "1000000"):
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        free = env.free_memory(tmp_path)
        assert free == 500_000 if limit != "max" else free is None or free > 10**6


STEP = {"SLURM_STEP_NUM_TASKS": "5", "SLURM_PROCID": "4", "SLURM_LOCALID": "0", "SLURM_NODEID": "2",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2),1", "SLURM_STEP_NODELIST": "rack1-n[02-03],gpu7", "SLURM_JOB_ID": "123456",
        "SLURM_STEP_ID": "1"}  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_waiting_threads_sleep_unless_the_user_says_how_they_wait(before: dict[str, str], after: str | None) -> None:
    env.let_waiting_threads_sleep(before)
    assert before.get("GOMP_SPINCOUNT") == after


def test_a_task_of_srun() -> None:
    task = SlurmTask.read(STEP)
    assert task == SlurmTask(4, 5, 0, 1, False, "rack1-n02", 10_000 + (101 * 123456 + 1) % 20_000)
    one_node = SlurmTask.read(STEP | {"SLURM_STEP_TASKS_PER_NODE": "5", "SLURM_NODEID": "0"})
    assert one_node is not None and one_node.even and one_node.host == "localhost" and one_node.tasks_on_node == 5
    assert SlurmTask.read(STEP | {"SLURM_STEP_NUM_TASKS": "1"}) is None
    assert SlurmTask.read({"SLURM_NTASKS": "5", "SLURM_PROCID": "0"}) is None  # the script of sbatch


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node1", "node1"),
        ("node1,node2", "node1"),
        ("node[1-4,7],gpu3", "node1"),
        ("n[08,11-20]", "n08"),
        ("rack[2,4-6]-n[01-03].cluster,x", "rack2-n01.cluster"),
    ],
)
def test_the_first_of_a_list_of_nodes(nodes: str, first: str) -> None:
    assert env.first_host(nodes) == first


@pytest.mark.parametrize(
    ("environ", "cpus", "sharing"),
    [
        ({}, 2**31, 8),
        ({"SLURM_CPUS_ON_NODE": "16", "SLURM_CPUS_PER_TASK": "4"}, 16, 8),  # the script of sbatch starts torchrun
        ({"SLURM_CPUS_ON_NODE": "16", "SLURM_STEP_NUM_TASKS": "1", "SLURM_CPUS_PER_TASK": "12"}, 12, 8),
        (STEP | {"SLURM_CPUS_ON_NODE": "16", "SLURM_CPUS_PER_TASK": "4", "SLURM_NODEID": "0"}, 4, 4),
        (STEP | {"SLURM_CPUS_ON_NODE": "16", "SLURM_NODEID": "0"}, 8, 4),
    ],
)
def test_cpus_of_a_slurm_job_are_not_those_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], cpus: int, sharing: int
) -> None:
    assert env._slurm_cpus(environ) == cpus
    monkeypatch.setattr(env.os, "environ", environ)
    assert env.processes_that_share_cpus(8) == sharing
    assert 1 <= env.available_cpus() <= cpus
