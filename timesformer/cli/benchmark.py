"""Measure what a configuration costs: multiply-accumulates, clips per second, memory, loading of data."""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from itertools import islice, product
from pathlib import Path
from typing import Any

from timesformer.cli.parsers import config_parser, run_command
from timesformer.config.defaults import KEY_BY_NAME
from timesformer.utils.console import columns, count, fit

DESCRIPTION = """\
Measure a model on random clips: multiply-accumulates, speed, memory. On a GPU:
wall-clock time, and all that tensors hold. On a CPU: CPU time, and the memory
of the parameters and of what a training step keeps for its backward pass."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write JSON and a picture; returns the exit status."""
    parser = config_parser("benchmark", DESCRIPTION)
    schemes = KEY_BY_NAME["TIMESFORMER.ATTENTION_TYPE"].choices
    parser.add_argument("--vs", choices=("transformers",), help="measure Hugging Face's model as well")
    parser.add_argument("--train", action="store_true", help="measure optimiser steps as well")
    parser.add_argument("--data", action="store_true", help="measure the loading of training clips as well")
    parser.add_argument("--frames", type=int, nargs="+", metavar="T", help="replace DATA.NUM_FRAMES")
    parser.add_argument("--sizes", type=int, nargs="+", metavar="S", help="replace the crop sizes")
    parser.add_argument("--schemes", nargs="+", choices=schemes, metavar="A", help="replace TIMESFORMER.ATTENTION_TYPE")
    parser.add_argument("--clips", type=int, default=8, metavar="B", help="clips of a pass (%(default)s)")
    parser.add_argument(
        "--repeats", type=int, default=7, metavar="N", help="timed runs, of which the median counts (7)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for benchmark.json, .png (OUTPUT_DIR/benchmark)")
    return run_command(parser, overrides_first(sys.argv[1:] if argv is None else argv), benchmark)


def overrides_first(argv: Sequence[str]) -> list[str]:
    """The command line with its keys and their values in front: after `--frames 8 16` they would be frames."""
    overrides, others, words = [], [], iter(argv)
    for word in words:
        if word in KEY_BY_NAME or re.fullmatch(r"[A-Z_]+(\.[A-Z_0-9]+)+", word):
            overrides += [word, *islice(words, 1)]
        else:
            others.append(word)
    return overrides + others


def benchmark(arguments: argparse.Namespace) -> None:
    """Measure every combination, print a table, and write it as JSON and as a picture."""
    import torch

    from timesformer.cost.benchmark import loading_rate, measure
    from timesformer.engine.setup import load_run_config
    from timesformer.utils.compute import choose_precision
    from timesformer.utils.env import collect_versions
    from timesformer.visualization.lines import save_lines

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    cfg = load_run_config(arguments.cfg, arguments.overrides).cfg
    rows: list[dict[str, Any]] = []
    grid = (values or [None] for values in (arguments.schemes, arguments.sizes, arguments.frames))
    for scheme, size, frames in product(*grid):
        cell = {"TIMESFORMER.ATTENTION_TYPE": scheme, "DATA.NUM_FRAMES": frames}
        cell |= {"DATA.TRAIN_CROP_SIZE": size, "DATA.TEST_CROP_SIZE": size}
        cell |= {"DATA.TRAIN_JITTER_SCALES": size and f"[{size},{size}]"}  # no clip is cut out of a video here
        words = [str(word) for pair in cell.items() if pair[1] is not None for word in pair]
        cell_cfg = load_run_config(arguments.cfg, [*arguments.overrides, *words]).cfg
        options = {name: getattr(arguments, name) for name in ("vs", "clips", "train", "repeats")}
        rows += measure(cell_cfg, **options)
        print(f"{len(rows)} measured", end="\r", file=sys.stderr, flush=True)
    on_gpu = cfg.NUM_GPUS != 0 and torch.cuda.is_available()
    device = torch.cuda.get_device_name() if on_gpu else f"CPU, {count(torch.get_num_threads(), 'thread')}"
    precision, _ = choose_precision(cfg.PRECISION, torch.device("cuda" if on_gpu else "cpu"))
    title = f"{device}, {precision}{', compiled' * cfg.MODEL.COMPILE}, {count(arguments.clips, 'clip')} a pass"
    print(f"{title}\n{table(rows)}")
    rate = statistics.median(row["matrix_rate"] for row in rows) / 1e12
    notes = ["paper, MACs: multiply-accumulates of a clip, as published and as executed"]
    notes += [f"rate: MACs/s as a share of the matrix rate, {rate:.3g} T multiply-accumulates/s"]
    if not on_gpu:
        notes += ["clips/s: by CPU time; memory: parameters and what a training step keeps for its backward pass"]
    print(fit("\n".join(["", *notes, *growth(rows)]), sys.stdout))
    content: dict[str, Any] = {"device": device, "settings": vars(arguments), "versions": collect_versions()}
    content["rows"] = rows
    if arguments.data:
        content["loading_clips_per_sec"] = rate = loading_rate(cfg, arguments.repeats)
        print(f"loading of training clips: {rate:.3g} clips/s")
    out = arguments.out or Path(cfg.OUTPUT_DIR) / "benchmark"
    out.mkdir(parents=True, exist_ok=True)
    (out / "benchmark.json").write_text(json.dumps(content, indent=2, default=str) + "\n")
    save_lines(panels(rows), out / "benchmark.png", f"What a clip costs: {title}")
    print(f"{out / 'benchmark.json'}, {out / 'benchmark.png'}")


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in columns; what is the same in all rows stands above them."""
    header = ["model", "attention", "params", "input", "pass", "paper", "MACs", "clips/s", "memory", "rate"]
    lines = []
    for row in rows:
        published = "" if row["published"] is None or row["pass"] == "training" else f"{row['published'] / 1e9:.4g} G"
        line = [row["model"], row["attention"], f"{row['parameters'] / 1e6:.3g}M"]
        line += [f"{row['frames']}x{row['height']}x{row['width']}", row["pass"]]
        line += [published, f"{row['executed'] / 1e9:.4g} G"]
        if row["clips_per_sec"] is None:
            line += ["", "out of memory", ""]
        else:
            line += [f"{row['clips_per_sec']:.3g}", f"{row['bytes'] / 1e6:.0f} MB", f"{100 * row['share']:.0f}%"]
        lines.append(line)
    same = [i for i in range(header.index("paper")) if len({line[i] for line in lines}) == 1]
    above = ", ".join(f"{header[i]}: {lines[0][i]}" for i in same if lines[0][i])
    kept = [[cell for i, cell in enumerate(line) if i not in same] for line in (header, *lines)]
    return f"{above}\n\n{columns(kept)}"


def growth(rows: list[dict[str, Any]]) -> list[str]:
    """How work, time and memory grow from the fewest to the most frames, for each model, scheme and size."""
    lines = []
    groups = grouped(rows, "model", "attention", "height", "width", "pass")
    for (model, attention, height, width, name), group in groups.items():
        first, last = (select(group, key=lambda row: row["frames"]) for select in (min, max))
        if first["frames"] < last["frames"]:
            frames, work, size = (last[value] / first[value] for value in ("frames", "executed", "bytes"))
            sec = first["clips_per_sec"] / last["clips_per_sec"]
            growth = f"{frames:.3g}x the frames, {work:.3g}x the work, {sec:.3g}x the time, {size:.3g}x memory"
            lines.append(f"{model}, {attention}, {height} x {width}, {name}: {growth}")
    return lines


def grouped(rows: list[dict[str, Any]], *names: str) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """The rows that fit into the memory by their values of `names`."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        if row["clips_per_sec"] is not None:
            groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups


def panels(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Time and memory of the last pass over frames at the smallest size, and over pixels for the fewest frames."""
    rows = [row for row in rows if row["pass"] == rows[-1]["pass"]]
    rows = [row | {"side": round((row["height"] * row["width"]) ** 0.5)} for row in rows]
    values: dict[str, Callable[[dict[str, Any]], float]] = {
        "seconds per clip": lambda row: 1 / row["clips_per_sec"],
        "MB": lambda row: row["bytes"] / 1e6,
    }
    found = []
    for axis, label, fixed, unit in (
        ("frames", "frames", "side", "pixels"),
        ("side", "side in pixels", "frames", "frames"),
    ):
        least = min(row[fixed] for row in rows)
        shown = sorted((row for row in rows if row[fixed] == least), key=lambda row: row[axis])
        if axis == "side" and shown[0]["side"] == shown[-1]["side"]:
            continue
        names = {"title": f"{rows[0]['pass']}, {least} {unit}", "xlabel": label}
        for ylabel, value in values.items():
            lines = [
                {"name": " ".join(key), "x": [row[axis] for row in group], "y": [value(row) for row in group]}
                for key, group in grouped(shown, "attention", "model").items()
            ]
            scale = {"yscale": "log"}  # what grows linearly rises by one decade in a decade
            found.append({**names, "ylabel": ylabel, "axes": scale, "lines": lines})
    return found
