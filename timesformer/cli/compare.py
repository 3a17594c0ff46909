"""Compare tested runs: a table of their scores and a picture. `python tools/compare_runs.py RUN_DIR RUN_DIR ...`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml

from timesformer.visualization.comparison import save_comparison


def read_run(folder: Path) -> dict[str, Any]:
    """Name, score and settings of a tested run.

    Raises:
        FileNotFoundError: the folder has no results.json: the run was not tested.
    """
    if not (folder / "results.json").is_file():
        raise FileNotFoundError(f"{folder}: no results.json there; test the run first (tools/run_net.py)")
    results = json.loads((folder / "results.json").read_text())
    configs = [folder / name for name in ("config.yaml", "test_config.yaml") if (folder / name).is_file()]
    cfg = yaml.safe_load(configs[0].read_text())
    name = "mAP" if "mAP" in results else "top1"
    sampling = cfg["DATA"]["SAMPLING_RATE"]
    frames = "whole video" if sampling == "auto" else f"sampling rate {sampling}"
    return {
        "name": folder.name,
        "metric": name,
        "score": results[name],
        "low": results.get("top1_low"),
        "high": results.get("top1_high"),
        "videos": f"{results['scored']}/{results['videos']}",
        "model": cfg["MODEL"]["MODEL_NAME"],
        "input": f"{cfg['DATA']['NUM_FRAMES']} frames, {frames}",
    }


def table(runs: list[dict[str, Any]]) -> str:
    """The runs as lines of text."""
    rows = [("run", "model", "input", "videos", "score %", "95% interval")]
    for run in runs:
        interval = "" if run["low"] is None else f"{run['low']:.1f} to {run['high']:.1f}"
        score = f"{run['metric']} {run['score']:.1f}"
        rows.append((run["name"], run["model"], run["input"], run["videos"], score, interval))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def main(argv: list[str] | None = None) -> int:
    """Print the table and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR", help="OUTPUT_DIR of a tested run")
    parser.add_argument("--out", type=Path, default=Path("comparison.png"), help="picture to write")
    arguments = parser.parse_args(argv)
    try:
        runs = [read_run(folder) for folder in arguments.runs]
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(runs))
    rows = [
        {"name": run["name"], "mean": run["score"], "low": run["low"], "high": run["high"], "note": run["input"]}
        for run in runs
    ]
    save_comparison(rows, arguments.out, title="Scores with 95% intervals")
    print(f"picture: {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
