"""When the launches of a case are to end, as a plan asks it, and why they ended, as `run.json` holds it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

DEFAULT_MIN_LAUNCHES = 5  # launches before a rule may stop: with 3 its intervals would hold the truth less often
MIN_LAUNCHES = 3  # launches that any rule makes: of fewer there is no interval
DEFAULT_MAX_LAUNCHES = 30  # launches, unless asked otherwise


class Why(StrEnum):
    """What ended the launches of a case."""

    PRECISE = "precise enough"
    CAP = "cap of launches"
    BUDGET = "budget spent"
    CASE_BUDGET = "case budget spent"
    ALL = "all launches"  # as many as the mode has


@dataclass(frozen=True)
class StopRule:
    """Launches go on until the 95 % interval of each time reaches no further than `precision` of it, or the cap.

    At least `min_launches` and at most `max_launches`. Raises ValueError for a precision or number that makes no sense.
    """

    precision: float
    min_launches: int = DEFAULT_MIN_LAUNCHES
    max_launches: int = DEFAULT_MAX_LAUNCHES

    def __post_init__(self) -> None:
        if not 0 < self.precision < 1:
            raise ValueError(f"the precision is {self.precision:.3g}; it must be above 0 and below 1, such as 0.05")
        if not MIN_LAUNCHES <= self.min_launches <= self.max_launches:
            raise ValueError(
                f"{self.min_launches} to {self.max_launches} launches; {MIN_LAUNCHES} at least are needed for an "
                "interval, the fewest first"
            )

    @classmethod
    def until(cls, precision: float, max_launches: int | None = None) -> StopRule:
        """The rule for a precision and a cap; None for the usual cap. ValueError for less than `MIN_LAUNCHES`."""
        most = DEFAULT_MAX_LAUNCHES if max_launches is None else max_launches
        return cls(precision, min(DEFAULT_MIN_LAUNCHES, most), most)


@dataclass(frozen=True)
class Stop:
    """Why one backend was measured no further in one case. `reached` is None where there is no interval."""

    why: Why
    reason: str
    launches: int
    reached: float | None
