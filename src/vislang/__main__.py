"""`python -m vislang`: the same as the command `vislang`; torchrun starts it this way."""

import sys

from vislang.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
