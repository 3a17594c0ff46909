"""Learning rates are those of the recipes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from timesformer.config import load_config, unread_keys
from timesformer.config.defaults import get_cfg
from timesformer.optim.build import build_optimizer, build_schedule, describe_rate
from timesformer.optim.schedule import make_schedule

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


STEPS = "SOLVER.LR_POLICY steps_with_relative_lrs SOLVER.STEPS [0,5] SOLVER.LRS [1,0.1]"
COSINE = "SOLVER.LR_POLICY cosine SOLVER.COSINE_END_LR 0.0005"


@pytest.mark.parametrize("policy", [STEPS, COSINE], ids=["steps", "cosine"])
@pytest.mark.parametrize(("batch", "reference", "scale"), [(256, 64, 4), (16, 64, 0.25), (64, 64, 1), (96, 64, 1.5)])
def test_every_rate_is_scaled_to_the_batch(policy: str, batch: int, reference: int, scale: float) -> None:
    """Warm-up and the last rate too; as written, bit for bit, when the batch is the reference or there is none."""
    solver = "SOLVER.BASE_LR 0.005 SOLVER.MAX_EPOCH 10 SOLVER.WARMUP_EPOCHS 2 SOLVER.WARMUP_START_LR 0.001"
    words = f"{solver} {policy} TRAIN.BATCH_SIZE 8 GLOBAL_BATCH_SIZE {batch}".split()
    as_written = load_config(None, words).cfg
    scaled = load_config(None, [*words, "SOLVER.BASE_LR_BATCH_SIZE", str(reference)]).cfg
    written, found = build_schedule(as_written), build_schedule(scaled)
    epochs = [0.0, 0.5, 1.999, 2.0, 4.999, 5.0, 9.0, 10.0]
    assert [found(epoch) for epoch in epochs] == [scale * written(epoch) for epoch in epochs]
    assert build_optimizer(nn.Linear(1, 1), scaled).param_groups[0]["lr"] == scale * 0.005
    assert describe_rate(as_written) == f"learning rate 0.005 for {batch} clips a step"


def test_the_rate_is_told_with_the_batch_it_is_for() -> None:
    words = ["SOLVER.BASE_LR", "0.005", "SOLVER.BASE_LR_BATCH_SIZE", "64", "GLOBAL_BATCH_SIZE", "256"]
    assert describe_rate(load_config(None, words).cfg) == (
        "learning rate 0.02 for 256 clips a step: SOLVER.BASE_LR 0.005 is for 64, so every rate of the schedule is x 4"
    )
