"""Who starts how many processes, that they meet, and what is seen of one that fails. Run as a script it is a run."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fvcore.common.config import CfgNode

from timesformer.config.load import load_config
from timesformer.distributed import group as distributed
from timesformer.distributed.launch import Processes, launch, plan_launch
from timesformer.distributed.stop import StopRequest, chosen, stopped
from timesformer.utils.errors import ConfigError, UserError, exit_status

ROOT = Path(__file__).parents[2]
TORCHRUN = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4",
            "MASTER_ADDR": "node1", "MASTER_PORT": "4000", "TORCHELASTIC_USE_AGENT_STORE": "True"}  # fmt: skip
SRUN = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NODEID": "1",
        "SLURM_STEP_TASKS_PER_NODE": "4(x2)", "SLURM_STEP_NODELIST": "node[1-2]", "SLURM_JOB_ID": "7",
        "SLURM_STEP_ID": "0"}  # fmt: skip
SBATCH = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "7"}


def config(*words: object) -> CfgNode:
    return load_config(None, [str(word) for word in ("NUM_GPUS", 0, "GLOBAL_BATCH_SIZE", 128, *words)]).cfg


def plan(*words: object, gpus: int = 0, init_method: str = "", **environ: str) -> Processes:
    return plan_launch(config(*words), environ, gpus, init_method)


# ---------------------------------------------------------------- the plan


def test_the_ranks_are_the_same_by_every_way_in() -> None:
    node = ["NUM_SHARDS", 2, "SHARD_ID", 1, "DIST.PROCESSES_PER_NODE", 4]
    plans = [
        plan("NUM_SHARDS", 1, **TORCHRUN),
        plan(**SRUN),
        plan(*node, init_method="tcp://node1:4000"),
        plan(*node, init_method="tcp://node1:4000", **SRUN),
    ]
    assert [p.started_by for p in plans] == ["torchrun", "srun", "", ""]
    assert [(p.rank, p.local_rank) for p in plans] == [(5, 1), (5, 1), (4, 0), (4, 0)]  # the last two start four
    for p in plans:
        assert (p.world_size, p.local_world_size, p.num_nodes, p.backend) == (8, 4, 2, "gloo")
        assert p.device == torch.device("cpu")
    assert [p.address for p in plans] == ["tcp://node1:4000", "tcp://node1:10707", *["tcp://node1:4000"] * 2]
    assert [p.hosted for p in plans] == [True, False, False, False]
    given = plan(**SRUN, MASTER_ADDR="fe80::1", MASTER_PORT="5")
    assert given.address == "tcp://[fe80::1]:5"


def test_one_process_and_one_per_gpu() -> None:
    assert plan() == Processes()
    assert plan(**SBATCH).world_size == 1  # no srun, and so no other tasks to wait for
    eight = plan("NUM_GPUS", "auto", gpus=8)
    assert (eight.world_size, eight.local_world_size, eight.backend) == (8, 8, "cpu:gloo,cuda:nccl")
    assert plan("NUM_GPUS", 2, gpus=8).world_size == 2
    assert plan("NUM_GPUS", 8, "DIST.PROCESSES_PER_NODE", 4, gpus=8).world_size == 4
    assert plan("NUM_GPUS", "auto", "DIST_BACKEND", "gloo", gpus=2).backend == "gloo"


def test_gpus_that_torch_does_not_see_are_no_reason_to_train_on_the_cpu() -> None:
    cfg, old = config("NUM_GPUS", "auto"), "The NVIDIA driver on your system is too old (found version 11040)"
    slurm = {"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "2", "SLURM_JOB_GPUS": "0,3"}
    with pytest.raises(ConfigError, match=r"gave this job 2 GPU\(s\).*=2, SLURM_JOB_GPUS=0,3\).* none: no idea. Look"):
        plan_launch(cfg, slurm, 0, unseen="no idea")
    with pytest.raises(ConfigError, match=r"cannot use the GPU of this machine: The .* 11040\). Look.* NUM_GPUS 0"):
        plan_launch(cfg, {}, 0, unseen=old)
    assert plan_launch(cfg, {}, 0, unseen="Found no NVIDIA driver on your system") == Processes()
    assert plan_launch(config("NUM_GPUS", 0), slurm, 0, unseen=old) == Processes()


def test_empty_variables_are_not_set() -> None:
    empty = {"RANK": "", "WORLD_SIZE": "", "LOCAL_RANK": "", "SLURM_STEP_NUM_TASKS": "", "SLURM_GPUS_ON_NODE": ""}
    assert plan(**empty) == plan()


def test_devices() -> None:
    auto = ("NUM_GPUS", "auto")
    assert plan(*auto, gpus=4, **TORCHRUN).device == torch.device("cuda", 1)
    assert plan(*auto, gpus=4, **SRUN).device == torch.device("cuda", 1)
    assert plan(*auto, gpus=1, **SRUN).device == torch.device("cuda", 0)  # --gpus-per-task=1
    assert plan("NUM_GPUS", 4, gpus=1, **SRUN, SLURM_GPUS_ON_NODE="4").device == torch.device("cuda", 0)


def test_other_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = config("NUM_GPUS", "auto")
    mps = plan_launch(cfg, {}, 1, accelerator="mps")
    assert (mps.world_size, mps.device, mps.backend) == (1, torch.device("mps", 0), "gloo")
    for has_xccl, backend in ((True, "cpu:gloo,xpu:xccl"), (False, "gloo")):
        monkeypatch.setattr(torch.distributed, "is_xccl_available", lambda has_xccl=has_xccl: has_xccl, raising=False)
        xpu = plan_launch(cfg, TORCHRUN, 4, accelerator="xpu")
        assert (xpu.world_size, xpu.device, xpu.backend) == (8, torch.device("xpu", 1), backend)
    assert plan_launch(config("NUM_GPUS", 0), {}, 4, accelerator="xpu").device == torch.device("cpu")
    with pytest.raises(ConfigError, match="Add: DIST_BACKEND gloo"):
        plan_launch(config("NUM_GPUS", 1, "DIST_BACKEND", "nccl"), {}, 1, accelerator="xpu")
    with pytest.raises(ConfigError, match=r"only 1 GPU\(s\) for them. Start fewer with DIST.PROCESSES_PER_NODE 1"):
        plan_launch(config("NUM_GPUS", "auto", "DIST.PROCESSES_PER_NODE", 2), {}, 1, accelerator="mps")


def test_the_accelerator_of_the_machine_is_the_one_that_is_launched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("mps"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    devices = []
    launch(config("NUM_GPUS", "auto"), lambda processes: devices.append(processes.device))
    assert devices == [torch.device("mps", 0)]


def test_a_torch_without_processes_runs_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_available", lambda: False)
    ranks = []
    launch(config(), lambda processes: ranks.append(processes.rank))
    assert ranks == [0]
    with pytest.raises(ConfigError, match="2 processes need torch.distributed[^.]*. Add: DIST.PROCESSES_PER_NODE 1"):
        launch(config("DIST.PROCESSES_PER_NODE", 2), lambda processes: None)


@pytest.mark.parametrize(
    ("words", "gpus", "environ", "fix"),
    [
        (("NUM_GPUS", 8), 0, {}, "NUM_GPUS 0 to run on the CPU"),
        (("NUM_GPUS", 8), 2, {}, "NUM_GPUS is 8, but this machine shows 2 GPU(s). Add: NUM_GPUS 2"),
        (("NUM_GPUS", "auto", "DIST.PROCESSES_PER_NODE", 4), 2, {}, "DIST.PROCESSES_PER_NODE 2, or add: NUM_GPUS 0"),
        (("DIST_BACKEND", "nccl"), 0, {}, "Add: DIST_BACKEND gloo"),
        (("NUM_GPUS", "auto"), 2, TORCHRUN, "--nproc-per-node=2"),
        (("NUM_GPUS", "auto"), 2, SRUN, "--ntasks-per-node=2"),
        (("NUM_GPUS", "auto"), 1, SRUN | {"SLURM_GPUS_ON_NODE": "1"}, "--ntasks-per-node=1"),
        (("NUM_GPUS", "auto"), 0, {"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "2"}, "add: NUM_GPUS 0"),
        ((), 0, {"RANK": "one", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "unset RANK"),
        ((), 0, {"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "contradict one another"),
        ((), 0, SRUN | {"SLURM_STEP_TASKS_PER_NODE": "5,3"}, "srun --ntasks-per-node"),
        (("DIST.PROCESSES_PER_NODE", 2), 0, TORCHRUN, "Add: DIST.PROCESSES_PER_NODE auto"),
        (("NUM_SHARDS", 4, "GLOBAL_BATCH_SIZE", 256), 0, TORCHRUN, "Add: NUM_SHARDS 2"),
        (("NUM_SHARDS", 2, "GLOBAL_BATCH_SIZE", 256), 0, {}, "--init_method tcp://node0:29500"),
        ((), 0, {"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR and MASTER_PORT"),
        (("TRAIN.BATCH_SIZE", 6), 0, TORCHRUN, "Type TRAIN.BATCH_SIZE 8"),
        (("TRAIN.BATCH_SIZE", 64, "GLOBAL_BATCH_SIZE", 72), 0, SRUN, "GLOBAL_BATCH_SIZE 128 or TRAIN.BATCH_SIZE 36"),
        (("TRAIN.BATCH_SIZE", 4, "MIXUP.ENABLED", True), 0, TORCHRUN, "TRAIN.BATCH_SIZE 8 or MIXUP.ENABLED False"),
    ],
)
def test_impossible_settings_are_reported_with_their_fix(
    words: tuple[Any, ...], gpus: int, environ: dict[str, str], fix: str
) -> None:
    with pytest.raises(ConfigError) as error:
        plan(*words, gpus=gpus, **environ)
    assert fix in str(error.value)


# ---------------------------------------------------------------- the rendezvous


@pytest.mark.parametrize("message", ["cannot resolve the host name", "1/2 clients joined", "refused", "port is taken"])
def test_a_rendezvous_that_fails_says_where_after_a_bounded_wait(message: str) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        port = taken.getsockname()[1]
        if "taken" in message:
            taken.listen()
        elif "joined" in message:
            taken.close()
        host = "no-such-host.invalid" if "resolve" in message else "localhost"
        hosts_store, since = "joined" in message or "taken" in message, time.monotonic()
        with pytest.raises(UserError, match=rf"{message}[\s\S]*") as error:
            distributed.join(
                f"tcp://{host}:{port}",
                rank=0 if hosts_store else 1,
                world_size=2,
                hosts_store=hosts_store,
                backend="gloo",
                seconds=1,
            )
    assert f"{host}:{port}" in str(error.value) and time.monotonic() - since < 20
    assert not distributed.is_distributed()


# ---------------------------------------------------------------- real processes


def say(line: str) -> None:
    """Print a line in one piece: several processes write into the same pipe."""
    os.write(1, f"{line}\n".encode())


def probe(processes: Processes, mode: str) -> None:
    """What the processes of these tests do."""
    sums = distributed.totals([processes.rank, 1])
    say(f"rank {processes.rank} {processes.local_rank} {processes.num_nodes} {sums} {processes.summary}")
    if processes.rank == 1:
        if mode == "crash":
            raise ValueError("the traceback that matters")
        if mode == "refuse":
            raise UserError("what the user can fix")
        if mode == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
    with StopRequest().heard() as stop:
        distributed.barrier()
        if processes.rank == 0:
            say("ready")
        while mode == "stop":
            time.sleep(0.01)
            if number := chosen(distributed.totals(stop.votes())):
                time.sleep(0.5 if processes.rank == 0 else 0)  # the first one writes a checkpoint
                say(f"rank {processes.rank} stops")
                raise stopped(number)


@contextlib.contextmanager
def started(mode: str, *words: object, launcher: tuple[str, ...] = (), **environ: str) -> Iterator[subprocess.Popen]:
    """A run of this file; whatever is left of it is killed at the end."""
    command = [sys.executable, *launcher, __file__, mode, *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environ}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()


def finished(process: subprocess.Popen) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


def lines_of(output: str) -> list[str]:
    return sorted(line for line in output.splitlines() if line.startswith("rank"))


def expected_lines(started_by: str) -> list[str]:
    summary = f"2 processes on 1 node(s), CPU, 1 CPU thread each, gloo, started by {started_by}"
    return [f"rank {rank} {rank} 1 [1, 2] {summary}" for rank in range(2)]


def test_two_tasks_of_srun_meet() -> None:
    task = SRUN | {"SLURM_STEP_NUM_TASKS": "2", "SLURM_NODEID": "0", "SLURM_STEP_TASKS_PER_NODE": "2"}
    task |= {"SLURM_JOB_ID": str(os.getpid())}  # the port follows from it
    tasks = [task | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)} for i in range(2)]
    with contextlib.ExitStack() as stack:
        ends = [finished(process) for process in [stack.enter_context(started("", **one)) for one in tasks]]
    assert [status for status, _, _ in ends] == [0, 0], ends
    assert lines_of("".join(output for _, output, _ in ends)) == expected_lines("srun")


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("crash", "ValueError: the traceback that matters"),
        pytest.param("refuse", "error: what the user can fix", marks=pytest.mark.slow),
        ("killed", "error: the process of rank 1 was ended by SIGKILL"),
    ],
)
def test_a_process_that_fails_ends_the_others_and_is_the_one_that_is_reported(mode: str, message: str) -> None:
    with started(mode, "DIST.PROCESSES_PER_NODE", 2) as process:
        status, _, errors = finished(process)
    assert status == 1 and message in errors
    assert "Connection closed" not in errors.partition(message)[2]
    if mode != "crash":
        assert "Traceback" not in errors


def test_processes_of_torchrun_meet_and_the_traceback_of_the_one_that_fails_is_shown() -> None:
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    with started("crash", launcher=torchrun) as process:
        status, output, errors = finished(process)
    assert status == 1 and lines_of(output) == expected_lines("torchrun")
    assert "ValueError: the traceback that matters" in errors.partition("Root Cause")[2]


def test_a_signal_to_the_program_stops_all_processes_at_one_step() -> None:
    with started("stop", "DIST.PROCESSES_PER_NODE", 2) as process:
        assert process.stdout is not None
        before = list(itertools.takewhile(lambda line: line != "ready\n", process.stdout))
        process.send_signal(signal.SIGUSR2)
        status, output, errors = finished(process)
    assert status == 75 and "Traceback" not in errors, errors
    assert lines_of("".join(before)) == expected_lines("this program")
    assert lines_of(output) == ["rank 0 stops", "rank 1 stops"]


if __name__ == "__main__":
    sys.exit(exit_status(lambda: launch(config("TRAIN.ENABLE", False, *sys.argv[2:]), probe, sys.argv[1])))
