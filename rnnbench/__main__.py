"""`python -m rnnbench`."""

import os
import sys

if not sys.flags.safe_path and os.path.realpath(sys.path[0] or ".") == os.path.realpath("."):
    del sys.path[0]  # the current folder, which `-m` puts there: a queue.py in it is no part of this program

try:
    from rnnbench.cli import main
except (ImportError, MemoryError, OSError) as error:  # a damaged installation, or no memory to load it
    if os.environ.get("RNNBENCH_TRACEBACK"):
        raise
    said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    os.write(2, f"Error: rnnbench cannot be loaded, {said}; install it again, or give it more memory\n".encode())
    sys.exit(71)

if __name__ == "__main__":
    main()
