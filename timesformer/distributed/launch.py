"""Start the processes of a run, or join those that torchrun or srun started; the ranks are the same."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from fvcore.common.config import CfgNode
from torch.distributed.elastic.multiprocessing.errors import record
from torch.multiprocessing import ProcessContext, ProcessExitedException, spawn

from timesformer.config.check import batch_problems
from timesformer.distributed import group as distributed
from timesformer.utils.env import SlurmTask, available_cpus, processes_that_share_cpus
from timesformer.utils.errors import ConfigError, Stopped, UserError, exit_status
from timesformer.utils.signals import handling_stop_signals, ignore_stop_signals

GRACE_SECONDS = 5  # for the others to end by themselves when a process failed, and again after SIGTERM


@dataclass(frozen=True)
class Processes:
    """What one process knows about all of them, and how they come about; as it is, one process on the CPU.

    Attributes:
        rank, world_size: this process among all, from 0, and how many there are.
        local_rank, local_world_size: the same among those of this node.
        gpus: GPUs that this process sees and may use; 0 for the CPU.
        backend: of torch.distributed; with GPUs also gloo, for what is exchanged in host memory.
        started_by: "torchrun" (or what sets the same environment), "srun", or "" for this program, which starts all of
            this node, of which `rank` and `local_rank` are then the first one's.
        address: where the processes meet; "" for a free port of this machine.
        hosted: somebody listens there already; otherwise the process of rank 0 will.
    """

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    gpus: int = 0
    backend: str = "gloo"
    started_by: str = ""
    address: str = ""
    hosted: bool = False

    @property
    def num_nodes(self) -> int:
        """Nodes that take part; every node starts equally many processes."""
        return self.world_size // self.local_world_size

    @property
    def device(self) -> torch.device:
        """The device of `local_rank`; a task that sees one GPU has it for itself (--gpus-per-task)."""
        return torch.device("cuda", self.local_rank % self.gpus) if self.gpus else torch.device("cpu")

    @property
    def ranks(self) -> dict[str, int]:
        """What a loader needs to know of them."""
        return {"rank": self.rank, "world_size": self.world_size, "local_world_size": self.local_world_size}

    @property
    def summary(self) -> str:
        """How many on how many nodes, on what, and who started them, in one line."""
        threads = f"{torch.get_num_threads()} CPU thread(s)"
        if self.world_size == 1:
            return f"one process on {self.device}, {threads}"
        where = f"{self.gpus} visible GPU(s)" if self.gpus else "CPU"
        started = f"{self.backend}, started by {self.started_by or 'this program'}"
        return f"{self.world_size} processes on {self.num_nodes} node(s), {where}, {threads} each, {started}"


def plan_launch(cfg: CfgNode, environ: Mapping[str, str], visible_gpus: int, init_method: str = "") -> Processes:
    """Decide who starts how many processes, from what is known before any of them meet.

    Args:
        cfg: the configuration.
        environ: the environment: of torchrun (RANK, WORLD_SIZE, ...), of srun (SLURM_STEP_NUM_TASKS, ...), or neither.
        visible_gpus: that this process sees.
        init_method: the original's --init_method: the address of the first node, for NUM_SHARDS > 1.

    Raises:
        ConfigError: an impossible wish; the message says what to type.
    """
    task = None if init_method else SlurmTask.read(environ)
    gpus, per_node, shards = cfg.NUM_GPUS, cfg.DIST.PROCESSES_PER_NODE, cfg.NUM_SHARDS
    gpus = visible_gpus if gpus == "auto" else gpus
    backend = ("nccl" if gpus else "gloo") if cfg.DIST_BACKEND == "auto" else cfg.DIST_BACKEND
    if backend == "nccl" and not gpus:
        raise ConfigError("DIST_BACKEND nccl needs GPUs, and this run has none. Add: DIST_BACKEND gloo")
    backend = "cpu:gloo,cuda:nccl" if backend == "nccl" else backend
    if "RANK" in environ and "WORLD_SIZE" in environ:
        world = int(environ["WORLD_SIZE"])
        local = int(environ.get("LOCAL_WORLD_SIZE", task.tasks_on_node if task else max(1, world // shards)))
        starter, ranks = "torchrun", (int(environ["RANK"]), int(environ.get("LOCAL_RANK", 0)), world, local)
        own_gpu, even = task is not None and task.tasks_on_node == local, world % local == 0
        address, hosted = _master(environ), environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    elif task:
        starter, ranks = "srun", (task.rank, task.local_rank, task.num_tasks, task.tasks_on_node)
        own_gpu, even = True, task.even
        address, hosted = _master({"MASTER_ADDR": task.host, "MASTER_PORT": str(task.port), **environ}), False
    else:
        local = max(1, gpus) if per_node == "auto" else per_node
        starter, ranks = "", (cfg.SHARD_ID * local, 0, local * shards, local)
        own_gpu, even, address, hosted = False, True, init_method, False
        if shards > 1 and not init_method:
            raise ConfigError(
                f"NUM_SHARDS is {shards}, but nothing says where the nodes meet. Start one task per process with srun, "
                "or start this on every node with the address of the first one, such as "
                "--init_method tcp://node0:29500, and its own --shard_id"
            )
    if not even:
        raise ConfigError(f"every node must start equally many processes: give {starter} a number per node "
                          "(srun --ntasks-per-node, torchrun --nproc-per-node)")  # fmt: skip
    plan = Processes(*ranks, min(gpus, visible_gpus), backend, starter, address, hosted)
    _check_gpus(cfg, plan, visible_gpus, own_gpu and int(environ.get("SLURM_GPUS_ON_NODE", 2**31)) >= ranks[3])
    if starter and per_node not in ("auto", plan.local_world_size):
        raise ConfigError(
            f"DIST.PROCESSES_PER_NODE is {per_node}, but {starter} started {plan.local_world_size} on this node. "
            "Add: DIST.PROCESSES_PER_NODE auto"
        )
    if starter and shards not in (1, plan.num_nodes):
        raise ConfigError(
            f"NUM_SHARDS is {shards}, but {starter} started processes on {plan.num_nodes} node(s). "
            f"Add: NUM_SHARDS {plan.num_nodes}"
        )
    if problems := [*batch_problems(cfg, plan.num_nodes, plan.local_world_size)]:
        raise ConfigError("\n".join(problems))
    return plan


def _master(environ: Mapping[str, str]) -> str:
    """The address of rank 0 by the variables that torchrun sets."""
    host, port = environ.get("MASTER_ADDR"), environ.get("MASTER_PORT")
    if not host or not port:
        raise ConfigError(
            "RANK and WORLD_SIZE are set, but not MASTER_ADDR and MASTER_PORT, where the processes meet. Start them "
            "with torchrun or srun, or set all four"
        )
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def _check_gpus(cfg: CfgNode, plan: Processes, visible: int, own_gpu: bool) -> None:
    """Enough GPUs for NUM_GPUS and for the processes; `own_gpu`: a process may see only the one that is its own."""
    wanted, local = cfg.NUM_GPUS, plan.local_world_size
    if own_gpu and visible == 1:
        return
    if wanted != "auto" and wanted > visible:
        mend = "NUM_GPUS 0 to run on the CPU" if visible == 0 else f"NUM_GPUS {visible}"
        raise ConfigError(f"NUM_GPUS is {wanted}, but this machine shows {visible} GPU(s). Add: {mend}")
    if plan.gpus and local > plan.gpus:
        fewer = {"torchrun": f"--nproc-per-node={plan.gpus}", "srun": f"--ntasks-per-node={plan.gpus}"}
        raise ConfigError(
            f"{local} processes on this node, but only {plan.gpus} GPU(s) for them. Start fewer with "
            f"{fewer.get(plan.started_by, f'DIST.PROCESSES_PER_NODE {plan.gpus}')}, or add: NUM_GPUS 0 to run on CPUs"
        )


def launch(cfg: CfgNode, main: Callable[..., None], *args: Any, init_method: str = "") -> None:
    """Call `main(processes, *args)` in every process of the run; see `plan_launch`.

    Raises:
        ConfigError: impossible wishes, before anything starts.
        UserError: of `main`, or the processes did not meet, or one was killed.
    """
    plan = plan_launch(cfg, os.environ, torch.cuda.device_count(), init_method)
    seconds = cfg.DIST.RENDEZVOUS_SECONDS
    if plan.started_by or plan.world_size == 1:
        _run(plan, seconds, main, args)
        return
    store: dist.TCPStore | None = None
    if not plan.address:  # all on this machine: this process keeps a free port, and the others meet there
        store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
        plan = replace(plan, address=f"tcp://localhost:{store.port}", hosted=True)
    context = spawn(_spawned, (plan, seconds, main, args), plan.local_world_size, join=False)
    assert isinstance(context, ProcessContext)
    _wait(context, plan.rank)
    del store  # it had to live so long


def _wait(context: ProcessContext, first_rank: int) -> None:
    """Until all processes of this node have ended; passes on to them the signals that ask a run to stop."""
    asked: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        for process in context.processes:
            if process.is_alive():
                os.kill(process.pid, number)

    try:
        with handling_stop_signals(pass_on):
            while not context.join(grace_period=GRACE_SECONDS):
                pass
    except ProcessExitedException as error:
        if error.exit_code >= 0:  # the process has said why
            raise SystemExit(error.exit_code) from None
        if asked:  # before it could listen
            raise SystemExit(128 - error.exit_code) from None
        raise UserError(
            f"the process of rank {first_rank + error.error_index} was ended by {error.signal_name}; all others were "
            "stopped. After SIGKILL the memory was probably used up: a smaller TRAIN.BATCH_SIZE or DATA_LOADER."
            "NUM_WORKERS needs less"
        ) from None


def _spawned(local_rank: int, plan: Processes, *rest: Any) -> None:
    os.setpgid(0, 0)  # Ctrl-C comes once, from the process that started this one
    plan = replace(plan, rank=plan.rank + local_rank, local_rank=local_rank)
    if status := exit_status(lambda: _run(plan, *rest)):
        sys.exit(status)


def _run(plan: Processes, seconds: int, main: Callable[..., None], args: tuple[Any, ...]) -> None:
    """Be one process: its device, its share of the threads, the group, the work."""
    if plan.gpus:
        torch.cuda.set_device(plan.device)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, available_cpus() // processes_that_share_cpus(plan.local_world_size)))
    if plan.world_size == 1:
        main(plan, *args)
        return

    @record  # hands torchrun the traceback of the process that failed first
    def work() -> UserError | None:
        try:
            distributed.join(
                plan.address,
                rank=plan.rank,
                world_size=plan.world_size,
                hosts_store=plan.rank == 0 and not plan.hosted,
                backend=plan.backend,
                seconds=seconds,
            )
            main(plan, *args)
        except UserError as error:
            return error
        return None

    error = work()
    if error:
        ignore_stop_signals()  # srun sends SIGTERM to all once one has ended: the exit status must stay what it is
    if isinstance(error, Stopped):  # all of them, and together: the first has written the checkpoint
        distributed.barrier()
    elif error:  # the group stays until this process ends: leaving it would fail the others before that
        raise error
    dist.destroy_process_group()
    if error:
        raise error
