"""What all commands have in common: parsers whose help fits one screen, exit status, a fast start."""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from timesformer.utils.env import let_waiting_threads_sleep
from timesformer.utils.errors import exit_status


def command_parser(command: str, description: str, **settings: Any) -> argparse.ArgumentParser:
    """A parser for `timesformer COMMAND`."""
    layout = partial(argparse.RawDescriptionHelpFormatter, max_help_position=26)
    return argparse.ArgumentParser(
        f"timesformer {command}", description=description, formatter_class=layout, **settings
    )


def config_parser(
    command: str, description: str, *, needs: str = "--cfg FILE", cfg_required: bool = False
) -> argparse.ArgumentParser:
    """A parser with `--cfg` and `overrides`, a list of keys and values before, between or after the options."""
    usage = f"%(prog)s {needs} [options] [KEY VALUE ...]"
    epilog = "KEY VALUE: keys of the configuration; `timesformer config [WORD]` explains them"
    parser = command_parser(command, description, usage=usage, epilog=epilog)
    cfg_help = "configuration file, or the name of a packaged one"
    parser.add_argument("--cfg", metavar="FILE", required=cfg_required, help=cfg_help)
    parser.add_argument("overrides", nargs="*", help=argparse.SUPPRESS)
    return parser


def run_command(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, work: Callable[[argparse.Namespace], None]
) -> int:
    """Parse the command line (None: that of this process) and do the work; returns the exit status."""
    os.environ["MPLBACKEND"] = "Agg"  # pictures are files; a notebook's backend may not exist here
    arguments = parser.parse_intermixed_args(argv)
    first = next(iter(getattr(arguments, "overrides", [])), "")
    if first.endswith((".yaml", ".yml")) and arguments.cfg is None:
        parser.error(f"a configuration file goes after --cfg: --cfg {first}")
    return exit_status(lambda: work(arguments))


@contextlib.contextmanager
def heavy_imports() -> Iterator[None]:
    """Keep the garbage collector away from what is imported, also later: it would take a fifth of a check's time.

    Only at the start of a process: what was garbage before would stay as well. Threads of torch then wait asleep.
    """
    if "torch" in sys.modules:
        yield
        return
    let_waiting_threads_sleep(os.environ)
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
