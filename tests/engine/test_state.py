"""The state of a training goes into a checkpoint and comes back whole, or is refused."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from timesformer.engine.checkpoint import Position
from timesformer.engine.failures import FailureLog
from timesformer.engine.start import Start
from timesformer.engine.state import TrainingState
from timesformer.utils.errors import CheckpointError


def make_state(*, ema: bool = False, width: int = 2, enabled: bool = True) -> TrainingState:
    model = nn.Linear(width, 2)
    return TrainingState(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2, enabled=enabled),
        nn.Linear(width, 2) if ema else None,
        FailureLog(max_fraction=0.5, path=None),
    )


def take_steps(state: TrainingState, count: int) -> None:
    for _ in range(count):
        state.optimizer.zero_grad()
        state.scaler.scale(state.model(torch.ones(3, 2)).square().mean()).backward()
        state.scaler.step(state.optimizer)
        state.scaler.update()


def test_optimiser_scaler_average_score_and_failures_come_back(tmp_path: Path) -> None:
    state = make_state(ema=True)
    take_steps(state, 3)  # the scale doubles after two steps; the third is half of the way to the next doubling
    state.failures.tried, state.failures.failed = 40, 3
    assert (
        state.score({"top1": 60.0}, epoch=1)
        and not state.score({"top1": 50.0}, epoch=2)
        and not state.score({}, epoch=3)
    )
    assert (
        not state.score({"top1": math.nan}, epoch=4)
        and state.score({"top1": 60.5}, epoch=5)
        and state.best_score == 60.5
    )
    state.best_score = 60.0
    assert state.tested_model is state.ema
    torch.save(state.content(Position(2, 5)), tmp_path / "w.pyth")
    content = torch.load(tmp_path / "w.pyth")
    assert content["epoch"] == 1 and content["step"] == 5

    other = make_state(ema=True)
    other.model.load_state_dict(content["model_state"])
    other.restore(Start(Position(2, 5), "w.pyth", content))
    assert other.best_score == -math.inf  # the best checkpoint of the other run is not in this one's folder
    other.restore(Start(Position(2, 5), "w.pyth", content, best_is_there=True))
    assert (
        other.best_score == 60.0
        and other.metrics == state.metrics
        and (other.failures.tried, other.failures.failed) == (40, 3)
    )
    assert other.scaler.get_scale() == state.scaler.get_scale() == 8.0
    for a, b in ((state, other), (other, state)):
        assert a.ema is not None and b.ema is not None
        torch.testing.assert_close(a.ema.state_dict(), b.ema.state_dict(), rtol=0, atol=0)
    for one in (state, other):
        take_steps(one, 1)  # the second step since the last doubling
    assert state.scaler.get_scale() == other.scaler.get_scale() == 16.0
    torch.testing.assert_close(state.model.state_dict(), other.model.state_dict(), rtol=0, atol=0)


def test_a_new_epoch_count_forgets_scores_and_failures() -> None:
    content = make_state().content(Position(3)) | {"best_score": 90.0, "clips_tried": 7}
    other = make_state()
    other.restore(Start(Position(), "w.pyth", content))
    assert other.best_score == -math.inf and other.failures.tried == 0


def test_what_does_not_fit_is_refused() -> None:
    content = make_state().content(Position(1))
    with pytest.raises(CheckpointError, match="w.pyth: holds no average of the weights. Add: EMA.ENABLED False"):
        make_state(ema=True).restore(Start(Position(1), "w.pyth", content))
    other = make_state()
    other.optimizer = torch.optim.AdamW(other.model.parameters())
    with pytest.raises(CheckpointError, match="trained with another SOLVER.OPTIMIZING_METHOD.*TRAIN.FINETUNE True"):
        other.restore(Start(Position(1), "w.pyth", content))


def test_the_moments_come_back_and_the_recipe_is_the_new_one() -> None:
    state = make_state()
    take_steps(state, 2)
    other = make_state()
    other.optimizer.param_groups[0].update(momentum=0.5, weight_decay=0.1)
    other.restore(Start(Position(1), "w.pyth", state.content(Position(1))))
    group = other.optimizer.param_groups[0]
    assert group["momentum"] == 0.5 and group["weight_decay"] == 0.1
    assert len(other.optimizer.state) == 2


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_a_fused_optimiser_goes_on_from_an_unfused_one(kind: type[torch.optim.Optimizer]) -> None:
    states = [make_state(enabled=False) for _ in range(2)]
    settings = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    for state, fused in zip(states, (False, True), strict=True):
        state.optimizer = kind(state.model.parameters(), lr=0.1, fused=fused, **settings)
    plain, fused = states
    take_steps(plain, 2)
    fused.model.load_state_dict(plain.model.state_dict())
    fused.restore(Start(Position(1), "w.pyth", copy.deepcopy(plain.content(Position(1)))))
    assert fused.optimizer.param_groups[0]["fused"]
    for state in states:
        take_steps(state, 2)
    torch.testing.assert_close(fused.model.state_dict(), plain.model.state_dict())
    assert all(p.grad is not None for p in fused.model.parameters())


def test_a_checkpoint_of_full_precision_has_no_scale_to_restore() -> None:
    content = make_state(enabled=False).content(Position(1))
    other = make_state()
    other.restore(Start(Position(1), "w.pyth", content))
    assert content["scaler_state"] == {} and other.scaler.get_scale() == 4.0
