"""Memory runs out in a step: the same step in smaller pieces, or an error that says what needs less."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from tests.engine.test_resume import assert_identical, final_state
from tests.engine.test_step import make_batch, make_step
from timesformer.datasets.mixing import ClipMixer
from timesformer.distributed.parallel import parallelize
from timesformer.evaluation.evaluate import scoring
from timesformer.models.vit import VisionTransformer
from timesformer.utils.errors import UserError
from timesformer.utils.memory import PassSize, memory_explained
from timesformer.video.clip_spec import ClipSpec

CPU_MESSAGE = "[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory: 12 (Cannot"
ERRORS = {
    "GPU": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "CPU": RuntimeError(CPU_MESSAGE),
}


class FailInBackward(torch.autograd.Function):
    """The identity, whose gradient cannot be computed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        raise ERRORS["GPU"]


class Forgetful(nn.Module):
    """Running statistics, dropout, and no memory for more than `fits` clips: forward, or after the head's gradient."""

    def __init__(self, fits: int = 100, where: str = "forward", error: str = "GPU") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.drop = nn.BatchNorm1d(3, momentum=None), nn.Dropout(0.3)
        self.first, self.head = nn.Linear(96, 16), nn.Linear(16, 4)
        self.fits, self.where, self.error, self.sizes = fits, where, ERRORS[error], []

    def forward(self, clips: Tensor) -> Tensor:
        self.sizes.append(len(clips))
        x = self.first(self.norm(clips.flatten(2)).flatten(1))
        if len(clips) > self.fits:
            if self.where == "forward":
                raise self.error
            x = FailInBackward.apply(x)
        return self.head(self.drop(x).relu())


def weights(model: nn.Module, cuts: list[range], **settings: object) -> dict[str, Tensor]:
    """After two steps over these pieces."""
    step = make_step(model, **settings)
    for i in range(2):
        step(map(make_batch, cuts), num_samples=cuts[-1].stop, epoch=0, lr=0.5, global_step=i, seed=i)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize(("where", "error"), [("forward", "GPU"), ("backward", "GPU"), ("forward", "CPU")])
def test_the_result_is_that_of_the_small_pieces(where: str, error: str, caplog: pytest.LogCaptureFixture) -> None:
    model = Forgetful(2, where, error)
    with caplog.at_level(logging.WARNING, "timesformer"):
        found = weights(model, [range(0, 8), range(8, 13)])
    expected = weights(Forgetful(), [range(i, min(i + 2, 13)) for i in range(0, 13, 2)])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    assert model.sizes[:3] == [8, 4, 2] and model.sizes[-7:] == [2, 2, 2, 2, 2, 2, 1]
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1 and "from now on 2 clips in a forward pass" in lines[0] and "TRAIN.BATCH_SIZE 2" in lines[0]


def test_pieces_that_came_before_are_computed_again() -> None:
    """The second one does not fit, when the first has left its gradients."""
    found = weights(Forgetful(5), [range(0, 4), range(4, 12)])
    torch.testing.assert_close(
        found, weights(Forgetful(), [range(0, 4), range(4, 8), range(8, 12)]), rtol=1e-6, atol=1e-7
    )


def test_partners_of_a_mix_stay_together() -> None:
    mixer = ClipMixer(num_classes=4, mixup_alpha=0.8, cutmix_alpha=1.0, prob=1.0, switch_prob=0.5, seed=3)
    model = Forgetful(3)
    found = weights(model, [range(0, 6), range(6, 11)], mixer=mixer)
    assert model.sizes[-6:] == [2, 2, 2, 2, 2, 1]
    expected = weights(Forgetful(), [range(i, min(i + 2, 11)) for i in range(0, 11, 2)], mixer=mixer)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_one_clip_that_does_not_fit_names_what_needs_less() -> None:
    with pytest.raises(UserError, match=r"1 clip in a forward pass.*MODEL.RECOMPUTE.*DATA.TRAIN_CROP_SIZE"):
        weights(Forgetful(0), [range(0, 8)])


def test_other_errors_are_not_taken_for_it() -> None:
    size, calls = PassSize(8, key="K"), []

    def work(clips: int) -> None:
        calls.append(clips)
        raise RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nDefaultCPUAllocator: can't allocate")

    with pytest.raises(RuntimeError, match="DataLoader worker"):
        size.until_it_fits(work, torch.device("cpu"), lambda: 8)
    assert calls == [8]


def test_work_is_cut_until_it_fits() -> None:
    size, calls = PassSize(8, key="K", smallest=2), []

    def work(clips: int) -> int:
        calls.append(clips)
        if clips > 2:
            raise ERRORS["GPU"]
        return clips

    assert size.until_it_fits(work, torch.device("cpu"), lambda: 6) == 2 and calls == [8, 3, 2]
    assert size.until_it_fits(work, torch.device("cpu"), lambda: 6) == 2 and calls == [8, 3, 2, 2]


def test_a_view_that_does_not_fit_into_the_test_names_what_needs_less() -> None:
    class Model(nn.Module):
        def forward(self, clips: Tensor) -> Tensor:
            raise ERRORS["GPU"]

    how: Any = {"ensemble": "mean", "multi_label": False, "device": "cpu", "dtype": None, "views_per_forward": 8}
    scorer = scoring(Model(), spec=ClipSpec(num_frames=2, size=(4, 4)), **how)
    with scorer as score, pytest.raises(UserError, match="DATA.TEST_CROP_SIZE"):
        score(make_batch(range(3)))


def test_a_trial_finds_what_fits_and_leaves_no_trace() -> None:
    model = Forgetful(5, "backward")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    step = make_step(model)
    step.find_pass_size(16, warn=False)
    assert step.pass_size.clips == 4
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_run_goes_on_and_resumes_with_the_smaller_pieces(
    tmp_path: Path, run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Out of memory once, at the third of four steps: a resumed run must not take larger pieces than the first one."""
    words = [
        "TEST.ENABLE",
        False,
        "MODEL.DROP_RATE",
        0.2,
        "TRAIN.BATCH_SIZE",
        "auto",
        "TRAIN.CHECKPOINT_PERIOD_STEPS",
        1,
    ]
    words += ["TRAIN.CHECKPOINT_KEEP", 0, "TRAIN.AUTO_RESUME", True]
    forward, sizes = VisionTransformer.forward, []

    def limited(self: VisionTransformer, clips: Tensor) -> Tensor:
        if self.training:
            sizes.append(len(clips))
            if len(sizes) == 3:
                raise ERRORS["GPU"]
        return forward(self, clips)

    monkeypatch.setattr(VisionTransformer, "forward", limited)
    assert run(tmp_path / "a", *words) == 0
    assert sizes == [16, 8, 16, 8, 8, 8] and "TRAIN.BATCH_SIZE auto is 16" in capsys.readouterr().out
    (tmp_path / "b/checkpoints").mkdir(parents=True)
    for name in ("checkpoint_epoch_00001_step_000001.pyth", "checkpoint_best.pyth"):
        (tmp_path / "b/checkpoints" / name).write_bytes((tmp_path / "a/checkpoints" / name).read_bytes())
    assert run(tmp_path / "b", *words) == 0
    assert sizes[6:] == [8]
    a, b = final_state(tmp_path / "a"), final_state(tmp_path / "b")
    assert a["clips_per_pass"] == [8]
    assert_identical(a, b)


@pytest.mark.parametrize("where", ["of a sharded model, in which every pass is an exchange", "that others wait for"])
def test_what_others_wait_for_is_not_taken_again(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Forgetful(2)
    if where.startswith("of"):
        model.set_requires_gradient_sync = lambda _: None
        monkeypatch.setattr("timesformer.engine.step.as_many_on_all", lambda _, batches, filler: batches)
    else:
        monkeypatch.setattr("timesformer.distributed.group.world_size", lambda: 2)
    with pytest.raises(UserError, match=r"other processes wait for.*Type a smaller TRAIN.BATCH_SIZE.*MODEL.RECOMPUTE"):
        weights(model, [range(0, 8)])
    assert model.sizes == [8]


def test_weights_that_do_not_fit_are_an_error_too() -> None:
    with pytest.raises(UserError, match="DIST.STRATEGY fsdp"), memory_explained():
        raise ERRORS["GPU"]


def one_of_two(rank: int, folder: str) -> None:
    """Only the second process lacks memory: in a pass of its own, then in one that the first waits for."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    model = Forgetful(3 if rank else 100)
    model.norm = nn.Identity()
    model.drop.eval()
    wrapped = parallelize(model, strategy="ddp", device=torch.device("cpu"), world_size=2)
    step = make_step(wrapped)
    cuts = [range(4, 8), range(8, 10)] if rank else [range(0, 4)]
    step(map(make_batch, cuts), num_samples=10, epoch=0, lr=0.5, global_step=0)
    torch.save(model.head.weight.detach(), f"{folder}/{rank}.pt")
    dist.barrier()
    if rank:
        step.pass_size.clips = 100
        with pytest.raises(UserError, match=r"rank 1.*other processes wait.*smaller TRAIN.BATCH_SIZE.*MODEL.RECOMPUTE"):
            step([make_batch(range(0, 4))], num_samples=4, epoch=0, lr=0.5, global_step=1)
    dist.barrier()
    dist.destroy_process_group()


def test_of_two_processes_one_lacks_memory(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(one_of_two, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert torch.equal(first, second)
    model = Forgetful()
    model.norm = nn.Identity()
    model.drop.eval()
    step = make_step(model)
    step([make_batch(range(0, 10))], num_samples=10, epoch=0, lr=0.5, global_step=0)
    torch.testing.assert_close(first, model.head.weight.detach(), rtol=1e-5, atol=1e-6)
