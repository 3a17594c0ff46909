"""When a training is said to overfit, and what to try."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from timesformer.engine.overfitting import TrainingAccuracy, overfits, overfitting_message

CHANCE = {"top1": 14.6, "top1_low": 4.9, "top1_high": 26.8}
FAR_BELOW = {"top1": 40.0, "top1_low": 30.0, "top1_high": 50.0}


@pytest.mark.parametrize(
    ("train", "val", "num_videos", "largest_class", "expected"),
    [
        (100.0, CHANCE, 41, 12.2, True),
        (90.0, CHANCE, 20, 12.2, True),
        (89.9, CHANCE, 41, 12.2, False),
        (100.0, CHANCE, 19, 12.2, False),
        (95.0, FAR_BELOW, 100, 10.0, True),
        (95.0, {"top1": 60.0, "top1_low": 50.1, "top1_high": 70.0}, 100, 50.0, False),  # above chance, and above half
        (95.0, {"top1": 60.0, "top1_low": 49.9, "top1_high": 70.0}, 100, 50.0, True),  # two classes: a coin does that
        (95.0, {"top1": 85.0, "top1_low": 70.0, "top1_high": 97.0}, 20, 80.0, False),  # no gap is proven
        (95.0, {"top1": 0.0, "top1_low": 0.0, "top1_high": 0.0}, 30, 10.0, True),
        (100.0, {name: float("nan") for name in CHANCE}, 41, 12.2, False),
    ],
)
def test_when_it_is_overfitting(
    train: float, val: dict[str, float], num_videos: int, largest_class: float, expected: bool
) -> None:
    assert overfits(train, val, num_videos=num_videos, largest_class=largest_class) is expected


def message(val: dict[str, float] = CHANCE, **changes: bool) -> str:
    settings = {"augmented": False, "pretrained": False, "averaged": False} | changes
    return overfitting_message(100.0, val, num_videos=41, largest_class=12.2, **settings)


def test_the_message_has_the_numbers_what_they_mean_and_two_settings() -> None:
    assert message().splitlines() == [
        "overfitting: top-1 100.0% on training clips, 14.6% [4.9, 26.8] on 41 validation videos (always the largest "
        "class: 12.2%)",
        "  The model has memorised the training clips; what it learned does not hold for other videos.",
        "  To try: augmentation (AUG.*, see `timesformer config AUG`; now off), and a smaller model (such as that of "
        "configs/Own/gestures_cpu.yaml).",
        "  Check too that both lists number the classes alike: `timesformer preview --split val`.",
    ]
    assert "number the classes" not in message(FAR_BELOW)
    assert "To try: stronger augmentation" in message(augmented=True)
    assert "TRAIN.TRAINABLE_BLOCKS 2" in message(pretrained=True) and "smaller" not in message(pretrained=True)
    assert "EMA.ENABLED False" in message(averaged=True) and "EMA" not in message()
    assert message({"top1": 95.0, "top1_low": 90.0, "top1_high": 99.0}) == ""


def test_the_accuracy_of_an_epoch() -> None:
    accuracy = TrainingAccuracy()
    assert accuracy.top1 == 0.0
    accuracy.add(correct=3, clips=4)
    accuracy.add(correct=1, clips=1)
    assert accuracy.top1 == pytest.approx(80.0)


def test_a_run_says_it_when_it_is_first_seen_and_at_its_end(
    tmp_path: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("NEAR_PERFECT", 0.0), ("FEWEST_VIDEOS", 1)):  # chance it is, after two epochs
        monkeypatch.setattr(f"timesformer.engine.overfitting.{name}", value)
    accuracies = iter((99.0, 0.0, 99.0, 99.0))
    monkeypatch.setattr(TrainingAccuracy, "top1", property(lambda _: next(accuracies)))
    assert run(tmp_path, "SOLVER.MAX_EPOCH", 3) == 0
    lines = capsys.readouterr().out.splitlines()
    said = [i for i, line in enumerate(lines) if line.startswith("WARNING: overfitting: top-1 99.0% on training")]
    epochs = [i for i, line in enumerate(lines) if "  validation  loss" in line]
    assert len(said) == 2 and epochs[0] < said[0] < epochs[1]
    assert said[1] > max(i for i, line in enumerate(lines) if line.startswith("score "))
    assert run(tmp_path / "mixed", "SOLVER.MAX_EPOCH", 1, "MIXUP.ENABLED", True, "TEST.ENABLE", False) == 0
    assert "overfitting" not in capsys.readouterr().out
