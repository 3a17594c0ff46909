"""`python -m timesformer`: the same as the command `timesformer`."""

import sys

from timesformer.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
