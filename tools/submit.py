"""Train and test as a Slurm job (the same as `timesformer submit`)."""

import sys

from timesformer.cli.submit import main

if __name__ == "__main__":
    sys.exit(main())
