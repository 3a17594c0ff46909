"""Compare tested runs or protocols: a table of their scores, a picture, and for two of them a paired test."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from timesformer.cli.parsers import command_parser, run_command
from timesformer.utils.console import columns
from timesformer.utils.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, draw the picture, test two runs; returns the exit status."""
    parser = command_parser(
        "compare",
        "Compare tested runs or protocols: a table and a picture. For two on one list\n"
        "also a paired test: exact McNemar, and the difference with its interval.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="DIR", help="of a tested run or a protocol")
    parser.add_argument("--out", type=Path, default=Path("comparison.png"), metavar="PNG", help="picture (%(default)s)")
    return run_command(parser, argv, compare)


def compare(arguments: argparse.Namespace) -> None:
    """Print the table, draw the picture, and test two runs against each other.

    Raises:
        UserError: a run was not tested, or two runs were tested on different lists (after table and picture).
    """
    from timesformer.visualization.comparison import save_comparison

    runs = [read_run(folder) for folder in arguments.runs]
    rows = [("run", "model", "input", "videos", "score %", "95% interval")]
    for run in runs:
        interval = "" if run["low"] is None else f"{run['low']:.1f} to {run['high']:.1f}"
        score = f"{run['metric']} {run['mean']:.1f}"
        rows.append((run["name"], run["model"], run["input"], run["videos"], score, interval))
    print(columns(rows))
    title, lists = "Scores with 95% intervals", {run["list"] for run in runs if run["list"]}
    if len(lists) > 1:
        title += ", of DIFFERENT TEST LISTS"
        print("\nWARNING: these runs were tested on different lists, so their scores cannot be compared:")
        print("\n".join(f"  {run['name']}: {run['list'] or 'unknown'}" for run in runs))
    save_comparison(runs, arguments.out, title=title)
    print(f"picture: {arguments.out}")
    if len(runs) == 2 and all(run["metric"] == "top1" for run in runs):
        print(_paired_test(arguments.runs, [run["name"] for run in runs]))


def _paired_test(folders: Sequence[Path], names: Sequence[str]) -> str:
    from timesformer.evaluation.paired import compare_runs, describe

    if missing := [str(folder) for folder in folders if not (folder / "predictions.csv").is_file()]:
        return f"no paired test: there is no predictions.csv in {' and '.join(missing)}"
    if names[0] == names[1]:
        names = [str(folder) for folder in folders]
    return "\n" + "\n".join(describe(compare_runs(*folders), *names))


def read_run(folder: Path) -> dict[str, Any]:
    """What the table and the picture show of a tested run.

    Raises:
        UserError: the folder has no results.json: the run was not tested; or what is there is damaged.
    """
    path = folder / "results.json"
    if not path.is_file():
        raise UserError(f"{folder}: no results.json there; test the run first (timesformer test)")
    prefix = next((prefix for prefix in ("", "test_") if (folder / f"{prefix}config.yaml").is_file()), None)
    if prefix is None:
        raise UserError(f"{folder}: neither config.yaml nor test_config.yaml is there; test the run again")
    try:
        results = json.loads(path.read_text())
        cfg = yaml.safe_load((folder / f"{prefix}config.yaml").read_text())
        return _shown(folder, results, cfg)
    except (ValueError, LookupError, TypeError, yaml.YAMLError) as error:
        raise UserError(
            f"{folder}: results.json or {prefix}config.yaml is damaged ({type(error).__name__}: {error}). "
            "Test the run again: TRAIN.ENABLE False"
        ) from error


def _shown(folder: Path, results: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    metric = "mAP" if "mAP" in results else "top1"
    frames, rate = settings["DATA"]["NUM_FRAMES"], settings["DATA"]["SAMPLING_RATE"]
    return {
        "name": folder.name,
        "metric": metric,
        "mean": results[metric],
        "low": results.get("top1_low"),
        "high": results.get("top1_high"),
        "list": results.get("list", ""),  # which earlier versions did not write
        "videos": f"{results['scored']}/{results['videos']}",
        "model": settings["MODEL"]["MODEL_NAME"],
        "input": f"{frames}x{rate}",
        "note": f"{frames} frames, " + ("whole video" if rate == "auto" else f"sampling rate {rate}"),
    }
