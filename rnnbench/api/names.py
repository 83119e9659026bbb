"""What may be asked at most."""

from __future__ import annotations

MAX_PERCENT = 1000.0  # of a gate: more is a mistake
