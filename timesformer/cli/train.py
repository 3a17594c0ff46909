"""Train and test: `python tools/run_net.py --cfg FILE.yaml KEY VALUE ...`."""

from __future__ import annotations

import argparse
import sys

from timesformer.utils.errors import exit_status

# The engine is imported where it is used: processes that only render or load would import it (seconds) for nothing.


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line of the original, and `--check`."""
    from timesformer.cli.config import describe_keys
    from timesformer.engine.setup import registered_names

    parser = argparse.ArgumentParser(
        description="Train and test a video model.",
        epilog="Configuration keys (after the options, as KEY VALUE KEY VALUE ...):\n\n"
        + describe_keys(choices=registered_names()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cfg", dest="cfg_file", metavar="FILE.yaml", help="configuration file")
    parser.add_argument("--check", action="store_true", help="check configuration and data, run one tiny step, stop")
    parser.add_argument("--num_shards", type=int, help="number of nodes (same as NUM_SHARDS)")
    parser.add_argument("--shard_id", type=int, help="index of this node, from 0 (same as SHARD_ID)")
    parser.add_argument("--init_method", default="", help="address of the first node, such as tcp://node0:29500")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="configuration overrides")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.cfg_file is None and arguments.overrides and arguments.overrides[0].endswith((".yaml", ".yml")):
        parser.error(f"a configuration file goes after --cfg: --cfg {arguments.overrides[0]}")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Exit status 0, or 1 after an error that the user can mend."""
    return exit_status(lambda: start(parse_arguments(argv)))


def start(arguments: argparse.Namespace) -> None:
    """Load the configuration and launch the processes of the run."""
    from timesformer.distributed.launch import launch
    from timesformer.engine.run import run
    from timesformer.engine.setup import load_run_config

    overrides = list(arguments.overrides)
    if arguments.num_shards is not None:
        overrides += ["NUM_SHARDS", str(arguments.num_shards)]
    if arguments.shard_id is not None:
        overrides += ["SHARD_ID", str(arguments.shard_id)]
    loaded = load_run_config(arguments.cfg_file, overrides)
    launch(loaded.cfg, run, loaded, arguments.check, init_method=arguments.init_method)


if __name__ == "__main__":
    sys.exit(main())
