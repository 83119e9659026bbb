"""`rnnbench check`: the warnings of a stored run, and the exit code that they stand for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rnnbench.analysis.warnings import Warned, warnings_of
from rnnbench.api.compare import side_of
from rnnbench.api.exit_codes import OK, WARNED


def checked(name: str, say: Callable[[str], None]) -> list[Warned]:
    """The warnings of a run: a folder, a file of records, or an id under reports. Raises StoreError."""
    run = side_of(name, say)
    return warnings_of(run.records, run.machine)


def code_of(found: Sequence[Warned]) -> int:
    """One of EXIT_CODES."""
    return WARNED if any(w.counts for w in found) else OK
