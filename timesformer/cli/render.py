"""Render the generated gestures into a folder that the datasets `gestures` and `kinetics` read."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from timesformer.cli.parsers import command_parser, run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Render; returns the exit status."""
    parser = command_parser("render", "Render the generated gestures into a folder of videos and lists.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="new, or of an interrupted rendering")
    parser.add_argument("--seed", type=int, default=0, help="of people, scenes and movements (%(default)s)")
    subjects = "people in train, val and test (60 10 20)"
    parser.add_argument("--num-subjects", type=int, nargs=3, default=(60, 10, 20), metavar="N", help=subjects)
    parser.add_argument("--frame-size", type=int, nargs=2, metavar=("H", "W"), help="84 96, with --hard 120 160")
    parser.add_argument("--hard", action="store_true", help="clutter, little contrast, small hand")
    parser.add_argument("--codec", choices=("mpeg4", "h264"), default="mpeg4", help="mpeg4 (.avi) or h264 (.mp4)")
    parser.add_argument("--idle", type=int, default=0, metavar="N", help="clips without a gesture of each person")
    parser.add_argument("--processes", type=int, metavar="N", help="default: the CPUs that this process may use")
    return run_command(parser, argv, render)


def render(arguments: argparse.Namespace) -> None:
    """Render the videos and lists that are not there yet; `UserError` for a folder of other settings."""
    from timesformer.datasets.gestures.dataset import DEFAULT_FRAME_SIZE, HARD_FRAME_SIZE, Settings, render_dataset

    size = tuple(arguments.frame_size or (HARD_FRAME_SIZE if arguments.hard else DEFAULT_FRAME_SIZE))
    people = tuple(arguments.num_subjects)
    settings = Settings(arguments.seed, people, size, arguments.hard, arguments.codec, arguments.idle)
    render_dataset(arguments.folder, settings, processes=arguments.processes)
    print(f"{arguments.folder} is complete")
