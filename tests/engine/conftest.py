"""A handful of generated gestures, and runs of a tiny model on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tools import run_net


@pytest.fixture(scope="session")
def gestures_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training clips of two people, 12 of one person each for validation and test, 48 pixels."""
    return tmp_path_factory.mktemp("gestures")


@pytest.fixture(scope="session")
def tiny(gestures_dir: Path) -> list[str]:
    """Overrides of the demo configuration that make a run of seconds."""
    settings = {
        "DATA.PATH_TO_DATA_DIR": gestures_dir,
        "GESTURES.NUM_SUBJECTS": "[2, 1, 1]",
        "GESTURES.FRAME_SIZE": "[48, 48]",
        "TIMESFORMER.EMBED_DIM": 24,
        "TIMESFORMER.DEPTH": 1,
        "DATA.NUM_FRAMES": 4,
        "SOLVER.MAX_EPOCH": 2,
        "SOLVER.WARMUP_EPOCHS": 0.5,
        "TRAIN.BATCH_SIZE": 8,
        "GLOBAL_BATCH_SIZE": 16,
        "TRAIN.AUTO_RESUME": False,
        "DATA_LOADER.NUM_WORKERS": 0,
        "LOG_PERIOD": 1,
        "TEST.BASELINES": False,
        "TEST.REPORT": False,
    }
    return [str(word) for pair in settings.items() for word in pair]


@pytest.fixture
def run(tiny: list[str]) -> Callable[..., int]:
    """Call the command line of run_net with the tiny settings and an output folder."""

    def call(output_dir: Path, *overrides: object, options: tuple[str, ...] = ()) -> int:
        cfg = Path(__file__).parents[2] / "configs/Gestures/LightTimeSformer_demo.yaml"
        words = [*tiny, "OUTPUT_DIR", output_dir, *overrides]
        return run_net.main(["--cfg", str(cfg), *options, *map(str, words)])

    return call
