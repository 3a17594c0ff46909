"""DDP, FSDP2 and one process: the same training, the same checkpoints, evaluation in which nobody waits."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn import functional as F

from timesformer.config import load_config
from timesformer.distributed.parallel import (
    as_many_on_all,
    clip_gradients,
    full_state,
    gathered_parameters,
    joins_every_pass,
    load_full_state,
    no_gradient_sync,
    parallelize,
)
from timesformer.models.vit import TimeSformer
from timesformer.optim.build import build_ema, build_optimizer, freeze_parameters
from timesformer.optim.freezing import set_training_mode
from timesformer.utils.compute import eval_mode

CPU = torch.device("cpu")
RECIPE = ["SOLVER.OPTIMIZING_METHOD", "adamw", "SOLVER.LAYER_DECAY", "0.5", "SOLVER.WEIGHT_DECAY", "0.1"]
RECIPE += ["EMA.ENABLED", "True", "TRAIN.TRAINABLE_BLOCKS", "2", "TRAIN.FREEZE", "[blocks.1.attn.*, '*.mlp.fc1.bias']"]
# The micro-batches of a step of ten clips; the last process has fewer.
CUTS = {1: [[range(0, 10)]], 2: [[range(0, 4), range(4, 6)], [range(6, 10)]]}
NUM_STEPS = 3
CLIPS = torch.randn(10 * NUM_STEPS, 3, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Training:
    """A small transformer in float64 with frozen parts, layer decay, clipping, accumulation and an average."""

    def __init__(self, strategy: str = "ddp", *, start: dict[str, Any] | None = None, recompute: bool = False) -> None:
        self.rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self.cuts = CUTS[world_size][self.rank]
        torch.manual_seed(self.rank)  # every process starts with other weights
        sizes: dict[str, Any] = {"embed_dim": 8, "depth": 3, "num_heads": 2, "drop_path_rate": 0.0, "init": "scratch"}
        model = TimeSformer(4, 2, 4, 2, recompute="blocks" if recompute else "none", **sizes).double()
        if start is not None:
            model.load_state_dict(start["model"])
        cfg = load_config(None, RECIPE).cfg
        freeze_parameters(model, cfg)
        ema = build_ema(model, cfg)
        assert ema is not None
        arguments: dict[str, Any] = {"strategy": strategy, "device": CPU, "world_size": world_size}
        self.wrapped = parallelize(model, **arguments, average=ema.module)
        self.model, self.ema, self.optimizer = model, ema, build_optimizer(model, cfg)
        self.norms: list[float] = []
        self.done = 0 if start is None else start["done"]
        if start is not None:
            load_full_state(self.optimizer, start["optimizer"])
            load_full_state(self.ema.module, start["ema"])
        set_training_mode(model)

    def train_to(self, num_steps: int) -> dict[str, Any]:
        """Train until so many steps are done; the state then."""
        while self.done < num_steps:
            self.step()
        parts = {"model": self.model, "ema": self.ema.module, "optimizer": self.optimizer}
        state = {name: part.state_dict() for name, part in parts.items()}
        return full_state(state | {"done": self.done, "norms": self.norms}, keep=self.rank == 0)

    def step(self) -> None:
        """One step; the loss is a function of the clips of all processes combined."""
        for group in self.optimizer.param_groups:
            group["lr"] = 0.01 * group["lr_scale"]
        self.optimizer.zero_grad(set_to_none=True)
        cuts = list(as_many_on_all(self.wrapped, self.cuts, range(0)))
        for i, cut in enumerate(cuts):
            if i + 1 < len(cuts):
                with no_gradient_sync(self.wrapped):
                    self.loss(cut).backward()
            else:
                self.loss(cut).backward()
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        norm = clip_gradients(trained, 0.01)
        assert not isinstance(norm, DTensor) and norm > 0.01
        self.norms.append(float(norm))
        self.optimizer.step()
        self.done += 1
        self.ema.update(self.wrapped, step=self.done)

    def loss(self, cut: range) -> Tensor:
        if not cut:
            with eval_mode(self.wrapped):
                return self.wrapped(torch.zeros_like(CLIPS[:1])).sum() * 0.0
        num_processes = dist.get_world_size() if dist.is_initialized() else 1
        logits = self.wrapped(CLIPS[10 * self.done :][cut.start : cut.stop])
        return logits.logsumexp(1).sum() * num_processes / 10

    def logits(self, num_passes: int) -> Tensor:
        """Of the averaged model, several times over."""
        with gathered_parameters(self.ema.module), torch.inference_mode():
            return torch.cat([self.ema.module(CLIPS[:2]) for _ in range(num_passes)])


def two_processes(rank: int, folder: str) -> None:
    """What each of them does; the first writes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    written = {"ddp": Training("ddp", recompute=True).train_to(NUM_STEPS)}

    sharded = Training("fsdp", recompute=True)
    assert sharded.wrapped is sharded.model and joins_every_pass(sharded.wrapped)
    held = sum(parameter.to_local().numel() for parameter in sharded.model.parameters())
    assert held < 0.75 * sum(parameter.numel() for parameter in sharded.model.parameters())
    sharded.train_to(1)
    first = sharded.model.state_dict()["model.norm.weight"].full_tensor()
    sharded.logits(1 + 2 * rank)  # uneven shares: nobody waits
    with gathered_parameters(sharded.model), torch.no_grad(), eval_mode(sharded.model):
        assert [len(sharded.model(CLIPS[:1])) for _ in range(3 - rank)] == [1] * (3 - rank)
        assert not isinstance(sharded.model.model.norm.weight, DTensor)
    assert torch.equal(sharded.model.state_dict()["model.norm.weight"].full_tensor(), first)
    written["fsdp halfway"] = copy.deepcopy(sharded.train_to(2))  # plain tensors of a state keep changing
    written["fsdp"] = sharded.train_to(NUM_STEPS)
    written["logits"] = sharded.logits(1)
    written["fsdp from one"] = Training("fsdp", start=torch.load(f"{folder}/one.pt")).train_to(NUM_STEPS)
    if rank == 0:
        torch.save(written, f"{folder}/written.pt")
    check_a_model_without_blocks()
    check_bf16()
    dist.destroy_process_group()


def check_a_model_without_blocks() -> None:
    """Its children are gathered one by one; running statistics are not sharded."""
    model = nn.Sequential(nn.Conv3d(3, 4, 2), nn.BatchNorm3d(4), nn.Flatten(), nn.Linear(36, 2)).double()
    parallelize(model, strategy="fsdp", device=CPU, world_size=2)
    assert [isinstance(child, FSDPModule) for child in model] == [True, True, False, True]
    model(CLIPS[:2]).sum().backward()
    state = full_state(model.state_dict())
    assert state["0.weight"].shape == (4, 3, 2, 2, 2) and state["1.num_batches_tracked"] == 1
    load_full_state(model, {name: torch.ones_like(tensor) for name, tensor in state.items()})
    assert all(bool((tensor == 1).all()) for tensor in full_state(model.state_dict()).values())


def check_bf16() -> None:
    """Blocks are gathered in bf16, which is what autocast makes of them; gradients and sums stay in fp32."""

    def layer_norm(self: nn.LayerNorm, x: Tensor) -> Tensor:  # as under CUDA's autocast
        return F.layer_norm(x.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps)

    nn.LayerNorm.forward = layer_norm

    def gradients(model: nn.Module, clips: Tensor) -> dict[str, Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(clips).float().logsumexp(1).sum()
        (loss * len(CLIPS[:4]) / len(clips) / 4).backward()
        return full_state({name: parameter.grad for name, parameter in model.named_parameters()})

    sizes: dict[str, Any] = {"embed_dim": 16, "depth": 3, "num_heads": 2, "drop_path_rate": 0.0, "init": "scratch"}
    torch.manual_seed(0)
    model, clips = TimeSformer(4, 2, 4, 2, **sizes), CLIPS[:4].float()
    alone = copy.deepcopy(model)
    parallelize(model, strategy="fsdp", device=CPU, world_size=2, dtype=torch.bfloat16)
    found = gradients(model, clips[2 * dist.get_rank() :][:2])
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}
    wanted = gradients(alone, clips)
    for name, gradient in found.items():
        difference = (gradient - wanted[name]).norm() / wanted[name].norm().clamp_min(1e-6)
        assert difference < 0.1, (name, difference)  # bf16, in other batches
    with gathered_parameters(model):
        assert model.blocks[0].attn.qkv.weight.dtype == torch.bfloat16
        assert model.head.weight.dtype == torch.float32
    assert model.blocks[0].attn.qkv.weight.dtype == torch.float32


def test_two_processes_are_as_one_whatever_the_strategy(tmp_path: Path) -> None:
    one = Training()
    torch.save(one.train_to(2), tmp_path / "one.pt")
    expected = one.train_to(NUM_STEPS)
    torch.multiprocessing.spawn(two_processes, args=(str(tmp_path),), nprocs=2)
    written = torch.load(tmp_path / "written.pt")

    def check(found: dict[str, Any], norms: int = NUM_STEPS) -> None:
        assert found["optimizer"]["param_groups"] == expected["optimizer"]["param_groups"]
        for part in ("model", "ema"):
            assert list(found[part]) == list(expected[part])
            torch.testing.assert_close(found[part], dict(expected[part]), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found["optimizer"], expected["optimizer"], rtol=1e-9, atol=1e-15)
        torch.testing.assert_close(found["norms"], expected["norms"][-norms:], rtol=1e-9, atol=0)

    check(written["ddp"])
    check(written["fsdp"])
    check(written["fsdp from one"], norms=1)
    check(Training(start=written["fsdp halfway"]).train_to(NUM_STEPS), norms=1)
    torch.testing.assert_close(written["logits"], one.logits(1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_one_process_has_nothing_to_share_out(strategy: str) -> None:
    model = nn.Linear(2, 2)
    assert parallelize(model, strategy=strategy, device=CPU, world_size=1) is model
    assert not joins_every_pass(model)
    assert list(as_many_on_all(model, [1, 2], 0)) == [1, 2]
    with no_gradient_sync(model), gathered_parameters(model):
        model(torch.ones(1, 2)).sum().backward()
    state = model.state_dict()
    assert full_state(state, keep=False)["weight"] is state["weight"]
    load_full_state(model, {"weight": torch.ones(2, 2), "bias": torch.zeros(2)})
    assert model.weight.eq(1).all()


def test_only_fsdp_imports_what_fsdp_needs() -> None:
    code = "import sys, timesformer.engine.run, timesformer.optim.build; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch.distributed.fsdp", "torch.distributed.tensor"} & {*done.stdout.split()}


def test_state_of_another_model_is_refused() -> None:
    def trained(width: int, layers: int = 1) -> torch.optim.Optimizer:
        model = nn.Sequential(*(nn.Linear(width, width) for _ in range(layers)))
        optimizer = torch.optim.AdamW(model.parameters())
        model(torch.ones(1, width)).sum().backward()
        optimizer.step()
        return optimizer

    load_full_state(trained(2), trained(2).state_dict())
    with pytest.raises(ValueError, match=r"exp_avg of parameter 0 has shape \(3, 3\), not \(2, 2\)"):
        load_full_state(trained(2), trained(3).state_dict())
    with pytest.raises(ValueError, match="parameter 2, but there are 2"):
        load_full_state(trained(2), trained(2, layers=2).state_dict())
    with pytest.raises(RuntimeError, match="size mismatch"):
        load_full_state(nn.Linear(2, 2), nn.Linear(3, 3).state_dict())
