"""Calibrate a checkpoint's scores on labelled videos that it was not trained on, and store the result in it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from timesformer.cli.parsers import command_parser, run_command
from timesformer.utils.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Score, fit, store; returns the exit status."""
    parser = command_parser(
        "calibrate",
        "Find the temperature of a model's scores and the score from which 1% of the\nanswers are wrong, on the "
        "validation list, and store both in the checkpoint.",
    )
    parser.add_argument("checkpoint", metavar="CKPT", help="checkpoint of a run, or the run's folder")
    parser.add_argument("--data", metavar="DIR", default="", help="where lists and videos are, if they were moved")
    parser.add_argument("--split", choices=("val", "test"), default="val", help="list to use (%(default)s)")
    return run_command(parser, argv, calibrate_checkpoint)


def calibrate_checkpoint(arguments: argparse.Namespace) -> None:
    """Score the list of the checkpoint's configuration and rewrite the checkpoint.

    Raises:
        UserError: not a checkpoint of a run, several labels per video, or a list that cannot be read.
    """
    from timesformer.engine.calibrate import calibrate_file
    from timesformer.inference.predictor import checkpoint_of, load
    from timesformer.utils.logging import setup_logging
    from timesformer.video.clip_spec import Views

    setup_logging()
    path = checkpoint_of(arguments.checkpoint)
    predictor = load(path, views=Views())  # as `live` sees a clip, whatever the views of the test
    if predictor.multi_label:
        raise UserError(f"{path} was trained with several labels per video: there is no one score to calibrate")
    found = calibrate_file(path, predictor.score, split=arguments.split, data_dir=arguments.data)
    durations = ", ".join(f"{value:.2f}" for value in found.durations_sec)
    print(f"{path}: calibrated on {found.clips} clips of the {arguments.split} list")
    print(
        f"temperature {found.temperature:.3f} (negative log likelihood {found.nll_before:.3f} -> {found.nll_after:.3f})"
    )
    meaning = "at most 1% of the answers from this score on are wrong" if found.threshold < 1 else "no score is safe"
    print(f"threshold   {found.threshold:.3f}: {meaning}")
    print(f"durations   {durations} s (quartiles)")
