"""What can be wrong between the processes of a run, found in its first seconds and told by host and rank."""

from __future__ import annotations

import contextlib
import os
import platform
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist

from timesformer import __version__
from timesformer.datasets.records import VideoList, fingerprint
from timesformer.distributed import group as distributed
from timesformer.distributed.launch import Processes
from timesformer.utils.env import git_revision
from timesformer.utils.errors import UserError

Result = TypeVar("Result")

SECONDS = 20  # for everything but the reading of the lists
SECONDS_OF_A_SHARED_FOLDER = 5  # until a node may see what another has written


def preflight(
    processes: Processes, read_lists: Callable[[], dict[str, VideoList]], *, output_dir: Path | None
) -> dict[str, VideoList]:
    """The lists of videos, after making sure that all processes can work together.

    They add up numbers, run the same commit, read the same lists, and share the output folder.

    Args:
        processes: this one among all.
        read_lists: gives the lists of each split.
        output_dir: where the run will write; None when it will not.

    Raises:
        UserError: the same on every process, that of `read_lists` too.
    """
    if processes.world_size == 1:
        return read_lists()
    limit = timedelta(seconds=SECONDS)
    group = dist.new_group(backend="gloo", timeout=limit)
    assert isinstance(group, dist.ProcessGroup)
    with _all_answer():
        dist.monitored_barrier(group, limit, wait_all_ranks=True)  # names the ranks that are missing
    _check_sum(processes, group)
    _check_same("the processes run different code", versions(), group)
    lists = together(read_lists)
    _check_same("the lists of videos differ between processes", fingerprints(lists), group)
    if output_dir is not None:
        _check_folder(output_dir, processes.rank, group)
    dist.destroy_process_group(group)
    return lists


@contextlib.contextmanager
def _all_answer() -> Iterator[None]:
    """Tell an exchange that broke off as what it is."""
    try:
        yield
    except RuntimeError as error:
        cause = str(error).partition("\n")[0]
        raise UserError(f"{_place()}: some processes did not answer within {SECONDS} s ({cause})") from error


def _gather(value: Result, group: dist.ProcessGroup | None) -> list[Result]:
    with _all_answer():
        return distributed.all_gather(value, group)


def versions() -> dict[str, str]:
    """What must be equal everywhere for one result."""
    code = git_revision(Path(__file__).resolve().parents[2])
    return {
        "timesformer": __version__,
        "the code's revision": code or "unknown",
        "torch": torch.__version__,
        "Python": platform.python_version(),
    }


def fingerprints(lists: Mapping[str, VideoList]) -> dict[str, str]:
    """What identifies each list."""
    return {f"the {split} list": fingerprint(videos.records) for split, videos in lists.items()}


def together(work: Callable[[], Result], group: dist.ProcessGroup | None = None) -> Result:
    """What `work` returns; when it raises a `UserError` on some process, every process raises what they all said."""
    error = result = None
    try:
        result = work()
    except UserError as raised:
        error = raised
    told = _gather((_place(), error and str(error)), group)
    messages = {message for _, message in told}
    if messages == {None}:
        return result  # type: ignore[return-value]
    if len(messages) == 1 and error:
        raise error
    raise UserError("\n".join(f"{place}: {message}" for place, message in told if message))


def _check_sum(processes: Processes, group: dist.ProcessGroup) -> None:
    """All-reduce the ranks in host memory, and on the device too; raise on every process when a sum is wrong."""
    expected, device = processes.world_size * (processes.world_size + 1) // 2, processes.device
    mine = torch.tensor(processes.rank + 1)
    with _all_answer():
        dist.all_reduce(mine, group=group)
    found = [int(mine)]

    def on_device() -> None:
        tensor = torch.tensor(processes.rank + 1, device=device)
        dist.all_reduce(tensor)
        found.append(int(tensor))

    def judge() -> None:
        if device.type != "cpu":  # in a thread: where the network is not as NCCL thinks, its first use may never end
            thread = threading.Thread(target=on_device, daemon=True)
            thread.start()
            thread.join(SECONDS / 2)
            if len(found) == 1:
                raise UserError(
                    f"{device} exchanges nothing with the others. NCCL says why with NCCL_DEBUG=INFO in the "
                    "environment; often NCCL_SOCKET_IFNAME must name the network interface"
                )
        if any(number != expected for number in found):
            raise UserError(f"the sum over the ranks is {found} and not {expected}")

    together(judge, group)


def _check_same(title: str, facts: Mapping[str, str], group: dist.ProcessGroup) -> None:
    """Raise on every process when `facts` differ between any two of them."""
    told: list[tuple[str, Mapping[str, str]]] = _gather((_place(), facts), group)
    lines = []
    for name in facts:
        places: dict[str, list[str]] = {}
        for place, others in told:
            places.setdefault(others.get(name, "missing"), []).append(place)
        if len(places) > 1:
            lines += [f"  {name}: {value} ({_some(where)})" for value, where in places.items()]
    if lines:
        raise UserError(f"{title}:\n" + "\n".join(lines) + "\nUse one folder of code and data that all nodes see")


def _check_folder(folder: Path, rank: int, group: dist.ProcessGroup) -> None:
    """Every process writes a file, all see that of the first one, and the first one sees all.

    Raises:
        UserError: see above.
    """
    (token,) = {*_gather(f"{time.time_ns():x}" if rank == 0 else None, group)} - {None}
    world = dist.get_world_size(group)
    files = [folder / f".preflight_{token}_{index}" for index in range(world)]

    def write() -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            files[rank].write_text(_place())
        except OSError as error:
            raise UserError(f"cannot write into OUTPUT_DIR {folder}: {error.strerror}") from error

    def look() -> None:
        deadline = time.monotonic() + SECONDS_OF_A_SHARED_FOLDER
        for file in files if rank == 0 else files[:1]:
            while not file.exists():
                if time.monotonic() > deadline:
                    raise UserError(
                        f"OUTPUT_DIR {folder} does not show what rank {file.name.rpartition('_')[2]} has written there"
                    )
                time.sleep(0.1)

    try:
        together(write, group)
        together(look, group)
    except UserError as error:
        raise UserError(f"{error}\nSet OUTPUT_DIR to a folder that all nodes share and may write to") from error
    finally:
        with contextlib.suppress(OSError):  # it was never written
            files[rank].unlink()


def _place() -> str:
    """Host and rank of this process."""
    return f"{os.environ.get('SLURMD_NODENAME') or socket.gethostname()}, rank {distributed.rank()}"


def _some(places: list[str], most: int = 4) -> str:
    more = f" and {len(places) - most} more" if len(places) > most else ""
    return "; ".join(places[:most]) + more
