"""What can be wrong between the processes of a run, found in its first seconds and reported by host and rank."""

from __future__ import annotations

import contextlib
import platform
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist

from timesformer import __version__
from timesformer.distributed.group import all_answer, all_gather, host_and_rank, on_all_processes
from timesformer.distributed.launch import Processes
from timesformer.utils.env import git_state
from timesformer.utils.errors import UserError

Lists = TypeVar("Lists")

SECONDS = 20  # for everything but the reading of the lists, and the first exchange between GPUs
SECONDS_OF_A_SHARED_FOLDER = 5  # until a node may see what another has written


def preflight(
    processes: Processes,
    read_lists: Callable[[], Lists],
    *,
    fingerprints: Callable[[Lists], Mapping[str, str]],
    output_dir: Path | None,
    seconds: int = SECONDS,
) -> Lists:
    """The lists of videos, after making sure that all processes can work as one run.

    They add up numbers, run the same commit, read the same lists, and share the output folder.

    Args:
        processes: this one among all.
        read_lists: gives the lists of each split.
        fingerprints: what identifies each list, by split.
        output_dir: where the run will write; None when it will not.
        seconds: longest wait for the first exchange between GPUs, whose connections are made then.

    Raises:
        UserError: the same on every process, that of `read_lists` too.
    """
    if processes.world_size == 1:
        return read_lists()
    limit = timedelta(seconds=SECONDS)
    wait = SECONDS // 2 if processes.device.type == "cpu" else seconds
    # Whoever has its sum waits for the others', and then as long for their reports.
    group = dist.new_group(backend="gloo", timeout=limit + timedelta(seconds=wait))
    assert isinstance(group, dist.ProcessGroup)
    with all_answer():
        dist.monitored_barrier(group, limit, wait_all_ranks=True)  # names the ranks that are missing
    on_all_processes(lambda: _check_sum(processes, wait), group)
    _check_same("the processes run different code", versions(), group)
    lists = on_all_processes(read_lists)
    identities = {f"the {split} list": identity for split, identity in fingerprints(lists).items()}
    _check_same("the lists of videos differ between processes", identities, group)
    if output_dir is not None:
        _check_folder(output_dir, processes.rank, group)
    dist.destroy_process_group(group)
    return lists


def versions() -> dict[str, str]:
    """What must be equal everywhere for one result."""
    code = git_state(Path(__file__).resolve().parents[2]) or {}
    return {
        "timesformer": __version__,
        "the code's revision": code.get("revision") or "unknown",
        "torch": torch.__version__,
        "Python": platform.python_version(),
    }


def _check_sum(processes: Processes, seconds: float) -> None:
    """All-reduce the ranks on the device: in a thread, since a first use of NCCL may never end on a wrong network."""
    found: list[int] = []

    def add_up() -> None:
        tensor = torch.tensor(processes.rank + 1, device=processes.device)
        dist.all_reduce(tensor)
        found.append(int(tensor))

    thread = threading.Thread(target=add_up, daemon=True)
    thread.start()
    thread.join(seconds)
    if not found:
        raise UserError(
            f"{processes.device} could not exchange data with the other processes within {seconds} s. With "
            "NCCL_DEBUG=INFO in the environment NCCL says why; often NCCL_SOCKET_IFNAME must name the network "
            "interface. On GPUs, a longer wait: DIST.RENDEZVOUS_SECONDS"
        )
    if found[0] != (expected := processes.world_size * (processes.world_size + 1) // 2):
        raise UserError(f"the sum over the ranks is {found[0]} and not {expected}")


def _check_same(title: str, facts: Mapping[str, str], group: dist.ProcessGroup) -> None:
    """Raise on every process when `facts` differ between any two of them."""
    with all_answer():
        gathered: list[tuple[str, Mapping[str, str]]] = all_gather((host_and_rank(), facts), group)
    lines = []
    for name in facts:
        processes: dict[str, list[str]] = {}  # by the fact's value
        for process, others in gathered:
            processes.setdefault(others.get(name, "missing"), []).append(process)
        if len(processes) > 1:
            lines += [f"  {name}: {value} ({_some(which)})" for value, which in processes.items()]
    if lines:
        raise UserError(f"{title}:\n" + "\n".join(lines) + "\nUse one folder of code and data that all nodes see")


def _some(processes: list[str], most: int = 4) -> str:
    more = f" and {len(processes) - most} more" if len(processes) > most else ""
    return "; ".join(processes[:most]) + more


def _check_folder(folder: Path, rank: int, group: dist.ProcessGroup) -> None:
    """Every process writes a file and sees that of the first one, else a `UserError`."""
    with all_answer():
        token = all_gather(f"{time.time_ns():x}", group)[0]  # the first one's
    first, own = (folder / f".preflight_{token}_{index}" for index in (0, rank))

    def write() -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            own.write_text(host_and_rank())
        except OSError as error:
            raise UserError(f"cannot write into OUTPUT_DIR {folder}: {error.strerror}") from error

    def look() -> None:
        deadline = time.monotonic() + SECONDS_OF_A_SHARED_FOLDER
        while not first.exists():
            if time.monotonic() > deadline:
                raise UserError(f"OUTPUT_DIR {folder} does not show what rank 0 has written there")
            time.sleep(0.1)

    try:
        on_all_processes(write, group)
        on_all_processes(look, group)
    except UserError as error:
        raise UserError(f"{error}\nSet OUTPUT_DIR to a folder that all nodes share and may write to") from error
    finally:
        with contextlib.suppress(OSError):  # it was never written
            own.unlink()
