"""TRAIN.BALANCE auto on generated gestures, half of whose classes have a tenth of the clips of the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from timesformer.cli.main import main
from timesformer.datasets.build import load_list
from timesformer.engine.setup import load_run_config

CFG = "Gestures/StreamTimeSformer_demo"


@pytest.mark.slow
def test_macro_f1_is_better_for_every_seed(tmp_path: Path) -> None:
    settings = f"DATA.PATH_TO_DATA_DIR {tmp_path / 'clips'} GESTURES.NUM_SUBJECTS [20,2,15] GESTURES.FRAME_SIZE [48,48]"
    rendered = load_run_config(CFG, settings.split()).cfg
    for split in ("train", "val", "test"):
        seen: dict[object, int] = {}
        lines = []
        for record in load_list(rendered, split).records:
            seen[record.label] = seen.get(record.label, 0) + 1
            if split != "train" or int(record.label) % 2 == 0 or seen[record.label] <= 2:  # type: ignore[arg-type]
                lines.append(f"{record.path} {record.label}\n")
        (tmp_path / f"{split}.csv").write_text("".join(lines))
    words = f"TRAIN.DATASET kinetics TEST.DATASET kinetics DATA.PATH_TO_DATA_DIR {tmp_path} TRAIN.EVAL_PERIOD 15 "
    words += "TIMESFORMER.EMBED_DIM 48 TIMESFORMER.DEPTH 2 TEST.NUM_SPATIAL_CROPS 1 TEST.BASELINES False "
    words += "TEST.REPORT False TENSORBOARD.ENABLE False DATA_LOADER.CACHE memory"
    scores: dict[str, list[float]] = {"none": [], "auto": []}
    for seed in range(3):
        for balance, found in scores.items():
            folder = tmp_path / f"{balance}_{seed}"
            own = f"RNG_SEED {seed} TRAIN.BALANCE {balance} OUTPUT_DIR {folder}"
            assert main(["train", "--cfg", CFG, *words.split(), *own.split()]) == 0
            found.append(json.loads((folder / "results.json").read_text())["macro_f1"])
    assert all(auto > none + 5 for auto, none in zip(scores["auto"], scores["none"], strict=True)), scores
