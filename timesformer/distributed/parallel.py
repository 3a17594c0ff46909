"""Several processes on one model: replicas (DDP) or shards (FSDP2), and whole weights in and out of either.

Under FSDP2 the model keeps its class and its parameters' names; each parameter becomes a `DTensor`, of which a process
holds its slice of the first dimension. A layer's parameters are gathered when it runs and dropped again, so every
forward and backward pass is an exchange among all processes. Checkpoints hold whole tensors whatever the strategy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from timesformer.distributed import group as distributed

T = TypeVar("T")


def parallelize(
    model: nn.Module, *, strategy: str, device: torch.device, world_size: int, average: nn.Module | None = None
) -> nn.Module:
    """The model to train with, the first process's weights on all of them; collective.

    Call it when the weights are loaded, what stays frozen is frozen and the average is made, and before the optimiser
    is built: FSDP2 replaces the parameters. With one process there is nothing to do.

    Args:
        model: on `device`; FSDP2 shards it in place.
        strategy: "ddp", every process holds the whole model, or "fsdp", its parameters are shared out.
        average: a copy of the model that holds the moving average of its weights; shared out alike.

    Returns:
        `model` in `DistributedDataParallel`, or `model` itself.
    """
    if world_size == 1:
        return model
    for module in (model, average):
        if module is not None:
            _take_first_process_weights(module)
    if strategy == "ddp":
        return DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)
    mesh = init_device_mesh(device.type, (world_size,))
    for module in (model, average):
        if module is not None:
            for layer in _layers(module):
                fully_shard(layer, mesh=mesh)
            fully_shard(module, mesh=mesh, reshard_after_forward=False)  # its own few are needed at once in backward
    return model


@contextlib.contextmanager
def no_gradient_sync(model: nn.Module) -> Iterator[None]:
    """Forward and backward passes whose gradients stay in this process until the next pass outside."""
    if isinstance(model, DistributedDataParallel):
        with model.no_sync():
            yield
    elif isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            model.set_requires_gradient_sync(True)
    else:
        yield


def joins_every_pass(model: nn.Module) -> bool:
    """Whether the processes must run the same number of forward and backward passes, with clips or without."""
    return isinstance(model, FSDPModule)


def as_many_on_all(model: nn.Module, batches: Iterable[T], filler: T) -> Iterator[T]:
    """The batches, then `filler` until every process has had as many, where the model needs that; collective then."""
    if not joins_every_pass(model):
        yield from batches
        return
    iterator = iter(batches)
    while distributed.totals([int((batch := next(iterator, None)) is not None)])[0]:
        yield filler if batch is None else batch


def clip_gradients(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale the gradients down to `max_norm` over all parameters; their norm before, (), same on all processes.

    Collective when the parameters are sharded; does not wait for the device.
    """
    norm: Any = nn.utils.clip_grad_norm_(parameters, max_norm)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


@contextlib.contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Give every process all weights of a sharded model, for forward passes in which none waits for another.

    For evaluation: processes may have different numbers of batches. Entering is collective and must happen outside
    `torch.inference_mode()` (training goes on with these tensors); inside, gradients cannot be computed. Other models
    are whole already.
    """
    shards = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for shard in shards:
        shard.set_reshard_after_forward(False, recurse=False)
        shard.unshard()
    try:
        yield
    finally:
        for shard in shards:
            shard.set_reshard_after_forward(shard is not model, recurse=False)
            shard.reshard()


def full_state(tree: Any, *, keep: bool = True) -> Any:
    """The same nest of mappings, lists and tuples with every sharded tensor as a whole one on the CPU; collective then.

    Plain tensors stay as they are: not copied, not moved.

    Args:
        tree: the same on all processes.
        keep: False: this process only takes part, and gets None for each sharded tensor.
    """
    if isinstance(tree, DTensor):
        tensor = tree.full_tensor().detach()
        return tensor.cpu() if keep else None
    if isinstance(tree, Mapping):
        return {key: full_state(value, keep=keep) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(full_state(value, keep=keep) for value in tree)
    return tree


def load_full_state(target: nn.Module | torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """`target.load_state_dict(state)` where `state` holds whole tensors and the parameters may be sharded.

    Every process gives the same state and takes its own slices; nothing is exchanged.

    Raises:
        RuntimeError: names or shapes of weights do not fit.
        ValueError: an optimiser's groups or the shapes of its state do not fit.
    """
    if isinstance(target, nn.Module):
        own = target.state_dict()
        target.load_state_dict({name: _placed_like(own.get(name), value) for name, value in state.items()})
        return
    parameters = [parameter for group in target.param_groups for parameter in group["params"]]
    placed = {}
    for number, values in state["state"].items():
        if number >= len(parameters):
            raise ValueError(f"it has parameter {number}, but there are {len(parameters)}")
        parameter = parameters[number]
        for name, value in values.items():
            if isinstance(value, Tensor) and value.ndim and value.shape != parameter.shape:  # () is a count of steps
                shapes = f"{tuple(value.shape)}, not {tuple(parameter.shape)}"
                raise ValueError(f"{name} of parameter {number} has shape {shapes}")
        placed[number] = {name: _placed_like(parameter, value) for name, value in values.items()}
    target.load_state_dict({**state, "state": placed})


def _placed_like(own: Any, value: Any) -> Any:
    """This process's slice of a whole tensor where its counterpart `own` is sharded; otherwise `value` itself."""
    if not (isinstance(own, DTensor) and isinstance(value, Tensor) and value.ndim):
        return value
    value = value.to(own.device)
    return distribute_tensor(value, own.device_mesh, own.placements, src_data_rank=None)  # None: sends nothing


def _layers(model: nn.Module) -> list[nn.Module]:
    """What is gathered at a time: the modules of lists named `blocks`, or else the children that have parameters."""
    lists = [
        module
        for name, module in model.named_modules()
        if name.rpartition(".")[2] == "blocks" and isinstance(module, nn.ModuleList)
    ]
    if lists:
        return [block for blocks in lists for block in blocks]
    containers = (nn.ModuleList, nn.ModuleDict)  # are never called themselves
    return [m for m in model.children() if not isinstance(m, containers) and any(True for _ in m.parameters())]


def _take_first_process_weights(model: nn.Module) -> None:
    for tensor in (*model.parameters(), *model.buffers()):
        dist.broadcast(tensor.detach(), src=0)
