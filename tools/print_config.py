"""Explain configuration keys and files (the same as `timesformer config`)."""

import sys

from timesformer.cli.config import main

if __name__ == "__main__":
    sys.exit(main())
