"""Train, test and check a model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from timesformer.cli.parsers import config_parser, heavy_imports, run_command

# The engine is imported by the work itself: processes that only render or load would import it (seconds) for nothing.


def main(argv: Sequence[str] | None = None, *, command: str = "train") -> int:
    """Train, then test; returns the exit status."""
    descriptions = {
        "train": "Train a model, then test it. To resume a stopped run: TRAIN.AUTO_RESUME True.",
        "test": "Test trained weights: TEST.CHECKPOINT_FILE_PATH, else the best of OUTPUT_DIR.",
        "check": "Check configuration, data and weights, take one tiny step, and stop.",
    }
    parser = config_parser(command, descriptions[command])
    if command == "train":
        parser.add_argument("--check", action="store_true", help="the same as `timesformer check`")
    parser.set_defaults(command=command, check=command == "check")
    parser.add_argument("--num_shards", type=int, metavar="N", help="number of nodes (same as NUM_SHARDS)")
    parser.add_argument("--shard_id", type=int, metavar="I", help="index of this node, from 0 (same as SHARD_ID)")
    parser.add_argument("--init_method", default="", metavar="URL", help="of the first node: tcp://node0:29500")
    return run_command(parser, argv, start)


def test(argv: Sequence[str]) -> int:
    """Test without training; returns the exit status."""
    return main(argv, command="test")


def check(argv: Sequence[str]) -> int:
    """Check without training; returns the exit status."""
    return main(argv, command="check")


def start(arguments: argparse.Namespace) -> None:
    """Load the configuration and launch the processes of the run."""
    with heavy_imports():
        from timesformer.distributed.launch import launch
        from timesformer.engine.run import run
        from timesformer.engine.setup import load_run_config

    overrides = ["TRAIN.ENABLE", "False"] * (arguments.command == "test") + arguments.overrides
    for key, value in (("NUM_SHARDS", arguments.num_shards), ("SHARD_ID", arguments.shard_id)):
        overrides += [] if value is None else [key, str(value)]
    loaded = load_run_config(arguments.cfg, overrides)
    launch(loaded.cfg, run, loaded, arguments.check, init_method=arguments.init_method)
