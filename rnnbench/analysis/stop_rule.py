"""Why the launches of a case ended: it is precise enough, the cap was reached, a budget is spent. For `run.json`."""

from __future__ import annotations

from collections.abc import Mapping

from rnnbench.analysis.stats import Basis, interval_of
from rnnbench.records.record import TurnKey
from rnnbench.records.stops import Stop, StopRule, Why
from rnnbench.units import percent

RIGOROUS = 0.02  # the precision of a rigorous run


def relative_precision(turns: Mapping[TurnKey, float]) -> float | None:
    """How far the 95 % interval of a time reaches above it, as a part of it; None of fewer than three launches."""
    interval = interval_of(turns)
    if interval is None or interval.basis is not Basis.LAUNCHES:
        return None
    return interval.high / interval.value - 1


def precise_enough(rule: StopRule, turns: Mapping[TurnKey, float]) -> bool:
    """Whether these turns give a time that is as precise as the rule asks."""
    reached = relative_precision(turns)
    return reached is not None and reached <= rule.precision


def stop_of(why: Why, turns: Mapping[TurnKey, float], limit: str) -> Stop:
    """The reason in words; `limit` is what was asked: `5 %`, `30 launches`, `10 min`."""
    launches, reached = len({key[:2] for key in turns}), relative_precision(turns)
    count = f"{launches} launch{'' if launches == 1 else 'es'}"
    at = f"at {percent(reached)}" if reached is not None else "with no interval"
    reason = {
        Why.PRECISE: f"precise enough: {percent(reached or 0.0)} <= {limit}, {count}",
        Why.CAP: f"cap of {limit} reached {at}",
        Why.BUDGET: f"budget of {limit} spent after {count}, {at}",
        Why.CASE_BUDGET: f"budget of {limit} a case spent after {count}, {at}",
        Why.ALL: f"all {limit} of the mode made, {at}" if launches > 1 else f"the one launch of the mode made, {at}",
    }[why]
    return Stop(why, reason, launches, reached)
