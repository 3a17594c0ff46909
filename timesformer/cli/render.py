"""Renders the generated gestures into a folder that the datasets `gestures` and `kinetics` read."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from timesformer.datasets.gestures.dataset import DEFAULT_FRAME_SIZE, HARD_FRAME_SIZE, Settings, render_dataset
from timesformer.utils.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and render; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="new folder, or one of an interrupted rendering")
    parser.add_argument("--seed", type=int, default=0, help="of people, scenes and movements; default: 0")
    parser.add_argument("--num-subjects", type=int, nargs=3, default=(60, 10, 20), help="people; default: 60 10 20")
    parser.add_argument("--frame-size", type=int, nargs=2, help="height, width; default: 84 96, with --hard 120 160")
    parser.add_argument("--hard", action="store_true", help="clutter, little contrast, small hand")
    parser.add_argument("--codec", choices=("mpeg4", "h264"), default="mpeg4", help="mpeg4 (default): .avi, h264: .mp4")
    parser.add_argument("--processes", type=int, help="default: as many as the CPUs this process may use")
    options = parser.parse_args(argv)
    size = tuple(options.frame_size or (HARD_FRAME_SIZE if options.hard else DEFAULT_FRAME_SIZE))
    settings = Settings(options.seed, tuple(options.num_subjects), size, options.hard, options.codec)
    try:
        render_dataset(options.folder, settings, processes=options.processes)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.folder} is complete")
    return 0


if __name__ == "__main__":
    sys.exit(main())
