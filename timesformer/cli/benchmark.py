"""Measures what a configuration costs: parameters, multiply-accumulates, clips a second, memory, loading of data.

python tools/benchmark.py --cfg FILE.yaml [--train] [--data] [--vs transformers] [KEY VALUE ...]
python tools/benchmark.py --cfg FILE.yaml --frames 8 16 32 64 96 --sizes 224 336 448 --schemes divided_space_time ...

Clips are random and on the device. On a GPU times are by the clock and memory is the most that tensors hold; on a CPU
times are CPU time and memory is that of the parameters and of what a training step keeps for its backward pass.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from itertools import islice, product
from pathlib import Path
from typing import Any

import torch

from timesformer.config.defaults import KEY_BY_NAME
from timesformer.cost.benchmark import TRANSFORMERS, loading_rate, measure
from timesformer.engine.setup import load_run_config
from timesformer.models.vit import ATTENTION_TYPES
from timesformer.utils.compute import choose_precision
from timesformer.utils.env import collect_versions
from timesformer.utils.errors import exit_status
from timesformer.visualization.benchmark import save_lines


def table(rows: list[dict[str, Any]]) -> list[list[str]]:
    """What is printed of the rows, the names of the columns first."""
    lines = [["model", "attention", "frames x pixels", "pass", "parameters", "published", "executed"]]
    lines[0] += ["clips/s", "memory", "matrix rate"]
    for row in rows:
        published = "" if row["published"] is None or row["pass"] == "training" else f"{row['published'] / 1e9:.4g} G"
        line = [row["model"], row["attention"], f"{row['frames']} x {row['height']} x {row['width']}", row["pass"]]
        line += [f"{row['parameters'] / 1e6:.2f} M", published, f"{row['executed'] / 1e9:.4g} G"]
        if row["clips_per_sec"] is None:
            line += ["out of memory", "", ""]
        else:
            line += [f"{row['clips_per_sec']:.3g}", f"{row['bytes'] / 1e6:.0f} MB", f"{100 * row['share']:.0f}%"]
        lines.append(line)
    return lines


def show(lines: list[list[str]]) -> None:
    """Print a table in Markdown, its columns aligned."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for number, line in enumerate(lines):
        print("| " + " | ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)) + " |")
        if not number:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def growth(rows: list[dict[str, Any]]) -> list[str]:
    """How time and memory grow from the fewest to the most frames, in words, for each model, scheme and size."""
    words = []
    for key, group in grouped(rows, "model", "attention", "height", "width", "pass").items():
        first, last = (choose(group, key=lambda row: row["frames"]) for choose in (min, max))
        if first["frames"] < last["frames"]:
            frames, work, size = (last[name] / first[name] for name in ("frames", "executed", "bytes"))
            name = f"{key[0]}, {key[1]}, {key[2]} x {key[3]}, {key[4]}"
            sec = first["clips_per_sec"] / last["clips_per_sec"]
            words.append(
                f"{name}: {frames:.3g}x the frames, {work:.3g}x the work, {sec:.3g}x the time, {size:.3g}x memory"
            )
    return words


def grouped(rows: list[dict[str, Any]], *names: str) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """The rows that fit into the memory by their values of `names`."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        if row["clips_per_sec"] is not None:
            groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups


def panels(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Time and memory of the last pass over frames at the smallest size, and over pixels for the fewest frames."""
    rows = [
        row | {"side": round((row["height"] * row["width"]) ** 0.5)} for row in rows if row["pass"] == rows[-1]["pass"]
    ]
    least = {name: min(row[name] for row in rows) for name in ("frames", "side")}
    found = []
    for axis, fixed, label in (("frames", "side", "frames"), ("side", "frames", "side in pixels")):
        if axis == "side" and len({row["side"] for row in rows}) == 1:
            continue
        here = sorted((row for row in rows if row[fixed] == least[fixed]), key=lambda row: row[axis])
        for ylabel, value in (
            ("seconds a clip", lambda row: 1 / row["clips_per_sec"]),
            ("MB", lambda row: row["bytes"] / 1e6),
        ):
            lines = [
                {"name": " ".join(key), "x": [row[axis] for row in group], "y": [value(row) for row in group]}
                for key, group in grouped(here, "attention", "model").items()
            ]
            title = f"{rows[0]['pass']}, {least[fixed]} {'pixels' if fixed == 'side' else 'frames'}"
            scale = {"yscale": "log"}  # what grows linearly rises by one decade in a decade
            found.append({"title": title, "xlabel": label, "ylabel": ylabel, "axes": scale, "lines": lines})
    return found


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """The command line; keys and their values may stand anywhere."""
    overrides, rest, words = [], [], iter(argv)
    for word in words:
        if word in KEY_BY_NAME or re.fullmatch(r"[A-Z_]+(\.[A-Z_0-9]+)+", word):
            overrides += [word, *islice(words, 1)]
        else:
            rest.append(word)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg", metavar="FILE.yaml", help="configuration file")
    parser.add_argument("--vs", choices=(TRANSFORMERS,), help="measure Hugging Face's model as well, taking turns")
    parser.add_argument("--train", action="store_true", help="measure optimiser steps as well")
    parser.add_argument("--data", action="store_true", help="measure the loading of training clips as well")
    parser.add_argument("--frames", type=int, nargs="+", help="in place of DATA.NUM_FRAMES")
    parser.add_argument("--sizes", type=int, nargs="+", help="in place of the crop sizes")
    parser.add_argument("--schemes", nargs="+", choices=ATTENTION_TYPES, help="in place of TIMESFORMER.ATTENTION_TYPE")
    parser.add_argument("--clips", type=int, default=8, help="clips of a pass (8)")
    parser.add_argument("--repeats", type=int, default=7, help="timed runs of each; the median counts (7)")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--out", type=Path, help="folder of benchmark.json and benchmark.png (OUTPUT_DIR/benchmark)")
    arguments = parser.parse_args(rest)
    arguments.overrides = overrides
    return arguments


def run(args: argparse.Namespace) -> None:
    """Measure every combination, print, and write the table as JSON and as a picture."""
    if args.threads:
        torch.set_num_threads(args.threads)
    cfg = load_run_config(args.cfg, args.overrides).cfg
    rows = []
    for scheme, size, frames in product(args.schemes or [None], args.sizes or [None], args.frames or [None]):
        chosen = {"TIMESFORMER.ATTENTION_TYPE": scheme, "DATA.NUM_FRAMES": frames}
        chosen |= {"DATA.TRAIN_CROP_SIZE": size, "DATA.TEST_CROP_SIZE": size}
        chosen |= {"DATA.TRAIN_JITTER_SCALES": size and f"[{size},{size}]"}  # from which no clip is cut here
        words = [str(word) for pair in chosen.items() if pair[1] is not None for word in pair]
        cell = load_run_config(args.cfg, [*args.overrides, *words]).cfg
        rows += measure(cell, vs=args.vs, clips=args.clips, train=args.train, repeats=args.repeats)
        print(f"{len(rows)} measured", end="\r", file=sys.stderr, flush=True)
    on_gpu = cfg.NUM_GPUS != 0 and torch.cuda.is_available()
    device = torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads"
    precision, _ = choose_precision(cfg.PRECISION, torch.device("cuda" if on_gpu else "cpu"))
    title = f"{device}, {precision}{', compiled' * cfg.MODEL.COMPILE}, {args.clips} clips a pass"
    print(f"{title}; multiply-accumulates are those of a clip\n")
    show(table(rows))
    print(f"\nmatrix rate: {statistics.median(row['matrix_rate'] for row in rows) / 1e12:.3g} T multiply-accumulates/s")
    if not on_gpu:
        print("seconds are CPU time; memory: parameters and what a training step keeps for its backward pass")
    print(*growth(rows), sep="\n")
    content: dict[str, Any] = {"device": device, "settings": vars(args), "versions": collect_versions(), "rows": rows}
    if args.data:
        content["loading_clips_per_sec"] = rate = loading_rate(cfg, args.repeats)
        print(f"loading of training clips: {rate:.3g} clips/s")
    out = args.out or Path(cfg.OUTPUT_DIR) / "benchmark"
    out.mkdir(parents=True, exist_ok=True)
    (out / "benchmark.json").write_text(json.dumps(content, indent=2, default=str) + "\n")
    save_lines(panels(rows), out / "benchmark.png", f"What a clip costs: {title}")
    print(f"{out / 'benchmark.json'}, {out / 'benchmark.png'}")


if __name__ == "__main__":
    sys.exit(exit_status(lambda: run(parse_arguments(sys.argv[1:]))))
