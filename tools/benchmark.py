"""Measure what a configuration costs (the same as `timesformer benchmark`)."""

import sys

from timesformer.cli.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
