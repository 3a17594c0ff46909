"""Start the processes of a run, or join those that torchrun or srun started; the ranks are the same."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from fvcore.common.config import CfgNode
from torch.multiprocessing import ProcessContext, ProcessExitedException, spawn

from timesformer.config.check import batch_problems
from timesformer.distributed import group as distributed
from timesformer.distributed.stop import end_with_parent, handling_stop_signals, ignore_stop_signals
from timesformer.utils.console import count
from timesformer.utils.env import SlurmTask, available_cpus, processes_that_share_cpus, whole_number
from timesformer.utils.errors import ConfigError, Stopped, UserError, exit_status
from timesformer.utils.gpu import check_device, is_fault, why_unseen

GRACE_SECONDS = 5  # for the others to end by themselves when a process failed, and again after SIGTERM


@dataclass(frozen=True)
class Processes:
    """What one process knows about all of them, and how they start; by default one process on the CPU."""

    rank: int = 0  # among all processes, from 0
    local_rank: int = 0  # among those of this node
    world_size: int = 1
    local_world_size: int = 1
    gpus: int = 0  # accelerators that this process sees and may use; 0 for the CPU
    backend: str = "gloo"  # of torch.distributed; with GPUs also gloo, for what is exchanged in host memory
    # "torchrun" (or what sets the same environment), "srun", or "" for this program: it starts all processes of this
    # node, and `rank` and `local_rank` are the first one's.
    started_by: str = ""
    address: str = ""  # where the processes meet; "" for a free port of this machine
    hosted: bool = False  # a launcher listens there already; otherwise the process of rank 0 will
    accelerator: str = "cuda"  # type of the `gpus`, as torch names it

    @property
    def num_nodes(self) -> int:
        """Nodes that take part; every node starts equally many processes."""
        return self.world_size // self.local_world_size

    @property
    def device(self) -> torch.device:
        """The device of `local_rank`; a task that sees one GPU has it for itself (--gpus-per-task)."""
        return torch.device(self.accelerator, self.local_rank % self.gpus) if self.gpus else torch.device("cpu")

    @property
    def ranks(self) -> dict[str, Any]:
        """What a loader needs to know of them."""
        return {"rank": self.rank, "world_size": self.world_size, "local_world_size": self.local_world_size}

    @property
    def summary(self) -> str:
        """How many on how many nodes, on what, and who started them, in one line."""
        threads = count(torch.get_num_threads(), "CPU thread")
        if self.world_size == 1:
            return f"one process on {self.device}, {threads}"
        where = f"{self.gpus} visible GPU(s)" if self.gpus else "CPU"
        started = f"{self.backend}, started by {self.started_by or 'this program'}"
        return f"{self.world_size} processes on {self.num_nodes} node(s), {where}, {threads} each, {started}"


def plan_launch(
    cfg: CfgNode,
    environ: Mapping[str, str],
    visible_gpus: int,
    init_method: str = "",
    accelerator: str = "cuda",
    unseen: str = "",
) -> Processes:
    """Decide who starts how many processes, from what is known before any of them meet.

    Args:
        cfg: the configuration.
        environ: the environment. Of torchrun: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT
            and TORCHELASTIC_USE_AGENT_STORE (it hosts the store). Of srun: see `SlurmTask`; SLURM_GPUS_ON_NODE.
        visible_gpus: accelerators that this process sees.
        init_method: the original's --init_method: the address of the first node, for NUM_SHARDS > 1.
        accelerator: their type.
        unseen: why torch sees none, where it sees none.

    Raises:
        ConfigError: what is requested is impossible; the message says what to type.
    """
    task = None if init_method else SlurmTask.read(environ)
    gpus = visible_gpus if cfg.NUM_GPUS == "auto" else cfg.NUM_GPUS
    if environ.get("RANK") and environ.get("WORLD_SIZE"):
        plan = _torchrun_plan(environ, task, cfg.NUM_SHARDS)
    elif task:
        address = _tcp(environ.get("MASTER_ADDR") or task.host, environ.get("MASTER_PORT") or task.port)
        ranks = (task.rank, task.local_rank, task.num_tasks, task.tasks_on_node)
        plan = Processes(*ranks, started_by="srun", address=address)
    else:
        plan = _own_plan(cfg, gpus, init_method)
    plan = replace(plan, gpus=min(gpus, visible_gpus), accelerator=accelerator)
    plan = replace(plan, backend=_backend(cfg.DIST_BACKEND, plan.device.type))
    local = plan.local_world_size
    even = plan.world_size % local == 0 and (plan.started_by != "srun" or task is None or task.even)
    own_gpu = visible_gpus == 1 and task is not None and task.tasks_on_node == local
    own_gpu = own_gpu and whole_number(environ, "SLURM_GPUS_ON_NODE", local) >= local
    if cfg.NUM_GPUS != 0 and not visible_gpus:
        _check_unseen(environ, unseen)
    if problems := [*_problems(cfg, plan, visible_gpus, even=even, own_gpu=own_gpu)]:
        raise ConfigError("\n".join(problems))
    return plan


def _torchrun_plan(environ: Mapping[str, str], task: SlurmTask | None, num_shards: int) -> Processes:
    """One process of torchrun; of another launcher that sets no LOCAL_WORLD_SIZE, by its tasks or nodes."""
    host, port = environ.get("MASTER_ADDR"), environ.get("MASTER_PORT")
    if not host or not port:
        raise ConfigError(
            "RANK and WORLD_SIZE are set, but not MASTER_ADDR and MASTER_PORT, where the processes meet. Start them "
            "with torchrun or srun, or set all four"
        )
    world = whole_number(environ, "WORLD_SIZE")
    by_default = task.tasks_on_node if task else max(1, world // num_shards)
    local = whole_number(environ, "LOCAL_WORLD_SIZE", by_default)
    ranks = (whole_number(environ, "RANK"), whole_number(environ, "LOCAL_RANK", 0), world, local)
    if not 0 <= ranks[0] < world or not 0 <= ranks[1] < local <= world:
        raise ConfigError(
            f"RANK {ranks[0]}, LOCAL_RANK {ranks[1]}, LOCAL_WORLD_SIZE {local} and WORLD_SIZE {world} contradict one "
            "another. Start with torchrun or srun, or unset them"
        )
    hosted = environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return Processes(*ranks, started_by="torchrun", address=_tcp(host, port), hosted=hosted)


def _own_plan(cfg: CfgNode, gpus: int, init_method: str) -> Processes:
    """The first of the processes that this program starts on this node."""
    per_node, shards = cfg.DIST.PROCESSES_PER_NODE, cfg.NUM_SHARDS
    if shards > 1 and not init_method:
        raise ConfigError(
            f"NUM_SHARDS is {shards}, but nothing says where the nodes meet. Start one task per process with srun, or "
            "start this on every node with the address of the first one, such as --init_method tcp://node0:29500, and "
            "its own --shard_id"
        )
    local = max(1, gpus) if per_node == "auto" else per_node
    return Processes(cfg.SHARD_ID * local, 0, local * shards, local, address=init_method)


def _tcp(host: str, port: str | int) -> str:
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def _backend(requested: str, device_type: str) -> str:
    """DIST_BACKEND in torch's words, with gloo beside what serves an accelerator only."""
    has_xccl = getattr(dist, "is_xccl_available", bool)()  # since torch 2.7
    by_device = {"cuda": "cpu:gloo,cuda:nccl", "xpu": "cpu:gloo,xpu:xccl" if has_xccl else "gloo"}
    return "gloo" if requested == "gloo" else by_device.get(device_type, "gloo")


def _check_unseen(environ: Mapping[str, str], unseen: str) -> None:
    """Refuse to train on the CPU, unless somebody says so, where a GPU was given or is there.

    Raises:
        ConfigError: Slurm gave this job GPUs, or the machine has some that torch cannot use.
    """
    to_do = "Look at nvidia-smi. To train on the CPU add: NUM_GPUS 0"
    if environ.get("SLURM_JOB_ID") and (given := whole_number(environ, "SLURM_GPUS_ON_NODE", 0)):
        names = ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "CUDA_VISIBLE_DEVICES")
        known = "".join(f", {name}={environ[name]}" for name in names if name in environ)
        raise ConfigError(
            f"Slurm gave this job {given} GPU(s) on this node (SLURM_GPUS_ON_NODE={given}{known}), but torch "
            f"{torch.__version__} sees none: {unseen}. {to_do}"
        )
    if is_fault(unseen):
        raise ConfigError(f"torch {torch.__version__} cannot use the GPU of this machine: {unseen}. {to_do}")


def _problems(cfg: CfgNode, plan: Processes, visible_gpus: int, *, even: bool, own_gpu: bool) -> Iterator[str]:
    """What is impossible in a plan, with what to type.

    Args:
        even: every node has equally many processes.
        own_gpu: this process is a task that sees the one GPU that is its own, and the others see theirs.
    """
    starter, local, gpus = plan.started_by, plan.local_world_size, plan.gpus
    if not even:
        yield (
            f"every node must start equally many processes: give {starter} a number per node "
            "(srun --ntasks-per-node, torchrun --nproc-per-node)"
        )
    if cfg.NUM_GPUS != "auto" and cfg.NUM_GPUS > visible_gpus and not own_gpu:
        fix = f"NUM_GPUS {visible_gpus}" if visible_gpus else "NUM_GPUS 0 to run on the CPU"
        yield f"NUM_GPUS is {cfg.NUM_GPUS}, but this machine shows {visible_gpus} GPU(s). Add: {fix}"
    elif cfg.DIST_BACKEND == "nccl" and plan.device.type != "cuda":
        yield "DIST_BACKEND nccl needs NVIDIA GPUs, and this run has none. Add: DIST_BACKEND gloo"
    elif 0 < gpus < local and not own_gpu:
        fewer = {"torchrun": f"--nproc-per-node={gpus}", "srun": f"--ntasks-per-node={gpus}"}
        yield (
            f"{local} processes on this node, but only {gpus} GPU(s) for them. Start fewer with "
            f"{fewer.get(starter, f'DIST.PROCESSES_PER_NODE {gpus}')}, or add: NUM_GPUS 0 to run on CPUs"
        )
    if starter and (per_node := cfg.DIST.PROCESSES_PER_NODE) not in ("auto", local):
        yield (
            f"DIST.PROCESSES_PER_NODE is {per_node}, but {starter} started {local} on this node. "
            "Add: DIST.PROCESSES_PER_NODE auto"
        )
    if starter and cfg.NUM_SHARDS not in (1, plan.num_nodes):
        yield (
            f"NUM_SHARDS is {cfg.NUM_SHARDS}, but {starter} started processes on {plan.num_nodes} node(s). "
            f"Add: NUM_SHARDS {plan.num_nodes}"
        )
    yield from batch_problems(cfg, plan.num_nodes, local)


def launch(cfg: CfgNode, main: Callable[..., None], *args: Any, init_method: str = "") -> None:
    """Call `main(processes, *args)` in every process of the run; see `plan_launch`.

    Raises:
        ConfigError: impossible settings, before anything starts.
        UserError: of `main`, or the processes did not meet, or one was killed.
    """
    accelerator = torch.accelerator.current_accelerator() or torch.device("cpu")
    visible = torch.accelerator.device_count()
    unseen = "" if visible or cfg.NUM_GPUS == 0 else why_unseen()
    plan = plan_launch(cfg, os.environ, visible, init_method, accelerator.type, unseen)
    seconds = cfg.DIST.RENDEZVOUS_SECONDS
    if plan.world_size > 1 and not dist.is_available():
        raise ConfigError(
            f"{plan.world_size} processes need torch.distributed, which this build of torch does not have. "
            "Add: DIST.PROCESSES_PER_NODE 1"
        )
    if "TORCHELASTIC_RUN_ID" in os.environ and os.name == "posix":  # of torchrun, or of this program's local jobs
        end_with_parent(os.getppid())
    if plan.started_by or plan.world_size == 1:
        _run(plan, seconds, main, args)
        return
    store: dist.TCPStore | None = None
    if not plan.address:  # all on this machine: this process keeps a free port, and the others meet there
        store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
        plan = replace(plan, address=f"tcp://localhost:{store.port}", hosted=True)
    context = spawn(_spawned, (os.getpid(), plan, seconds, main, args), plan.local_world_size, join=False)
    assert isinstance(context, ProcessContext)
    _wait(context, plan.rank)
    del store  # the others needed it until now


def _wait(context: ProcessContext, first_rank: int) -> None:
    """Until all processes of this node have ended; passes stop signals on to them."""
    passed_on: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        passed_on.append(number)
        if number == signal.SIGINT and not hasattr(os, "setpgid"):
            return  # the terminal has sent it to all of them
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
        if passed_on:  # before it could handle it
            raise SystemExit(128 - error.exit_code) from None
        raise UserError(
            f"the process of rank {first_rank + error.error_index} was ended by {error.signal_name}; all others were "
            "stopped. After SIGKILL the memory was probably used up: a smaller TRAIN.BATCH_SIZE or DATA_LOADER."
            "NUM_WORKERS needs less"
        ) from None


def _spawned(local_rank: int, parent: int, plan: Processes, *rest: Any) -> None:
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # Ctrl-C comes once, from the process that started this one
        end_with_parent(parent)
    plan = replace(plan, rank=plan.rank + local_rank, local_rank=local_rank)
    if status := exit_status(lambda: _run(plan, *rest)):
        sys.exit(status)


def _run(plan: Processes, seconds: int, main: Callable[..., None], args: tuple[Any, ...]) -> None:
    """Be one process: its device, its share of the threads, the group, the work."""
    check_device(plan.device)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, available_cpus() // processes_that_share_cpus(plan.local_world_size)))
    if plan.world_size == 1:
        main(plan, *args)
        return
    from torch.distributed.elastic.multiprocessing.errors import record  # not in a torch without torch.distributed

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
    if (
        isinstance(error, Stopped) and not error.alone
    ):  # all of them, at the same step: the first has written the checkpoint
        distributed.barrier()
    elif error:  # the group stays until this process ends: leaving it would fail the others before that
        raise error
    dist.destroy_process_group()
    if error:
        raise error
