"""What a test takes from the weights that it tests."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from timesformer.datasets.records import VideoList
from timesformer.engine import test as testing


@pytest.mark.parametrize(
    ("listed", "stored", "taken"),
    [([], ["a", "b"], ["a", "b"]), (["x", "y"], ["a", "b"], ["x", "y"]), ([], ["a"], []), ([], [], [])],
)
def test_a_list_without_class_names_gets_those_of_the_weights(
    monkeypatch: pytest.MonkeyPatch, listed: list[str], stored: list[str], taken: list[str]
) -> None:
    monkeypatch.setattr(testing, "load_and_report", lambda *_, **__: SimpleNamespace(class_names=stored, settings={}))
    settings = {"TEST": SimpleNamespace(CHECKPOINT_FILE_PATH="w.pyth"), "MODEL": SimpleNamespace(NUM_CLASSES=2)}
    run: Any = SimpleNamespace(cfg=SimpleNamespace(**settings))
    assert testing.load_test_weights(run, nn.Identity(), VideoList([], listed))[0].class_names == taken
