"""Learning rates are those of the recipes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from timesformer.config import load_config, unread_keys
from timesformer.config.defaults import get_cfg
from timesformer.optim.build import build_schedule
from timesformer.optim.schedule import make_schedule
from timesformer.utils.errors import ConfigError

GOLDEN = json.loads((Path(__file__).parents[1] / "data/lr_schedules.json").read_text())


def schedule(solver: dict) -> Callable[[float], float]:
    cfg = get_cfg()
    for name, value in solver.items():
        cfg.SOLVER[name] = value
    return build_schedule(cfg)


@pytest.mark.parametrize("case", GOLDEN.values(), ids=GOLDEN.keys())
def test_rates_match(case: dict) -> None:
    lr, per_epoch = schedule(case["solver"]), case["iters_per_epoch"]
    for epoch, wanted in enumerate(case["lr"]):
        got = [lr(epoch + i / per_epoch) for i in range(per_epoch)]
        assert got == pytest.approx(wanted, rel=1e-12, abs=1e-15)
    probed = {epoch: lr(float(epoch)) for epoch in case["probe"]}
    assert probed == pytest.approx(case["probe"], rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("policy", ["cosine", "steps_with_relative_lrs"])
def test_warm_up_joins_the_policy(policy: str) -> None:
    lr = make_schedule(
        policy=policy,
        base_lr=1.0,
        max_epoch=10,
        steps=[0, 5],
        relative_lrs=[1, 0.1],
        warmup_epochs=2.0,
        warmup_start_lr=0.1,
    )
    assert lr(0.0) == 0.1
    assert lr(2.0 - 1e-9) == pytest.approx(lr(2.0))


@pytest.mark.parametrize("steps, lrs", [([], []), ([0, 5], [1]), ([1, 5], [1, 0.1]), ([0, 5, 5], [1, 0.1, 0.01])])
def test_steps_that_do_not_fit_are_refused(steps: list[int], lrs: list[float]) -> None:
    with pytest.raises(ConfigError, match="SOLVER.STEPS"):
        make_schedule(policy="steps_with_relative_lrs", base_lr=1.0, max_epoch=10, steps=steps, relative_lrs=lrs)


@pytest.mark.parametrize(
    ("words", "unread"),
    [
        ("SOLVER.COSINE_END_LR 0.01", {"STEPS", "LRS", "WARMUP_START_LR"}),
        ("SOLVER.LR_POLICY steps_with_relative_lrs SOLVER.COSINE_END_LR 0.01", {"COSINE_END_LR", "WARMUP_START_LR"}),
        ("SOLVER.WARMUP_EPOCHS 2", {"STEPS", "LRS"}),
    ],
)
def test_only_keys_with_an_effect_are_read(words: str, unread: set[str]) -> None:
    steps = "SOLVER.STEPS [0,5] SOLVER.LRS [1,0.1] SOLVER.WARMUP_START_LR 0.001"
    loaded = load_config(None, f"{steps} {words}".split())
    build_schedule(loaded.cfg)
    assert {line.split(" ")[0] for line in unread_keys(loaded)} == {f"SOLVER.{name}" for name in unread}


def test_unknown_policy_is_refused() -> None:
    with pytest.raises(ConfigError, match="'linear' is not one of cosine"):
        make_schedule(policy="linear", base_lr=1.0, max_epoch=10)
