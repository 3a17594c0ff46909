"""Convert weights: a file, a Hugging Face folder, timm:NAME or hf:REPO_ID into what others can load.

python tools/convert_weights.py checkpoint_epoch_00015.pyth folder --to hf
python tools/convert_weights.py hf:facebook/timesformer-base-finetuned-k400 k400.pyth --to pyth
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from timesformer.utils.errors import exit_status
from timesformer.weights.layouts import read_weights
from timesformer.weights.save import FORMATS, save_weights


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, read, write, and say both."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("source", metavar="IN", help="file, Hugging Face folder, timm:NAME or hf:REPO_ID[@revision]")
    parser.add_argument("out", metavar="OUT", help="new folder (hf) or file (pyth, safetensors)")
    parser.add_argument("--to", required=True, choices=tuple(FORMATS), help="what to write")
    parser.add_argument("--num-heads", type=int, metavar="N", help="attention heads, when IN does not tell them")
    parser.add_argument("--no-ema", action="store_true", help="take the trained weights, not their moving average")
    args = parser.parse_args(argv)

    def convert() -> None:
        weights = read_weights(args.source, ema=not args.no_ema)
        average = ", moving average" if weights.is_ema else ""
        print(f"read {args.source}: {weights.kind}, {len(weights.tensors)} tensors{average}")
        print(f"wrote {save_weights(weights, args.out, to=args.to, num_heads=args.num_heads)}")

    return exit_status(convert)


if __name__ == "__main__":
    sys.exit(main())
