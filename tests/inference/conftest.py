"""The tiny run and its generated gestures, as the tests of the engine have them; and a finished one."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.engine.conftest import *  # noqa: F403


@pytest.fixture(scope="session")
def finished(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tested run with settings that are not the defaults."""
    from timesformer.cli import train

    folder = tmp_path_factory.mktemp("finished")
    cfg = Path(__file__).parents[2] / "configs/Gestures/LightTimeSformer_demo.yaml"
    words = ["DATA.CROP_MODE", "crop", "DATA.TRAIN_JITTER_SCALES", "[36,40]", "TEST.NUM_SPATIAL_CROPS", "3"]
    words += ["TEST.NUM_ENSEMBLE_VIEWS", "2", "DATA.MEAN", "[0.3,0.4,0.5]", "DATA.CHANNEL_ORDER", "bgr"]
    assert train.main(["--cfg", str(cfg), *tiny, "OUTPUT_DIR", str(folder), *words]) == 0
    return folder


def expected(folder: Path) -> dict[str, list[float]]:
    """Scores by video, as the run's test wrote them."""
    with (folder / "predictions.csv").open() as file:
        return {row["path"]: [float(row[f"score_{k}"]) for k in range(12)] for row in csv.DictReader(file)}
