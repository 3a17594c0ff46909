"""The weights in the package: small, for the model of Own/gestures_cpu, and found by their name."""

from __future__ import annotations

from pathlib import Path

import pytest

from timesformer.config import load_config
from timesformer.models.build import build_model
from timesformer.utils.errors import CheckpointError
from timesformer.weights import load_weights, read_weights
from timesformer.weights.sources import PACKAGED


@pytest.mark.parametrize("name", PACKAGED)
def test_they_are_at_most_12_mb_and_state_their_clips(name: str) -> None:
    assert PACKAGED[name].stat().st_size <= 12e6
    weights = read_weights(name)
    assert weights.clip["input"] == "difference" and len(weights.class_names) == 99


def test_they_fit_the_recipe_with_any_classes() -> None:
    cfg = load_config("Own/gestures_cpu", ["MODEL.NUM_CLASSES", "7"]).cfg
    report = load_weights(build_model(cfg), "gestures", class_names=[f"class {label}" for label in range(7)])
    assert report.coverage == 1.0
    assert all(name.startswith("head.") for name in " ".join(report.reinitialised).split()[:1])


def test_a_model_of_another_size_is_refused() -> None:
    cfg = load_config("Own/gestures_cpu", ["TIMESFORMER.EMBED_DIM", "192", "MODEL.NUM_CLASSES", "7"]).cfg
    with pytest.raises(CheckpointError, match="gestures"):
        load_weights(build_model(cfg), "gestures")


def test_the_former_name_of_the_key(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("TIMESFORMER: {PRETRAINED_MODEL: w.pyth}\n")
    assert load_config(tmp_path / "c.yaml").cfg.MODEL.WEIGHTS == "w.pyth"
    assert load_config(None, ["TIMESFORMER.PRETRAINED_MODEL", "v.pyth"]).cfg.MODEL.WEIGHTS == "v.pyth"
