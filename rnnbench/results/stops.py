"""Why the launches of a case ended: it is precise enough, the cap was reached, a budget is spent. For `run.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from rnnbench.results.stats import Basis, TurnKey, interval_of

FEWEST = 5  # launches before a rule may stop: with 3 its intervals would hold the truth less often
LEAST = 3  # launches that any rule makes: of fewer there is no interval
MOST = 30  # launches, unless asked otherwise
RIGOROUS = 0.02  # the precision of a rigorous run


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

    def holds(self, turns: Mapping[TurnKey, float]) -> bool:
        """Whether these turns give a time that is precise enough."""
        reached = precision_of(turns)
        return reached is not None and reached <= self.precision


@dataclass(frozen=True)
class Stop:
    """Why one backend was measured no further in one case. `reached` is None where there is no interval."""

    why: Why
    reason: str
    launches: int
    reached: float | None


def precision_of(turns: Mapping[TurnKey, float]) -> float | None:
    """How far the 95 % interval of a time reaches above it, as a part of it; None of fewer than three launches."""
    interval = interval_of(turns)
    if interval is None or interval.basis is not Basis.LAUNCHES:
        return None
    return interval.high / interval.value - 1


def launches_of(turns: Mapping[TurnKey, float]) -> int:
    """How many processes the turns come from."""
    return len({(part, launch) for part, launch, _ in turns})


def percent(share: float) -> str:
    """`5 %`, `3.24 %`."""
    return f"{100 * share:.3g} %"


def stop_of(why: Why, turns: Mapping[TurnKey, float], limit: str) -> Stop:
    """The reason in words; `limit` is what was asked: `5 %`, `30 launches`, `10 min`."""
    launches, reached = launches_of(turns), precision_of(turns)
    count = f"{launches} launch{'' if launches == 1 else 'es'}"
    at = f"at {percent(reached)}" if reached is not None else "with no interval"
    reason = {
        Why.PRECISE: f"precise enough: {percent(reached or 0.0)} <= {limit}, {count}",
        Why.CAP: f"cap of {limit} reached {at}",
        Why.BUDGET: f"budget of {limit} spent after {count}, {at}",
        Why.CASE_BUDGET: f"budget of {limit} a case spent after {count}, {at}",
        Why.ALL: f"all {count} of the mode made, {at}" if launches > 1 else f"the one launch of the mode made, {at}",
    }[why]
    return Stop(why, reason, launches, reached)
