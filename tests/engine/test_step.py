"""One gradient step: the same for any cut into micro-batches, and loud about losses that are not finite."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from timesformer.datasets.loader import Batch
from timesformer.datasets.video_dataset import Failure
from timesformer.engine.step import TrainStep, autocast_dtype
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
        "to_input": lambda clips: clips.float() / 255,
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
    make_step(model)((make_batch(cut) for cut in cuts), num_samples=num_samples, epoch=0, lr=0.5)
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
    result = make_step(model)([empty], num_samples=2, epoch=0, lr=0.5)
    assert result.num_clips == 0 and result.failures[0].path == "a.mp4"
    torch.testing.assert_close(model.state_dict(), before)


def test_gradient_norm_is_clipped() -> None:
    model = Linear()
    before = model.head.weight.detach().clone()
    step = make_step(model, clip_grad_norm=0.01)
    result = step([make_batch(range(4))], num_samples=4, epoch=0, lr=1.0)
    assert result.grad_norm is not None and result.grad_norm > 0.01
    assert (model.head.weight - before).norm() <= 0.0101


def test_non_finite_losses_name_their_clips() -> None:
    class Poisoned(Linear):
        def forward(self, clips: Tensor) -> Tensor:
            logits = super().forward(clips)
            logits[2] = float("nan")
            return logits

    result = make_step(Poisoned())([make_batch(range(10, 14))], num_samples=4, epoch=0, lr=0.1)
    assert result.non_finite() == [12]


def test_several_labels_per_clip() -> None:
    batch = make_batch(range(4))
    batch.labels = [(0, 1), (2,), (), (3,)]
    result = make_step(Linear(), loss="bce_logit", label_smoothing=0.0)([batch], num_samples=4, epoch=0, lr=0.1)
    assert result.sums()[0] / 4 == pytest.approx(0.69, abs=0.3)


def test_precision() -> None:
    cpu = torch.device("cpu")
    assert autocast_dtype("auto", cpu) is None and autocast_dtype("bf16", cpu) is torch.bfloat16
    with pytest.raises(ConfigError, match="needs a GPU. Add: PRECISION bf16"):
        autocast_dtype("fp16", cpu)
