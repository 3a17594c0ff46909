"""The demo's comparison over several data seeds and training seeds: sampling, attention, flips.

    python benchmarks/gestures.py --out output/gesture_benchmark            every setting (hours of CPU time)
    python benchmarks/gestures.py --settings light timesformer              the demo's two models only

`--train-seeds 0` makes one run a data seed instead of three. Each run is `tools/run_net.py` with one thread; `--jobs`
of them side by side. Finished runs are not repeated. The settings were frozen on the validation people of data seed 10
(`--split val` shows such scores).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from timesformer.visualization.comparison import save_comparison

ROOT = Path(__file__).resolve().parents[1]
MIRROR_PAIRS = "[[2, 3], [4, 5], [6, 7], [8, 9], [10, 11]]"

LARGE = ["DATA.TRAIN_CROP_SIZE", "64", "DATA.TEST_CROP_SIZE", "64", "DATA.TRAIN_JITTER_SCALES", "[64, 80]"]

# name: (what it shows, overrides of configs/Gestures/LightTimeSformer_demo.yaml)
SETTINGS: dict[str, tuple[str, list[str]]] = {
    "light": ("LightTimeSformer: divided, whole video", []),
    "stream": ("StreamTimeSformer: whole video", ["MODEL.MODEL_NAME", "StreamTimeSformer"]),
    "motion": (
        "StreamTimeSformer: whole video, motion images",
        ["MODEL.MODEL_NAME", "StreamTimeSformer", "DATA.INPUT", "difference"],
    ),
    "timesformer": (
        "TimeSformer: divided, fixed 8 x 32",
        ["MODEL.MODEL_NAME", "TimeSformer", "DATA.SAMPLING_RATE", "32"],
    ),
    "rate4": ("divided, fixed 8 x 4, 3 clips in test", ["DATA.SAMPLING_RATE", "4", "TEST.NUM_ENSEMBLE_VIEWS", "3"]),
    "joint": ("joint, whole video", ["TIMESFORMER.ATTENTION_TYPE", "joint_space_time"]),
    "space": ("space-only, whole video", ["TIMESFORMER.ATTENTION_TYPE", "space_only"]),
    "shuffled": ("divided, frames shuffled", ["DATA.SHUFFLE_FRAMES", "True"]),
    "flip": ("divided, random flip", ["DATA.RANDOM_FLIP", "True"]),
    "flip_map": (
        "divided, flip with label map",
        ["DATA.RANDOM_FLIP", "True", "DATA.FLIP_LABEL_MAP", MIRROR_PAIRS],
    ),
    "hard": ("divided, hard rendering", ["GESTURES.HARD", "True"]),
    "hard_stream": (
        "StreamTimeSformer, hard rendering, 64 pixels",
        ["MODEL.MODEL_NAME", "StreamTimeSformer", "GESTURES.HARD", "True", *LARGE],
    ),
    "hard_motion": (
        "StreamTimeSformer, hard rendering, 64 pixels, motion images",
        ["MODEL.MODEL_NAME", "StreamTimeSformer", "DATA.INPUT", "difference", "GESTURES.HARD", "True", *LARGE],
    ),
    "vit_init": ("divided, ViT initialisation", ["TIMESFORMER.INIT", "vit"]),
}


def run_one(out: Path, setting: str, data_seed: int, train_seed: int, split: str, overrides: list[str]) -> float:
    """Train and test one setting, unless its result is there; top-1 in percent."""
    folder = out / f"{setting}_data{data_seed}_train{train_seed}"
    if not (folder / "results.json").is_file():
        command = [sys.executable, str(ROOT / "tools/run_net.py")]
        command += ["--cfg", str(ROOT / "configs/Gestures/LightTimeSformer_demo.yaml"), *SETTINGS[setting][1]]
        command += ["GESTURES.SEED", str(data_seed), "RNG_SEED", str(train_seed), "OUTPUT_DIR", str(folder)]
        command += ["TEST.SPLIT", split, "DATA_LOADER.NUM_WORKERS", "0", "TENSORBOARD.ENABLE", "False"]
        command += ["TRAIN.AUTO_RESUME", "True", "TEST.BASELINES", "False", *overrides]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
    return float(json.loads((folder / "results.json").read_text())["top1"])


def partner_errors(predictions: Path) -> float:
    """Share of clips confused with their mirror (and time-reversed) partner, in percent."""
    partner = {a: b for pair in json.loads(MIRROR_PAIRS) for a, b in (pair, pair[::-1])}
    with predictions.open() as file:
        rows = [(int(row["label"]), int(row["prediction"])) for row in csv.DictReader(file)]
    return 100.0 * float(np.mean([partner.get(label) == guess for label, guess in rows]))


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, then print and draw the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("output/gesture_benchmark"))
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--data-seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--train-seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--overrides", nargs="+", default=[], metavar="KEY VALUE", help="for every run")
    arguments = parser.parse_args(argv)

    wanted = [
        (setting, data_seed, train_seed)
        for setting in arguments.settings
        for data_seed in arguments.data_seeds
        for train_seed in arguments.train_seeds
    ]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        futures = [pool.submit(run_one, arguments.out, *one, arguments.split, arguments.overrides) for one in wanted]
        scores = [future.result() for future in tqdm(futures, unit="run")]
    rows = []
    print(f"| setting | top-1 %, mean +- std | n | range | confused with the partner % |\n|{'---|' * 5}")
    for setting in arguments.settings:
        values = [score for one, score in zip(wanted, scores, strict=True) if one[0] == setting]
        folders = [arguments.out / f"{s}_data{d}_train{t}" for s, d, t in wanted if s == setting]
        partner = np.mean([partner_errors(folder / "predictions.csv") for folder in folders])
        std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        name, mean = SETTINGS[setting][0], float(np.mean(values))
        spread = f"{min(values):.1f} to {max(values):.1f}"
        print(f"| {name} | {mean:.1f} +- {std:.1f} | {len(values)} | {spread} | {partner:.1f} |")
        rows.append({"name": name, "mean": mean, "std": std, "n": len(values), "values": values})
    save_comparison(rows, arguments.out / "comparison.png", title=f"Top-1 % on unseen people ({arguments.split})")
    (arguments.out / "scores.json").write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
