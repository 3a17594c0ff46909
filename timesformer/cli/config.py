"""Print every configuration key, or what a config file resolves to and where each value comes from.

python tools/print_config.py                      every key: default, what is allowed, meaning
python tools/print_config.py SOLVER DATA.CROP     the keys whose name contains one of the words
python tools/print_config.py --cfg FILE.yaml KEY value ...
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from timesformer.config.defaults import KEYS
from timesformer.config.describe import describe_keys
from timesformer.config.load import LoadedConfig, load_config
from timesformer.utils.errors import UserError


def resolved(loaded: LoadedConfig) -> str:
    """One line a key: name, value, where it was set; then the advice."""
    lines = []
    for key in KEYS:
        value = loaded.cfg
        for part in key.name.split("."):
            value = value[part]
        unset = "default" if value == key.default else "chosen for the dataset"
        lines.append(f"{key.name:<36}  {value!r:<44}  {loaded.set_by_user.get(key.name, unset)}")
    return "\n".join(lines + [f"advice: {line}" for line in loaded.advice])


def main(words: Sequence[str] | None = None) -> int:
    """Parse the command line and print."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--cfg", metavar="FILE", help="config file to resolve")
    parser.add_argument("words", nargs="*", help="with --cfg: KEY value pairs; else: parts of key names")
    args = parser.parse_intermixed_args(words)
    if args.cfg is None:
        print(describe_keys(args.words))
        return 0
    try:
        print(resolved(load_config(args.cfg, args.words)))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
