"""Convert weights: a file, a Hugging Face folder, timm:NAME or hf:REPO_ID into what others can load."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from timesformer.cli.parsers import command_parser, run_command

EXAMPLES = """\
timesformer convert checkpoint_epoch_00015.pyth folder --to hf
timesformer convert hf:facebook/timesformer-base-finetuned-k400 k.pyth --to pyth"""
FORMATS = ("hf", "pyth", "safetensors")


def main(argv: Sequence[str] | None = None) -> int:
    """Read, write, and say both; returns the exit status."""
    parser = command_parser("convert", "Convert weights into what other programs can load.", epilog=EXAMPLES)
    parser.add_argument("source", metavar="IN", help="file, Hugging Face folder, timm:NAME, hf:REPO_ID[@REVISION]")
    parser.add_argument("out", metavar="OUT", help="new folder (hf) or file (pyth, safetensors)")
    parser.add_argument("--to", required=True, choices=FORMATS, help="what to write")
    parser.add_argument("--num-heads", type=int, metavar="N", help="attention heads, if IN does not state them")
    parser.add_argument("--no-ema", action="store_true", help="the trained weights, not their moving average")
    return run_command(parser, argv, convert)


def convert(arguments: argparse.Namespace) -> None:
    """Read IN, write OUT; `CheckpointError` if either is impossible."""
    from timesformer.weights import read_weights, save_weights

    weights = read_weights(arguments.source, ema=not arguments.no_ema)
    average = ", moving average" if weights.is_ema else ""
    print(f"read {arguments.source}: {weights.kind}, {len(weights.tensors)} tensors{average}")
    print(f"wrote {save_weights(weights, arguments.out, to=arguments.to, num_heads=arguments.num_heads)}")
