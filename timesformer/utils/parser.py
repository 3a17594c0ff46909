"""`parse_args` and `load_config` under the names that programs for the original TimeSformer and PySlowFast import."""

from __future__ import annotations

import argparse
import sys

from fvcore.common.config import CfgNode

from timesformer.config.load import load_config as load_checked


def parse_args() -> argparse.Namespace:
    """The command line of the process: `cfg_file`, `opts` (keys and values), `num_shards`, `shard_id`, `init_method`.

    Without arguments it prints its help and exits.
    """
    parser = argparse.ArgumentParser(description="Train and test a video model (new programs: `timesformer train`).")
    parser.add_argument("--cfg", dest="cfg_file", metavar="FILE", help="configuration file")
    parser.add_argument("--num_shards", type=int, default=1, metavar="N", help="number of nodes")
    parser.add_argument("--shard_id", type=int, default=0, metavar="I", help="index of this node, from 0")
    parser.add_argument("--init_method", default="tcp://localhost:9999", metavar="URL", help="of the first node")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="keys of the configuration")
    if len(sys.argv) == 1:
        parser.print_help()
        parser.exit()
    return parser.parse_intermixed_args()


def load_config(args: argparse.Namespace) -> CfgNode:
    """The checked configuration that `args` of `parse_args` name; its values may be changed.

    Raises:
        ConfigError: all problems, each with its location.
    """
    words = [*(args.opts or [])]
    for key, value in (("NUM_SHARDS", args.num_shards), ("SHARD_ID", args.shard_id)):
        words += [key, str(value)]
    cfg = load_checked(args.cfg_file, words).cfg.clone()
    cfg.defrost()
    return cfg
