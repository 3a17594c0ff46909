"""Several processes on one model: replicas (DDP) or shards (FSDP2), and full weights in and out of either.

Under FSDP2 the model keeps its class and its parameters' names; each parameter becomes a `DTensor`, of which a process
holds its slice of the first dimension. A layer's parameters are gathered when it runs and dropped again, so every
forward and backward pass is an exchange among all processes. Checkpoints hold full tensors whatever the strategy.

What only FSDP2 needs is imported when it is used: importing it takes longer than importing the model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from timesformer.distributed import group as distributed
from timesformer.utils.compute import is_sharded

T = TypeVar("T")


def parallelize(
    model: nn.Module,
    *,
    strategy: str,
    device: torch.device,
    world_size: int,
    average: nn.Module | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """The model to train with, the first process's weights on all of them; collective.

    Call it when the weights are loaded, what stays frozen is frozen and the average is made, and before the optimiser
    is built: FSDP2 replaces the parameters. With one process there is nothing to do.

    Args:
        model: on `device`; FSDP2 shards it in place.
        strategy: "ddp", every process holds the full model, or "fsdp", its parameters are sharded.
        dtype: of autocast, on devices whose autocast casts the weights of norms too, as CUDA's does and a CPU's does
            not. Where it is bf16, sharded blocks are gathered in bf16, and their gradients summed in fp32.
        average: a copy of the model that holds the moving average of its weights; sharded like it.

    Returns:
        `model` in `DistributedDataParallel`, or `model` itself.
    """
    if world_size == 1:
        return model
    modules = [model] if average is None else [model, average]
    for module in modules:
        for tensor in (*module.parameters(), *module.buffers()):
            dist.broadcast(tensor.detach(), src=0)
    return _wrapped(modules, strategy, device, world_size, dtype)


def _wrapped(
    modules: list[nn.Module], strategy: str, device: torch.device, world_size: int, dtype: torch.dtype | None
) -> nn.Module:
    """The first of `modules` to train with; FSDP2 shards all of them."""
    model = modules[0]
    if strategy == "ddp":
        # Not `static_graph`: the empty passes of a process without clips do not use the graph of the others.
        devices = None if device.type == "cpu" else [device.index]
        return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh, policy = init_device_mesh(device.type, (world_size,)), MixedPrecisionPolicy()
    if dtype == torch.bfloat16:  # what autocast would make of them; the sums of a block with its input stay in fp32
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for module in modules:
        for layer in _layers(module):
            fully_shard(layer, mesh=mesh, mp_policy=policy)
        fully_shard(module, mesh=mesh, reshard_after_forward=False)  # its own few are needed at once in backward
    return model


def _layers(model: Any) -> list[nn.Module]:
    """What is gathered at a time: the model's `blocks`, without any the children that have parameters."""
    blocks = list(getattr(model, "blocks", ()))
    return blocks or [child for child in model.children() if any(True for _ in child.parameters())]


def joins_every_pass(model: nn.Module) -> bool:
    """Whether the processes must run the same number of forward and backward passes, with clips or without (FSDP2)."""
    return hasattr(model, "set_requires_gradient_sync")


@contextlib.contextmanager
def no_gradient_sync(model: nn.Module) -> Iterator[None]:
    """Forward and backward passes whose gradients stay in this process until the next pass outside."""
    if joins_every_pass(model):
        model.set_requires_gradient_sync(False)  # type: ignore[operator]
        try:
            yield
        finally:
            model.set_requires_gradient_sync(True)  # type: ignore[operator]
    else:
        with model.no_sync() if isinstance(model, DistributedDataParallel) else contextlib.nullcontext():
            yield


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
    return norm.full_tensor() if is_sharded(norm) else norm


@contextlib.contextmanager
def gathered_parameters(model: nn.Module) -> Iterator[None]:
    """Give every process all weights of a sharded model, for forward passes in which none waits for another.

    For evaluation: processes may have different numbers of batches. Entering is collective and must happen outside
    `torch.inference_mode()` (training continues with these tensors); inside, gradients cannot be computed. Models that
    are not sharded have all weights already.
    """
    shards: list[Any] = [module for module in model.modules() if joins_every_pass(module)]
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
    """The same nest of mappings, lists and tuples with every sharded tensor as a full one on the CPU; collective then.

    Plain tensors stay as they are: not copied, not moved.

    Args:
        tree: the same on all processes.
        keep: False: this process only takes part, and gets None for each sharded tensor.
    """
    if is_sharded(tree):
        tensor = tree.full_tensor().detach()
        return tensor.cpu() if keep else None
    if isinstance(tree, Mapping):
        return {key: full_state(value, keep=keep) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(full_state(value, keep=keep) for value in tree)
    return tree


def load_full_state(target: nn.Module | torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """`target.load_state_dict(state)` where `state` holds full tensors and the parameters may be sharded.

    Every process gives the same state and takes its own slices; nothing is exchanged.

    Raises:
        RuntimeError: names or shapes of weights do not fit.
        ValueError: an optimiser's groups or the shapes of its state do not fit.
    """
    if isinstance(target, nn.Module):
        own = target.state_dict()
        target.load_state_dict({name: _sharded_like(own.get(name), value) for name, value in state.items()})
        return
    parameters = [parameter for group in target.param_groups for parameter in group["params"]]
    sharded = {}
    for number, values in state["state"].items():
        if number >= len(parameters):
            raise ValueError(f"it has parameter {number}, but there are {len(parameters)}")
        parameter = parameters[number]
        for name, value in values.items():
            if isinstance(value, Tensor) and value.ndim and value.shape != parameter.shape:  # () is a count of steps
                shapes = f"{tuple(value.shape)}, not {tuple(parameter.shape)}"
                raise ValueError(f"{name} of parameter {number} has shape {shapes}")
        sharded[number] = {name: _sharded_like(parameter, value) for name, value in values.items()}
    target.load_state_dict({**state, "state": sharded})


def _sharded_like(own: Any, value: Any) -> Any:
    """This process's slice of a full tensor where its counterpart `own` is sharded; otherwise `value` itself."""
    if not (is_sharded(own) and isinstance(value, Tensor) and value.ndim):
        return value
    from torch.distributed.tensor import distribute_tensor

    value = value.to(own.device)
    return distribute_tensor(value, own.device_mesh, own.placements, src_data_rank=None)  # None: sends nothing
