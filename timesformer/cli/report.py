"""Write the HTML report of a run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from timesformer.cli.parsers import command_parser, run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Write the file and print its path; returns the exit status."""
    description = "Write one HTML file about a run, tested or not: curves, each class, confusion,\n"
    description += "calibration, clips that play, configuration, data. A test writes it too."
    parser = command_parser("report", description)
    parser.add_argument("run", type=Path, metavar="RUN", help="OUTPUT_DIR of the run")
    parser.add_argument("--out", type=Path, metavar="FILE", help="file to write (RUN/report.html)")
    return run_command(parser, argv, report)


def report(arguments: argparse.Namespace) -> None:
    """Write the file; `UserError` for a folder without a run."""
    from timesformer.engine.html_report import write_html

    print(write_html(arguments.run, arguments.out))
