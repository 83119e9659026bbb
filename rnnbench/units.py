"""Numbers, times, shares and bytes as people read them: sensible digits and a unit."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

MAX_PERCENT = 1000.0  # of a margin: more is a mistake


@dataclass(frozen=True)
class Unit:
    """A unit of time and its length in seconds."""

    name: str
    seconds: float


UNITS = (Unit("µs", 1e-6), Unit("ms", 1e-3), Unit("s", 1.0))


def unit_for(seconds: Iterable[float]) -> Unit:
    """The largest unit in which the shortest of these times is still at least 0.1."""
    shortest = min((s for s in seconds if math.isfinite(s) and s > 0), default=1.0)
    return next((u for u in reversed(UNITS) if shortest >= 0.1 * u.seconds), UNITS[0])


def decimals_of(value: float, digits: int = 3) -> int:
    """How many decimals show that many significant digits."""
    if value == 0 or not math.isfinite(value):
        return 0
    return max(0, digits - 1 - math.floor(math.log10(abs(value))))


def number(value: float, digits: int = 3, decimals: int | None = None) -> str:
    """A number in plain digits, thousands parted by commas; "" for NaN."""
    if math.isnan(value):
        return ""
    if math.isinf(value):
        return "inf"
    return f"{value:,.{decimals_of(value, digits) if decimals is None else decimals}f}"


def duration(seconds: float, digits: int = 3) -> str:
    """A measured time in the unit that suits it: `0.213 ms`; "" for NaN."""
    if math.isnan(seconds):
        return ""
    unit = unit_for([seconds])
    return f"{number(seconds / unit.seconds, digits)} {unit.name}"


def rough_duration(seconds: float) -> str:
    """An estimate: `40 s`, `12 min`, `1.5 h`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def exact_duration(seconds: float) -> str:
    """A budget as it is asked for: `30 s`, `10 min`."""
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:g} min" if minutes and not rest else f"{seconds:g} s"


def percent(share: float, decimals: int | None = None) -> str:
    """A share in percent: `5 %`, `3.24 %`, or with so many decimals."""
    return f"{100 * share:.3g} %" if decimals is None else f"{number(100 * share, decimals=decimals)} %"


def gibibytes(size: float) -> str:
    """`1.5 GiB`."""
    gib = size / 2**30
    return f"{gib:,.1f} GiB" if gib < 1e6 else f"{gib:.1e} GiB"


def threads(count: int) -> str:
    """`1 thread`, `2 threads`."""
    return f"{count} thread" if count == 1 else f"{count} threads"
