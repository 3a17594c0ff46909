"""The process group, from its rendezvous to the few collectives the engine needs; trivial with one process."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar
from urllib.parse import urlparse

import torch
import torch.distributed as dist
from torch import nn

from timesformer.utils.errors import UserError

Result = TypeVar("Result")

# Longest wait of a collective of the run. NCCL's own is 10 minutes, which compiling a model in one process may exceed.
COLLECTIVE_LIMIT = timedelta(minutes=30)


def is_distributed() -> bool:
    """Whether a process group is up."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Index of this process among all processes, from 0."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Number of processes over all nodes."""
    return dist.get_world_size() if is_distributed() else 1


def host_and_rank() -> str:
    """This process, as messages name it."""
    return f"{os.environ.get('SLURMD_NODENAME') or socket.gethostname()}, rank {rank()}"


def join(address: str, *, rank: int, world_size: int, hosts_store: bool, backend: str, seconds: int) -> None:
    """Meet the other processes and form the group; later collectives have `COLLECTIVE_LIMIT`.

    Args:
        address: tcp://HOST:PORT, or another init method of torch.distributed, such as file:///shared/file.
        rank, world_size: this process and how many there are.
        hosts_store: whether this process listens at the address.
        backend: of torch.distributed; see `init_process_group`.
        seconds: longest wait.

    Raises:
        UserError: the host is unknown, the port taken, or not all came in time.
    """
    deadline = time.monotonic() + seconds
    try:
        if address.startswith("tcp://"):
            parts = urlparse(address)
            host, port = parts.hostname or "", parts.port or 0
            if not hosts_store:
                _wait_for(host, port, deadline)
            store = dist.TCPStore(host, port, world_size, hosts_store, _left(deadline), multi_tenant=True)
        else:
            store, _, _ = next(dist.rendezvous(address, rank, world_size, timeout=_left(deadline)))
        # A first group, of the same hosts, whose connections must be made in the time that is left.
        rehearsal = dist.PrefixStore("rehearsal", store)
        dist.init_process_group("gloo", store=rehearsal, rank=rank, world_size=world_size, timeout=_left(deadline))
        dist.barrier()
        dist.destroy_process_group()
    except (OSError, RuntimeError) as error:
        this = f"rank {rank} of {world_size} on {socket.gethostname()}"
        raise UserError(f"{this} {_explain(error, address, world_size, seconds)}") from error
    # Without `device_id`: NCCL would connect here, without a limit, and not in the preflight, which has one.
    own = dist.PrefixStore("run", store)
    dist.init_process_group(backend, store=own, rank=rank, world_size=world_size, timeout=COLLECTIVE_LIMIT)


def _left(deadline: float) -> timedelta:
    return timedelta(seconds=max(1.0, deadline - time.monotonic()))


def _wait_for(host: str, port: int, deadline: float) -> None:
    """Until somebody listens; torch's own wait takes up to twice its time-out and prints stacks meanwhile."""
    socket.getaddrinfo(host, port)  # an unknown name is an error at once
    while True:
        try:
            socket.create_connection((host, port), timeout=_left(deadline).total_seconds()).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _explain(error: Exception, address: str, world_size: int, seconds: int) -> str:
    cause = str(error).partition("\n")[0]
    if isinstance(error, socket.gaierror):
        return (
            f"cannot resolve the host name in {address} ({error.strerror}). Check the name (MASTER_ADDR, or the one in "
            "--init_method) with: getent hosts NAME"
        )
    if "EADDRINUSE" in cause:
        return f"cannot listen at {address}: the port is taken. Set MASTER_PORT (or --init_method) to a free one"
    return (
        f"did not find all the others at {address} within {seconds} s ({cause}). Check that all {world_size} "
        "processes were started with the same address, that this node reaches that port (firewall), and the network "
        "interface (GLOO_SOCKET_IFNAME, NCCL_SOCKET_IFNAME). A longer wait: DIST.RENDEZVOUS_SECONDS"
    )


def broadcast_buffers(model: nn.Module) -> None:
    """Give every process the first one's running statistics, which each updates from its own clips."""
    if is_distributed():
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def barrier() -> None:
    """Wait for all processes, in host memory: NCCL would have to guess a device."""
    totals([0])


def all_gather(value: Any, group: dist.ProcessGroup | None = None) -> list[Any]:
    """The picklable `value` of every process (of the group), in rank order, on every process."""
    if not is_distributed():
        return [value]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, value, group=group)
    return gathered


def totals(values: Sequence[int]) -> list[int]:
    """Each of `values` summed over all processes, on every process; in host memory, so it waits for no device."""
    if not is_distributed():
        return list(values)
    tensor = torch.tensor(values, dtype=torch.int64)
    dist.all_reduce(tensor)
    return [int(value) for value in tensor]


def on_all_processes(work: Callable[[], Result], group: dist.ProcessGroup | None = None) -> Result:
    """What `work` returns here; a `UserError` of some process is raised on every process, with what each reports."""
    error = result = None
    try:
        result = work()
    except UserError as raised:
        error = raised
    with all_answer():
        reports = all_gather((host_and_rank(), error and str(error)), group)
    messages = {message for _, message in reports}
    if messages == {None}:
        return result  # type: ignore[return-value]
    if len(messages) == 1 and error:
        raise error
    raise UserError("\n".join(f"{process}: {message}" for process, message in reports if message))


@contextlib.contextmanager
def all_answer() -> Iterator[None]:
    """Report an exchange that breaks off, or exceeds the time limit of its group, as a `UserError`."""
    try:
        yield
    except RuntimeError as error:
        cause = str(error).partition("\n")[0]
        raise UserError(f"{host_and_rank()}: some processes did not answer in time ({cause})") from error
