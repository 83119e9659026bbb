"""`python -m rnnbench`."""

import os
import sys

if not sys.flags.safe_path and os.path.realpath(sys.path[0] or ".") == os.path.realpath("."):
    del sys.path[0]  # the current folder, which `-m` puts there: a queue.py in it is no part of this program

from rnnbench.cli import main

if __name__ == "__main__":
    main()
