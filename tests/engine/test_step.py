"""One gradient step: the same for any cut into micro-batches, frozen parts left alone, loud about bad losses."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from timesformer.config import load_config
from timesformer.datasets.video_dataset import Batch, Failure
from timesformer.engine.step import TrainStep
from timesformer.models.vit import TimeSformer
from timesformer.optim.build import build_ema, build_optimizer, freeze_parameters
from timesformer.optim.freezing import set_training_mode
from timesformer.utils.compute import autocast_dtype, choose_precision, eval_mode
from timesformer.utils.errors import ConfigError

NUM_CLASSES = 4


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 2 * 4 * 4, NUM_CLASSES)
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)

    def forward(self, clips: Tensor) -> Tensor:
        return self.head(clips.flatten(1))


def make_batch(indices: range) -> Batch:
    clips = [torch.randint(0, 256, (3, 2, 4, 4), generator=torch.Generator().manual_seed(i)) for i in indices]
    return Batch(
        clips=torch.stack(clips).to(torch.uint8) if clips else None,
        labels=[i % NUM_CLASSES for i in indices],
        indices=list(indices),
        positions=list(indices),
        views_per_video=[1] * len(indices),
        distinct_frames=[2.0] * len(indices),
        failures=[],
        warnings=[],
    )


def make_step(model: nn.Module, **changes: object) -> TrainStep:
    settings: dict = {
        "device": torch.device("cpu"),
        "dtype": None,
        "normalize": lambda clips: clips.float() / 255,
        "clip_shape": (3, 2, 4, 4),
        "num_classes": NUM_CLASSES,
        "loss": "cross_entropy",
        "label_smoothing": 0.1,
        "clip_grad_norm": 0.0,
        "mixer": None,
    }
    trained = [p for p in model.parameters() if p.requires_grad]
    return TrainStep(model, torch.optim.SGD(trained, lr=1.0), **(settings | changes))


def weights_after(cuts: list[range], *, num_samples: int = 10) -> Tensor:
    torch.manual_seed(0)
    model = Linear()
    make_step(model)((make_batch(cut) for cut in cuts), num_samples=num_samples, epoch=0, lr=0.5, global_step=0)
    return model.head.weight.detach().clone()


@pytest.mark.parametrize(
    "cuts",
    [
        [range(0, 4), range(4, 8), range(8, 10)],
        [range(0, 2), range(2, 4), range(4, 6), range(6, 8), range(8, 10)],
        [range(0, 6), range(6, 10), range(0, 0)],
    ],
)
def test_defect_11_accumulation_is_exact_for_uneven_micro_batches(cuts: list[range]) -> None:
    """Frozen parameters are left alone too: the model of these tests has one."""
    torch.testing.assert_close(weights_after(cuts), weights_after([range(0, 10)]), rtol=1e-5, atol=1e-7)


def test_clips_that_could_not_be_read_do_not_change_the_mean() -> None:
    """Ten were planned, six could be read: the gradient is the mean over six."""
    torch.testing.assert_close(
        weights_after([range(0, 6)], num_samples=10), weights_after([range(0, 6)], num_samples=6), rtol=1e-5, atol=1e-7
    )


def test_a_step_without_any_readable_clip_changes_nothing_and_tells_the_failures() -> None:
    model = Linear()
    before = copy.deepcopy(model.state_dict())
    empty = make_batch(range(0, 0))
    empty.failures = [Failure(0, "a.mp4", "train.csv:1", "empty file")]
    ema = ModelEmaV3(Linear())
    average = copy.deepcopy(ema.module.state_dict())
    result = make_step(model, ema=ema)([empty], num_samples=2, epoch=0, lr=0.5, global_step=0)
    assert result.num_clips == 0 and result.failures[0].path == "a.mp4"
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    torch.testing.assert_close(ema.module.state_dict(), average, rtol=0, atol=0)


def test_gradient_norm_is_clipped() -> None:
    model = Linear()
    before = model.head.weight.detach().clone()
    step = make_step(model, clip_grad_norm=0.01)
    result = step([make_batch(range(4))], num_samples=4, epoch=0, lr=1.0, global_step=0)
    assert result.grad_norm is not None and result.grad_norm > 0.01
    assert (model.head.weight - before).norm() <= 0.0101


def test_non_finite_losses_name_their_clips() -> None:
    class Poisoned(Linear):
        def forward(self, clips: Tensor) -> Tensor:
            logits = super().forward(clips)
            logits[2] = float("nan")
            return logits

    result = make_step(Poisoned())([make_batch(range(10, 14))], num_samples=4, epoch=0, lr=0.1, global_step=0)
    assert result.non_finite() == [(1, 12)]


def test_several_labels_per_clip() -> None:
    batch = make_batch(range(4))
    batch.labels = [(0, 1), (2,), (), (3,)]
    result = make_step(Linear(), loss="bce_logit", label_smoothing=0.0)(
        [batch], num_samples=4, epoch=0, lr=0.1, global_step=0
    )
    assert result.sums()[0] / 4 == pytest.approx(0.69, abs=0.3)


@pytest.mark.parametrize("loss", ["cross_entropy", "bce_logit"])
def test_a_class_of_twice_the_weight_counts_as_two_clips(loss: str) -> None:
    def step(indices: list[int], weights: list[float] | None) -> Tensor:
        torch.manual_seed(0)
        model = Linear()
        take_step = make_step(model, loss=loss, label_smoothing=0.0, class_weights=weights)
        batches = [make_batch(range(index, index + 1)) for index in indices]
        take_step(batches, num_samples=4, epoch=0, lr=0.5, global_step=0)
        return model.head.weight.detach()

    weighed, twice = step([0, 1, 2, 3], [1.0, 2.0, 1.0, 0.0]), step([0, 1, 1, 2], None)
    torch.testing.assert_close(weighed, twice, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("has_bf16, precision", [(True, "bf16"), (False, "fp32")])
def test_auto_is_bf16_on_a_cpu_that_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool, precision: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    found, why = choose_precision("auto", torch.device("cpu"))
    assert found == precision and why.startswith("PRECISION auto: this CPU")


@pytest.mark.parametrize(
    "capability, sharded, precision",
    [(6, False, "fp32"), (7, False, "fp16"), (7, True, "fp32"), (8, False, "bf16"), (9, True, "bf16")],
)
def test_auto_by_generation_of_gpu(
    monkeypatch: pytest.MonkeyPatch, capability: int, sharded: bool, precision: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: capability >= 8)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (capability, 0))
    assert choose_precision("auto", torch.device("cuda", 0), sharded=sharded)[0] == precision


def test_precision() -> None:
    cpu = torch.device("cpu")
    assert autocast_dtype("fp32", cpu) is None and autocast_dtype("bf16", cpu) is torch.bfloat16
    with pytest.raises(ConfigError, match="needs a GPU. Add: PRECISION bf16"):
        autocast_dtype("fp16", cpu)


def test_a_group_learns_at_its_share_of_the_rate() -> None:
    step = make_step(Linear())
    step.optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "lr_scale": 0.25})
    step([make_batch(range(4))], num_samples=4, epoch=0, lr=0.8, global_step=0)
    assert [group["lr"] for group in step.optimizer.param_groups] == [0.8, 0.2]


def test_every_module_is_given_back_in_its_own_mode() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Dropout()), nn.Linear(2, 2))
    model[0].eval()
    modes = [module.training for module in model.modules()]
    with pytest.raises(KeyboardInterrupt), eval_mode(model):
        assert not any(module.training for module in model.modules())
        raise KeyboardInterrupt
    assert [module.training for module in model.modules()] == modes == [True, False, False, False, True]


@pytest.mark.parametrize("warmup", [True, False])
def test_the_average_is_the_one_computed_by_hand_and_resumes_exactly(warmup: bool) -> None:
    """The first step is taken over whole; step k + 1 then keeps min(decay, 1 - (1 + k)^(-2/3)), or decay at once."""

    def five_steps(*, interrupted: bool) -> tuple[ModelEmaV3, list[Tensor]]:
        torch.manual_seed(0)
        model, weights = Linear(), []
        step = make_step(model, ema=ModelEmaV3(model, decay=0.6, use_warmup=warmup))
        for k in range(5):
            if interrupted and k == 3:
                saved = copy.deepcopy((model.state_dict(), step.ema.module.state_dict()))
                model = Linear()
                step = make_step(model, ema=ModelEmaV3(model, decay=0.6, use_warmup=warmup))
                model.load_state_dict(saved[0])
                step.ema.module.load_state_dict(saved[1])
            step([make_batch(range(4 * k, 4 * k + 4))], num_samples=4, epoch=0, lr=0.3, global_step=k)
            weights.append(model.head.weight.detach().double().clone())
        return step.ema, weights

    ema, weights = five_steps(interrupted=False)
    average = weights[0]
    for k, weight in enumerate(weights[1:], start=1):
        kept = min(0.6, 1 - (1 + k) ** (-2 / 3)) if warmup else 0.6
        average = kept * average + (1 - kept) * weight
    torch.testing.assert_close(ema.module.head.weight.double(), average, rtol=1e-5, atol=1e-7)
    again, _ = five_steps(interrupted=True)
    torch.testing.assert_close(again.module.state_dict(), ema.module.state_dict(), rtol=0, atol=0)


def test_running_statistics_are_averaged_and_counts_copied() -> None:
    model = nn.Sequential(nn.BatchNorm3d(3), nn.Flatten(), nn.Linear(96, NUM_CLASSES))
    ema = ModelEmaV3(model, decay=0.5)
    step, means = make_step(model, ema=ema), []
    for k in range(3):
        step([make_batch(range(k, k + 4))], num_samples=4, epoch=0, lr=0.1, global_step=k)
        means.append(model[0].running_mean.clone())
    torch.testing.assert_close(ema.module[0].running_mean, 0.25 * means[0] + 0.25 * means[1] + 0.5 * means[2])
    assert ema.module[0].num_batches_tracked == 3


# Freezing, layer decay and the average of the weights together, on a transformer of three blocks.
FROZEN = ["TRAIN.TRAINABLE_BLOCKS", "2", "TRAIN.FREEZE", "[blocks.1.attn.*, '*.mlp.fc1.bias']"]
RECIPE = ["SOLVER.LAYER_DECAY", "0.5", "SOLVER.WEIGHT_DECAY", "0.1", "EMA.ENABLED", "True"]


def train_transformer(cuts: list[range], *words: str, drop: float = 0.0) -> tuple[TimeSformer, TrainStep]:
    """Two steps on the clips that `cuts` give this process, of ten over all processes."""
    torch.manual_seed(0)
    model = TimeSformer(
        4, 2, NUM_CLASSES, 2, embed_dim=8, depth=3, num_heads=2, drop_rate=drop, drop_path_rate=drop, init="scratch"
    )
    cfg = load_config(None, [*RECIPE, *words]).cfg
    freeze_parameters(model, cfg)
    optimizer, ema = build_optimizer(model, cfg), build_ema(model, cfg)
    set_training_mode(model)
    wrapped = DistributedDataParallel(model) if dist.is_initialized() else model
    step = make_step(wrapped, ema=ema)
    step.optimizer = optimizer
    for k in range(2):
        step((make_batch(cut) for cut in cuts), num_samples=10, epoch=0, lr=0.1, global_step=k)
    return model, step


@pytest.mark.parametrize("method", ["sgd", "adamw"])
def test_frozen_parameters_stay_and_the_others_learn(method: str) -> None:
    words = [*FROZEN, "SOLVER.OPTIMIZING_METHOD", method]
    torch.manual_seed(0)
    before = train_transformer([range(0, 0)], *words)[0].state_dict()
    model, step = train_transformer([range(0, 6), range(6, 10)], *words, drop=0.5)
    assert step.ema is not None
    average = step.ema.module.state_dict()
    for name, parameter in model.named_parameters():
        short = name.removeprefix("model.")
        in_last = short.startswith(("head.", "norm.", "blocks.1.", "blocks.2."))
        learns = in_last and not short.startswith("blocks.1.attn.") and not short.endswith("mlp.fc1.bias")
        assert parameter.requires_grad is learns, name
        assert (parameter.grad is not None) is learns, name
        assert (parameter in step.optimizer.state) is learns, name
        assert torch.equal(parameter, before[name]) is not learns, name
        assert torch.equal(average[name], before[name]) is not learns, name
    assert not model.model.blocks[0].training and model.model.blocks[2].training


@pytest.mark.parametrize("words", [FROZEN, ["TRAIN.TRAINABLE_BLOCKS", "0"]], ids=["blocks", "linear probe"])
def test_defect_11_accumulation_is_exact_with_frozen_parameters(words: list[str]) -> None:
    whole, step = train_transformer([range(0, 10)], *words)
    cut, cut_step = train_transformer([range(0, 4), range(4, 8), range(8, 10)], *words)
    assert step.ema is not None and cut_step.ema is not None
    torch.testing.assert_close(cut.state_dict(), whole.state_dict(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(cut_step.ema.module.state_dict(), step.ema.module.state_dict(), rtol=1e-4, atol=1e-6)


def one_of_two_processes(rank: int, folder: str) -> None:
    """What each process of the next test does; the second has nothing to read in its last micro-batch."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    share = [[range(0, 4), range(4, 6)], [range(6, 10), range(0, 0)]][rank]
    model, step = train_transformer(share, *FROZEN)
    assert step.ema is not None and not model.model.blocks[0].training
    torch.save((model.state_dict(), step.ema.module.state_dict()), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_with_frozen_parameters_are_as_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(one_of_two_processes, args=(str(tmp_path),), nprocs=2)
    model, step = train_transformer([range(0, 10)], *FROZEN)
    assert step.ema is not None
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    torch.testing.assert_close(first, (model.state_dict(), step.ema.module.state_dict()), rtol=1e-4, atol=1e-6)
