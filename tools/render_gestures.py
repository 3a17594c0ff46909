"""Render the generated gestures (the same as `timesformer render`)."""

import sys

from timesformer.cli.render import main

if __name__ == "__main__":
    sys.exit(main())
