"""The resident memory of this process, and a peak that begins now. By `/proc`: only Linux tells."""

from __future__ import annotations

from pathlib import Path

PROCESS = Path("/proc/self")


def _kilobytes(field: str) -> int | None:
    try:
        return int((PROCESS / "status").read_text().partition(f"{field}:")[2].split(maxsplit=1)[0])
    except (OSError, ValueError, IndexError):
        return None


def before_a_pass() -> int | None:
    """Bytes that the process has now, its peak put back to that. Where that may not be, its peak so far; or None."""
    try:
        (PROCESS / "clear_refs").write_text("5")  # proc(5): resets the peak resident set size
        field = "VmRSS"
    except OSError:
        field = "VmHWM"
    found = _kilobytes(field)
    return None if found is None else 1024 * found
