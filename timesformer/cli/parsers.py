"""What the command lines of all commands have in common; their help fits one screen."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial

from timesformer.utils.errors import exit_status


def command_parser(command: str, description: str, **settings: str) -> argparse.ArgumentParser:
    """A parser for `timesformer COMMAND`."""
    layout = partial(argparse.RawDescriptionHelpFormatter, max_help_position=26)
    return argparse.ArgumentParser(f"timesformer {command}", description=description, formatter_class=layout, **settings)


def config_parser(command: str, description: str) -> argparse.ArgumentParser:
    """A parser with `--cfg` and `overrides`, a list of keys and values before, between or after the options."""
    parser = command_parser(
        command,
        description,
        usage="%(prog)s --cfg FILE [options] [KEY VALUE ...]",
        epilog="KEY VALUE: configuration keys to change; `timesformer config [WORD]` explains them.",
    )
    parser.add_argument("--cfg", metavar="FILE", help="configuration file, or the name of a packaged one")
    parser.add_argument("overrides", nargs="*", help=argparse.SUPPRESS)
    return parser


def run_command(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, work: Callable[[argparse.Namespace], None]
) -> int:
    """Parse the command line (None: that of this process) and do the work; returns the exit status."""
    arguments = parser.parse_intermixed_args(argv)
    first = next(iter(getattr(arguments, "overrides", [])), "")
    if first.endswith((".yaml", ".yml")) and arguments.cfg is None:
        parser.error(f"a configuration file goes after --cfg: --cfg {first}")
    return exit_status(lambda: work(arguments))
