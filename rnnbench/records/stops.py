"""When the launches of a case are to end, as a plan asks it, and why they ended, as `run.json` holds it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

FEWEST = 5  # launches before a rule may stop: with 3 its intervals would hold the truth less often
LEAST = 3  # launches that any rule makes: of fewer there is no interval
MOST = 30  # launches, unless asked otherwise


class Why(StrEnum):
    """What ended the launches of a case."""

    PRECISE = "precise enough"
    CAP = "cap of launches"
    BUDGET = "budget spent"
    CASE_BUDGET = "case budget spent"
    ALL = "all launches"  # as many as the mode has


@dataclass(frozen=True)
class Rule:
    """Launches go on until the 95 % interval of each time reaches no further than `precision` of it, or the cap.

    At least `fewest` launches and at most `most`. Raises ValueError for a precision or a number that makes no sense.
    """

    precision: float
    fewest: int = FEWEST
    most: int = MOST

    def __post_init__(self) -> None:
        if not 0 < self.precision < 1:
            raise ValueError(f"the precision is {self.precision:.3g}; it must be above 0 and below 1, such as 0.05")
        if not LEAST <= self.fewest <= self.most:
            raise ValueError(
                f"{self.fewest} to {self.most} launches; {LEAST} at least are needed for an interval, the fewest first"
            )

    @classmethod
    def until(cls, precision: float, most: int | None = None) -> Rule:
        """The rule for a precision and a cap; None for the usual cap. ValueError for fewer than `LEAST` launches."""
        most = MOST if most is None else most
        return cls(precision, min(FEWEST, most), most)


@dataclass(frozen=True)
class Stop:
    """Why one backend was measured no further in one case. `reached` is None where there is no interval."""

    why: Why
    reason: str
    launches: int
    reached: float | None
