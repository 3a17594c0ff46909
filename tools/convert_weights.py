"""Convert weights to another layout (the same as `timesformer convert`)."""

import sys

from timesformer.cli.convert import main

if __name__ == "__main__":
    sys.exit(main())
