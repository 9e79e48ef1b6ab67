"""``python -m autodeco``: the command, where no script for it is on the path."""

import sys

from autodeco.cli import main

if __name__ == "__main__":
    sys.exit(main())
