"""Compare tested runs (the same as `timesformer compare`)."""

import sys

from timesformer.cli.compare import main

if __name__ == "__main__":
    sys.exit(main())
