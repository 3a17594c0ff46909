"""Print every configuration key, or what a config file resolves to and where each value comes from.

timesformer config                      every key: default, allowed values, meaning
timesformer config SOLVER DATA.CROP     the keys whose name contains one of the words
timesformer config --cfg FILE.yaml KEY VALUE ...
"""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence

from timesformer.config import LoadedConfig
from timesformer.config.defaults import KEYS, get_value
from timesformer.config.locate import bundled_configs
from timesformer.utils.errors import exit_status


def describe_keys(words: str | Sequence[str] = (), *, choices: Mapping[str, Sequence[str]] | None = None) -> str:
    """A table of the keys whose name contains one of `words`, in any case (all keys without words).

    For each key a line with name, default and allowed values, then the meaning.

    Args:
        words: such as ``solver`` or ``DATA.CROP``.
        choices: allowed values that only the caller knows (models and datasets), by key.
    """
    words = [words] if isinstance(words, str) else words
    keys = [key for key in KEYS if not words or any(word.upper() in key.name for word in words)]
    if not keys:
        return f"No key contains {' or '.join(words)}."
    rows = [(key.name, repr(key.default), key.allowed((choices or {}).get(key.name, ()))) for key in keys]
    meanings = [textwrap.fill(key.meaning, 80, initial_indent="    ", subsequent_indent="    ") for key in keys]
    return "\n".join(f"{row}\n{meaning}" for row, meaning in zip(format_rows(rows), meanings, strict=True))


def format_rows(rows: Iterable[tuple[str, str, str]]) -> list[str]:
    """Three columns as lines of at most 100 characters; a longer line continues below its second column."""
    rows = list(rows)
    first, second = max(len(row[0]) for row in rows), min(max(len(row[1]) for row in rows), 25)
    lines = (f"{a:<{first}}  {b:<{second}}  {c}" for a, b, c in rows)
    wrap = textwrap.TextWrapper(
        100, subsequent_indent=" " * (first + 2), break_long_words=False, break_on_hyphens=False
    )
    return [wrap.fill(line) for line in lines]


def resolved(loaded: LoadedConfig) -> str:
    """One line per key: name, value, where it was set; then the advice."""
    rows, package = [], f"{bundled_configs().parent}{os.sep}"
    for key in KEYS:
        value = get_value(loaded.cfg, key.name)
        unset = "default" if value == key.default else "default of the dataset"
        location = loaded.set_by_user.get(key.name, unset).removeprefix(os.getcwd() + os.sep).removeprefix(package)
        rows.append((key.name, repr(value), location))
    advice = [textwrap.fill(f"advice: {line}", 80, subsequent_indent="    ") for line in loaded.advice]
    return "\n".join(format_rows(rows) + advice)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and print."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--cfg", metavar="FILE", help="config file to resolve")
    parser.add_argument("words", nargs="*", help="with --cfg: KEY VALUE pairs; else: parts of key names")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.cfg is None:
        print(describe_keys(arguments.words))
        return 0
    from timesformer.engine.setup import load_run_config  # seconds: not for the table of keys

    return exit_status(lambda: print(resolved(load_run_config(arguments.cfg, arguments.words))))


if __name__ == "__main__":
    sys.exit(main())
