"""Suggest a learning rate: train at growing rates until the loss diverges, and draw the loss."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from timesformer.cli.parsers import config_parser, heavy_imports, run_command
from timesformer.utils.errors import ConfigError

if TYPE_CHECKING:
    from timesformer.config import LoadedConfig
    from timesformer.distributed.launch import Processes

DESCRIPTION = """\
Suggest SOLVER.BASE_LR: a step of the training at each of many growing rates,
until the loss diverges. Writes a picture, and nothing into OUTPUT_DIR."""


def main(argv: Sequence[str] | None = None) -> int:
    """Sweep, print and draw; returns the exit status."""
    parser = config_parser("lr-find", DESCRIPTION)
    parser.add_argument("--steps", type=int, default=100, metavar="N", help="optimiser steps at most (%(default)s)")
    parser.add_argument("--first", type=float, default=1e-7, metavar="R", help="rate of the first step (%(default)s)")
    parser.add_argument("--last", type=float, default=10.0, metavar="R", help="rate of the last step (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("lr_find.png"), metavar="PNG", help="picture (%(default)s)")
    return run_command(parser, argv, find)


def find(arguments: argparse.Namespace) -> None:
    """Sweep in one process, with an output folder that is gone afterwards."""
    if not (0 < arguments.first < arguments.last and arguments.steps >= 2):
        raise ConfigError("--first must be above 0 and below --last, and --steps at least 2")
    with heavy_imports():
        from timesformer.distributed.launch import launch
        from timesformer.engine.setup import load_run_config

    with tempfile.TemporaryDirectory(prefix="timesformer_lr_find_") as folder:
        fixed = {"OUTPUT_DIR": folder, "DIST.PROCESSES_PER_NODE": 1, "NUM_SHARDS": 1, "SHARD_ID": 0}
        fixed |= {"TRAIN.ENABLE": True, "TEST.ENABLE": False, "TENSORBOARD.ENABLE": False}
        words = [str(word) for pair in fixed.items() for word in pair]
        loaded = load_run_config(arguments.cfg, [*arguments.overrides, *words])
        launch(loaded.cfg, _sweep, loaded, arguments)


def _sweep(processes: Processes, loaded: LoadedConfig, arguments: argparse.Namespace) -> None:
    from timesformer.datasets.build import load_list
    from timesformer.engine.lr_finder import RULE, growing_rates, sweep_rates
    from timesformer.engine.setup import start_run
    from timesformer.optim.build import rate_scale
    from timesformer.visualization.rates import save_rates

    videos = load_list(loaded.cfg, "train")
    run = start_run(loaded, processes, writes=False)
    sweep = sweep_rates(run, videos, growing_rates(arguments.first, arguments.last, arguments.steps))
    best = sweep.suggestion()
    if sweep.rates:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        save_rates(sweep.rates, sweep.losses, sweep.smoothed, best, arguments.out)
    end = "the loss diverged" if sweep.diverged else "the last rate was reached"
    print(f"\n{len(sweep.rates)} steps, {end}: {arguments.out}")
    if best is None:
        print("no suggestion: the loss does not fall. Begin with a smaller rate (--first), or take more --steps")
    else:
        print(f"SOLVER.BASE_LR {best / rate_scale(loaded.cfg):.2g}  ({RULE})")
