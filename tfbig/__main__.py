"""`python -m tfbig` is the `tfbig` command."""

import sys

from tfbig.cli import main

if __name__ == "__main__":
    sys.exit(main())
