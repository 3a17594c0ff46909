"""Draw what the model is given (the same as `timesformer preview`)."""

import sys

from timesformer.cli.preview import main

if __name__ == "__main__":
    sys.exit(main())
