"""Start the processes of a run: one on a CPU or a single GPU, one per GPU otherwise, or those torchrun started."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from fvcore.common.config import CfgNode

from timesformer.utils.errors import ConfigError, UserError


@dataclass(frozen=True)
class Processes:
    """What one process knows about all of them."""

    rank: int
    local_rank: int
    world_size: int
    device: torch.device


def num_gpus_per_node(cfg: CfgNode) -> int:
    """`NUM_GPUS` as a number; auto takes every visible GPU.

    Raises:
        ConfigError: more GPUs are asked for than this machine shows.
    """
    visible, wanted = torch.cuda.device_count(), cfg.NUM_GPUS
    if wanted == "auto":
        return visible
    if wanted > visible:
        mend = "NUM_GPUS 0 to run on the CPU" if visible == 0 else f"NUM_GPUS {visible}"
        raise ConfigError(f"NUM_GPUS is {wanted}, but this machine shows {visible} GPU(s). Add: {mend}")
    return int(wanted)


def launch(cfg: CfgNode, main: Callable[..., None], *args: Any, init_method: str = "") -> None:
    """Call `main(processes, *args)` in every process of the run.

    Under torchrun (RANK and WORLD_SIZE are set) this process joins the group that torchrun made. Otherwise
    `NUM_GPUS` processes are spawned on this node; with `NUM_SHARDS` > 1 every node runs the same command with its
    `SHARD_ID` and the same `init_method`.

    Raises:
        ConfigError: impossible wishes (more GPUs than there are, several nodes without `init_method`).
    """
    gpus = num_gpus_per_node(cfg)
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        _run(int(os.environ.get("LOCAL_RANK", 0)), rank, world, gpus, cfg.DIST_BACKEND, "env://", main, args)
        return
    per_node = max(1, gpus)
    world = per_node * cfg.NUM_SHARDS
    if world == 1:
        main(Processes(0, 0, 1, torch.device("cuda" if gpus else "cpu")), *args)
        return
    if cfg.NUM_SHARDS > 1 and not init_method:
        raise ConfigError(
            f"NUM_SHARDS is {cfg.NUM_SHARDS}: give every node the address of the first one, such as "
            "--init_method tcp://node0:29500 (and its own --shard_id)"
        )
    init_method = init_method or f"tcp://localhost:{_free_port()}"
    first_rank = cfg.SHARD_ID * per_node
    spawn_args = (first_rank, world, gpus, cfg.DIST_BACKEND, init_method, main, args)
    try:
        torch.multiprocessing.spawn(_spawned, args=spawn_args, nprocs=per_node)
    except torch.multiprocessing.ProcessExitedException as error:  # the process has said why
        raise SystemExit(error.exit_code) from None


def _spawned(local_rank: int, first_rank: int, *rest: Any) -> None:
    try:
        _run(local_rank, first_rank + local_rank, *rest)
    except UserError as error:
        print(f"\nerror: {error}", file=sys.stderr, flush=True)
        sys.exit(1)


def _run(
    local_rank: int,
    rank: int,
    world: int,
    gpus: int,
    backend: str,
    init_method: str,
    main: Callable[..., None],
    args: tuple[Any, ...],
) -> None:
    device = torch.device("cuda", local_rank) if gpus else torch.device("cpu")
    if gpus:
        torch.cuda.set_device(device)
    backend = ("nccl" if gpus else "gloo") if backend == "auto" else backend
    if backend == "nccl" and not gpus:
        raise ConfigError("DIST_BACKEND nccl needs GPUs. Add: DIST_BACKEND gloo")
    dist.init_process_group(backend, init_method=init_method, rank=rank, world_size=world)
    try:
        main(Processes(rank, local_rank, world, device), *args)
    finally:
        dist.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])
