"""A fault of a script gets an exit code of its own: Python's for any error is 1, which means that a case is slower."""

from __future__ import annotations

import os
import sys
import traceback
from types import TracebackType

FAULT = 70  # as of `python -m rnnbench`, which may be what cannot be imported


def apart() -> None:
    """From here on, for this process."""
    sys.excepthook = _ended


def _ended(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if os.environ.get("RNNBENCH_TRACEBACK"):
        traceback.print_exception(error)
    said = " ".join(f"{kind.__name__}: {error}".split())
    print(f"Error: nothing was compared, {said}; RNNBENCH_TRACEBACK=1 in the environment shows where", file=sys.stderr)
    sys.exit(FAULT)
