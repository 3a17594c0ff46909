"""Explain configuration keys, or show what a file resolves to and where each value comes from."""

from __future__ import annotations

import argparse
import os
import textwrap
from collections.abc import Mapping, Sequence

from timesformer.cli.parsers import command_parser, run_command
from timesformer.config import LoadedConfig
from timesformer.config.defaults import KEYS, Key, get_value
from timesformer.config.locate import bundled_configs

EXAMPLES = """\
timesformer config                      every key: default, allowed, meaning
timesformer config SOLVER DATA.CROP     keys that contain one of the words
timesformer config --cfg FILE [KEY VALUE ...]     what a file resolves to"""
WIDTH = 80
REGISTERED = ("MODEL.MODEL_NAME", "TRAIN.DATASET", "TEST.DATASET")  # keys whose values are names of a registry


def main(argv: Sequence[str] | None = None) -> int:
    """Print; returns the exit status."""
    description = "Explain configuration keys, or show what a configuration file resolves to."
    parser = command_parser("config", description, epilog=EXAMPLES)
    parser.add_argument("--cfg", metavar="FILE", help="configuration file, or the name of a packaged one")
    parser.add_argument("words", nargs="*", metavar="WORD", help="parts of key names; with --cfg: KEY VALUE pairs")
    return run_command(parser, argv, show)


def show(arguments: argparse.Namespace) -> None:
    """Print keys or a resolved file; `ConfigError` for a file that no run accepts."""
    registered = any(key.name in REGISTERED for key in matching_keys(arguments.words))
    if arguments.cfg is None and not registered:
        print(describe_keys(arguments.words))
        return
    from timesformer.engine.setup import load_run_config, registered_names  # seconds

    if arguments.cfg is None:
        print(describe_keys(arguments.words, choices=registered_names()))
    else:
        print(resolved(load_run_config(arguments.cfg, arguments.words)))


def matching_keys(words: Sequence[str]) -> list[Key]:
    """The keys whose name contains one of `words`, in any case (all keys without words)."""
    return [key for key in KEYS if not words or any(word.upper() in key.name for word in words)]


def describe_keys(words: str | Sequence[str] = (), *, choices: Mapping[str, Sequence[str]] | None = None) -> str:
    """A line with name, default and allowed values for each of `matching_keys`, then the meaning.

    Args:
        words: such as ``solver`` or ``DATA.CROP``.
        choices: allowed values that only the caller knows (models and datasets), by key.
    """
    words = [words] if isinstance(words, str) else words
    keys = matching_keys(words)
    if not keys:
        return f"No key contains {' or '.join(words)}."
    rows = [(key.name, repr(key.default), key.allowed((choices or {}).get(key.name, ()))) for key in keys]
    meanings = [textwrap.fill(key.meaning, WIDTH, initial_indent="    ", subsequent_indent="    ") for key in keys]
    return "\n".join(f"{row}\n{meaning}" for row, meaning in zip(format_rows(rows), meanings, strict=True))


def format_rows(rows: Sequence[tuple[str, str, str]], *, widest: int = 25) -> list[str]:
    """Three columns as lines of at most 80 characters; a longer line continues below its second column.

    Args:
        rows: the cells.
        widest: largest width of the second column; a longer cell moves the third one to the right.
    """
    first, second = max(len(row[0]) for row in rows), min(max(len(row[1]) for row in rows), widest)
    indent = " " * (first + 2)
    wrap = textwrap.TextWrapper(WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return [wrap.fill(f"{a:<{first}}  {b:<{second}}  {c}") for a, b, c in rows]


def resolved(loaded: LoadedConfig) -> str:
    """One line per key: name, value, where it was set; then the advice."""
    rows, bundled = [], f"{bundled_configs()}{os.sep}"
    for key in KEYS:
        value = get_value(loaded.cfg, key.name)
        unset = "default" if value == key.default else "default of the dataset"
        location = loaded.set_by_user.get(key.name, unset).removeprefix(bundled).removeprefix(os.getcwd() + os.sep)
        rows.append((key.name, repr(value), location))
    advice = [textwrap.fill(f"advice: {line}", WIDTH, subsequent_indent="    ") for line in loaded.advice]
    return "\n".join(format_rows(rows, widest=10) + advice)
