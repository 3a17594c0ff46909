"""Train, test or check a model (the same as `timesformer train`)."""

import sys

from timesformer.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
