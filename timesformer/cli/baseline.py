"""Score cheap baselines on a run's lists: what a model has to beat."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path

from timesformer.cli.parsers import config_parser, run_command
from timesformer.utils.console import columns
from timesformer.utils.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table and write baseline.json; returns the exit status."""
    parser = config_parser(
        "baseline",
        "Learn cheap baselines from the training list and score them on the test list:\nno network, seconds.",
    )
    parser.add_argument("--split", choices=("train", "val", "test"), help="list to score (TEST.SPLIT)")
    parser.add_argument("--no-hands", action="store_true", help="leave hand landmarks out (they take longest)")
    return run_command(parser, argv, baseline)


def baseline(arguments: argparse.Namespace) -> None:
    """Compute the baselines of a configuration; those of hand landmarks where mediapipe is installed.

    Raises:
        UserError: see `compute_baselines`.
    """
    from timesformer.datasets.build import load_list
    from timesformer.engine.baselines import FILE, compute_baselines
    from timesformer.engine.setup import load_run_config
    from timesformer.utils.logging import get_logger, setup_logging
    from timesformer.video.hand_landmarks import HandFinder

    split = ["TEST.SPLIT", arguments.split] if arguments.split else []
    cfg = load_run_config(arguments.cfg, [*arguments.overrides, *split]).cfg
    setup_logging()
    log = get_logger(__name__)
    train, test = load_list(cfg, "train"), load_list(cfg, cfg.TEST.SPLIT, testing=True)
    for name, videos in (("train", train), (cfg.TEST.SPLIT, test)):
        log.info("%s: %d videos", name, len(videos.records))
        for warning in videos.warnings:
            log.warning("%s", warning)
    with contextlib.ExitStack() as stack:
        hands, missing = None, ""
        try:
            hands = None if arguments.no_hands else stack.enter_context(HandFinder())
        except UserError as error:
            missing = f"\nleft out: {error}"
        scores = compute_baselines(cfg, train, test, hands=hands)
    rows = [("baseline", "top1 %", "95% interval", "seconds")]
    for score in scores:
        interval = f"{score.low:.1f} to {score.high:.1f}"
        rows.append((score.method, f"{score.top1:.1f}", interval, f"{score.seconds:.1f}"))
    print(f"\n{columns(rows)}{missing}\nwritten to {Path(cfg.OUTPUT_DIR) / FILE}")
