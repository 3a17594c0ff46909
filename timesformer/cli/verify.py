"""Compute parts of a finished run again, and report what was edited."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

from timesformer.cli.parsers import command_parser, run_command
from timesformer.utils.console import count
from timesformer.utils.errors import ConfigError, UserError

DESCRIPTION = """\
Compare what a run left behind with what follows from its lists and checkpoints:
lists, labels, metrics, a test of the tested weights, and training from one
checkpoint to the next, bit for bit. Exit status 1 when something does not hold."""
STRETCHES = (
    "pairs of neighbouring checkpoints, the newest first (1); with one more than there are the first is the start"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table of what was checked; returns the exit status."""
    usage = "%(prog)s RUN_DIR [options] [KEY VALUE ...]"
    epilog = "KEY VALUE: where this machine differs, such as DATA.PATH_TO_DATA_DIR DIR"
    parser = command_parser("verify", DESCRIPTION, usage=usage, epilog=epilog)
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="of a training, a test or a protocol")
    parser.add_argument("overrides", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--stretches", type=int, default=1, metavar="N", help=STRETCHES)
    return run_command(parser, argv, verify)


def verify(arguments: argparse.Namespace) -> None:
    """Print each check when it is done.

    Raises:
        UserError: no run is there, or a check does not hold.
    """
    from timesformer.studies import verify as studies
    from timesformer.utils.logging import setup_logging

    if arguments.stretches < 0:
        raise ConfigError(f"--stretches {arguments.stretches}: a number from 0")
    setup_logging()
    checks, width = [], 20 if (arguments.run / "protocol.json").is_file() else 9
    for check in studies.verify(arguments.run, arguments.overrides, num_stretches=arguments.stretches):
        checks.append(check)
        first, *rest = check.detail.split("\n")
        print(f"{check.what:<{width}} {check.result:<16} {first}", flush=True)
        if rest:
            print(textwrap.indent("\n".join(rest), " " * (width + 16)))
    wrong = [check.what for check in checks if not check.holds]
    if wrong:
        raise UserError(f"{arguments.run}: {count(len(wrong), 'check')} of {len(checks)} fail: {', '.join(wrong)}")
    skipped = sum(check.result == "not checked" for check in checks)
    print(f"\n{arguments.run}: everything that was checked holds" + (f" ({skipped} not checked)" if skipped else ""))
