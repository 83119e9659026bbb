"""The stop rule: when it holds and what it says; what its intervals cover is in tests/validation/test_claims.py."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rnnbench.analysis.intervals import CONFIDENCE, LOOKED, median_interval
from rnnbench.analysis.stats import interval_of
from rnnbench.analysis.stop_rule import precise_enough, relative_precision, stop_of
from rnnbench.records.record import TurnKey
from rnnbench.records.stops import DEFAULT_MAX_LAUNCHES, DEFAULT_MIN_LAUNCHES, StopRule, Why


def turns_of(launches):
    """Seconds of each round of each launch, as turns."""
    return {TurnKey(0, i, j): t for i, rounds in enumerate(launches) for j, t in enumerate(rounds)}


def test_the_precision_is_how_far_the_interval_reaches():
    turns = turns_of([[1.0], [1.1], [1.2]])
    interval = interval_of(turns)
    assert relative_precision(turns) == pytest.approx(interval.high / interval.value - 1)
    assert relative_precision(turns_of([[1.0], [1.1]])) is None
    assert relative_precision(turns_of([[1.0, 1.0, 1.0, 1.0]])) is None  # one launch: not between processes
    assert relative_precision({}) is None
    assert not precise_enough(StopRule(0.5), {})


def test_a_reason_gives_the_number_and_the_limit():
    turns = turns_of([[1.0], [1.0], [math.exp(0.01)]])
    assert stop_of(Why.PRECISE, turns, "5 %").reason == "precise enough: 1.84 % <= 5 %, 3 launches"
    assert stop_of(Why.CAP, turns, "3 launches").reason == "cap of 3 launches reached at 1.84 %"
    assert (
        stop_of(Why.BUDGET, turns_of([[1.0]]), "9 s").reason == "budget of 9 s spent after 1 launch, with no interval"
    )
    assert "a case spent after 3 launches" in stop_of(Why.CASE_BUDGET, turns, "9 s").reason


@pytest.mark.parametrize("asked", [(0.0,), (1.0,), (0.05, 2, 9), (0.05, 5, 4)])
def test_rules_without_sense_are_refused(asked):
    with pytest.raises(ValueError, match=r"above 0 and below 1|at least are needed"):
        StopRule(*asked)


def test_a_cap_below_the_fewest_lowers_them():
    assert StopRule.until(0.05) == StopRule(0.05, DEFAULT_MIN_LAUNCHES, DEFAULT_MAX_LAUNCHES)
    assert StopRule.until(0.05, 4) == StopRule(0.05, 4, 4)
    with pytest.raises(ValueError, match="3 at least"):
        StopRule.until(0.05, 2)


def test_the_interval_of_more_launches_than_the_fewest_makes_up_for_the_looks():
    logs = np.random.default_rng(0).normal(0, 0.05, 8)
    for n, confidence in ((5, CONFIDENCE), (6, LOOKED), (8, LOOKED)):
        found = interval_of({TurnKey(0, i, 0): math.exp(x) for i, x in enumerate(logs[:n])})
        assert (found.value, found.low, found.high) == pytest.approx(np.exp(median_interval(logs[:n], confidence)))
    one = interval_of({TurnKey(0, 0, i): math.exp(x) for i, x in enumerate(logs)})
    assert (one.low, one.high) == pytest.approx(np.exp(median_interval(logs)[1:]))
