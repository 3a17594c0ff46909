"""A compiled model trains to the same weights, alone and beside others, keeps its names, and says what it needs."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from timesformer.datasets.video_dataset import Batch
from timesformer.distributed.parallel import full_state, gathered_parameters, parallelize
from timesformer.engine import checkpoint as checkpoints
from timesformer.engine.compiling import check_compiler, compile_model
from timesformer.engine.step import TrainStep
from timesformer.models.vit import TimeSformer
from timesformer.utils.compute import eval_mode
from timesformer.utils.errors import ConfigError

CPU = torch.device("cpu")
SIZES: dict[str, Any] = {"img_size": 16, "patch_size": 8, "num_classes": 5, "num_frames": 2, "embed_dim": 16}
SIZES |= {"depth": 2, "num_heads": 2, "drop_path_rate": 0.0, "init": "scratch"}
CUTS = ([3, 3, 2], [3])  # micro-batches of a step: of one process or the first, and of the second
TRACED = partial(torch.compile, backend="aot_eager")  # all but the generated code, which takes long to compile


def step_of(wrapped: torch.nn.Module, model: torch.nn.Module) -> TrainStep:
    """A step of `model`, which is `wrapped` for several processes or not."""
    return TrainStep(
        wrapped,
        torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1),
        device=CPU,
        dtype=None,
        normalize=lambda clips: clips / 255,
        clip_shape=(3, 2, 16, 16),
        num_classes=5,
        loss="cross_entropy",
        label_smoothing=0.0,
        clip_grad_norm=1.0,
        mixer=None,
    )


def trained(*, compiled: bool, strategy: str = "ddp", **changes: Any) -> list[Any]:
    """Weights after two steps with a frozen stem and accumulation, and logits of another size of batch."""
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    torch.manual_seed(0)
    model = TimeSformer(**SIZES | changes)
    model.model.patch_embed.requires_grad_(False)
    wrapped = parallelize(model, strategy=strategy, device=CPU, world_size=world_size)
    if compiled:
        compile_model(model)
    take_step = step_of(wrapped, model)
    num_samples = sum(map(sum, CUTS[:world_size]))
    generator = torch.Generator().manual_seed(rank)
    for number in range(2):
        batches = []
        for n in CUTS[rank]:
            clips = torch.randint(0, 256, (n, 3, 2, 16, 16), generator=generator).to(torch.uint8)
            batches.append(Batch(clips, [1] * n, [0] * n, [0] * n, [1] * n, [1.0] * n, [], []))
        take_step(batches, num_samples=num_samples, epoch=0, lr=0.1, global_step=number)
    with gathered_parameters(model), torch.inference_mode(), eval_mode(model):
        logits = model(torch.ones(1 + rank, 3, 2, 16, 16)).clone()
    assert all((block._compiled_call_impl is not None) == compiled for block in model.blocks)
    return [full_state(model.state_dict()), logits]


@pytest.mark.slow
def test_the_same_training() -> None:
    compiled, plain = (trained(compiled=compiled, depth=1) for compiled in (True, False))
    torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"recompute": "cheap"}, {"recompute": "blocks"}, {"attention_type": "axial"}])
def test_the_same_training_as_traced(monkeypatch: pytest.MonkeyPatch, changes: dict[str, str]) -> None:
    plain = trained(compiled=False, **changes)
    monkeypatch.setattr(torch, "compile", TRACED)
    torch.testing.assert_close(trained(compiled=True, **changes), plain, rtol=1e-5, atol=1e-6)


def one_of_two_processes(rank: int, folder: str) -> None:
    """Train with each strategy, compiled and not."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.compile = TRACED
    results = [[trained(compiled=c, strategy=s) for c in (True, False)] for s in ("ddp", "fsdp")]
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(one_of_two_processes, args=(str(tmp_path),), nprocs=2)
    for rank in range(2):
        for compiled, plain in torch.load(tmp_path / f"{rank}.pt"):
            torch.testing.assert_close(compiled, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_run_from_end_to_end_goes_on_bit_for_bit(tmp_path: Path, run: Callable[..., int]) -> None:
    options = ["MODEL.COMPILE", True, "MODEL.DROP_PATH_RATE", 0.3, "EMA.ENABLED", True, "TRAIN.BATCH_SIZE", 10]
    assert run(tmp_path / "once", *options) == 0
    assert run(tmp_path / "twice", *options, "SOLVER.MAX_EPOCH", 2, "TRAIN.CHECKPOINT_PERIOD_STEPS", 1) == 0
    (tmp_path / "twice" / "checkpoints" / "checkpoint_epoch_00002.pyth").unlink()
    assert run(tmp_path / "twice", *options, "TRAIN.AUTO_RESUME", True, "TRAIN.CHECKPOINT_PERIOD_STEPS", 1) == 0
    contents = [checkpoints.read_checkpoint(tmp_path / x / "checkpoints/checkpoint_epoch_00002.pyth") for x in
                ("once", "twice")]  # fmt: skip
    for name in ("model_state", "ema_state"):
        torch.testing.assert_close(contents[0][name], contents[1][name], rtol=0, atol=0)
    assert (tmp_path / "once/predictions.csv").read_text() == (tmp_path / "twice/predictions.csv").read_text()


def test_a_program_serves_every_block_that_computes_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Blocks of different rates of stochastic depth share one; DDP's empty pass ahead of the first step adds none."""
    programs: list[Any] = []

    def count(graph: Any, inputs: Any) -> Any:
        programs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=count))
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        model = TimeSformer(**SIZES | {"depth": 6, "drop_path_rate": 0.2})
        assert len({block.drop_path.drop_prob for block in model.blocks}) == 6
        compile_model(model)
        take_step = step_of(torch.nn.parallel.DistributedDataParallel(model), model)
        clips = torch.zeros(2, 3, 2, 16, 16, dtype=torch.uint8)
        batch = Batch(clips, [1] * 2, [0] * 2, [0] * 2, [1] * 2, [1.0] * 2, [], [])
        for number in range(3):
            take_step([batch], num_samples=2, epoch=0, lr=0.1, global_step=number)
        assert len(programs) == 3  # without stochastic depth, with it, and for the cls token only
    finally:
        dist.destroy_process_group()


def test_names_stay_and_copies_are_not_compiled() -> None:
    model = TimeSformer(**SIZES)
    names = list(model.state_dict())
    compile_model(model)
    assert list(model.state_dict()) == names and type(model) is TimeSformer
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert all(part._compiled_call_impl is None for part in other.modules()) and list(other.state_dict()) == names


@pytest.mark.parametrize(
    "device, needs", [("cpu", "a C.. compiler.*apt-get install g"), ("meta", "triton. Type: pip install triton")]
)
def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, device: str, needs: str) -> None:
    def refuse(function: Any) -> Any:
        raise RuntimeError("No working compiler found\nand so on")

    monkeypatch.setattr(torch, "compile", refuse)
    with pytest.raises(ConfigError, match=f"MODEL.COMPILE True needs {needs}.*or MODEL.COMPILE False .No working"):
        check_compiler(torch.device(device))
