"""The stop rule: when it holds, what it says, and that its intervals hold the truth in simulated runs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rnnbench.results.stats import interval_of
from rnnbench.results.stops import FEWEST, MOST, Rule, Why, precision_of, stop_of


def turns_of(values):
    return {(0, i, j): float(v) for i, row in enumerate(values) for j, v in enumerate(row)}


def covered(rule, spread, *, tries, rounds=2, seed=0):
    """Of `tries` runs that end by the rule: the share whose interval holds the truth, and the launches of each."""
    rng = np.random.default_rng(seed)
    hits, launches = 0, []
    for _ in range(tries):
        logs = rng.normal(0, spread, (rule.most, 1)) + rng.normal(0, spread, (rule.most, rounds))
        turns = turns_of(np.exp(logs))
        n = rule.fewest
        while n < rule.most and not rule.holds({k: v for k, v in turns.items() if k[1] < n}):
            n += 1
        interval = interval_of({k: v for k, v in turns.items() if k[1] < n})
        hits += interval.low <= 1 <= interval.high
        launches.append(n)
    return hits / tries, launches


@pytest.mark.parametrize("spread", [0.02, 0.05, 0.07])
def test_intervals_hold_the_truth_although_the_rule_looks_after_each_launch(spread, request):
    """Spread between launches and as much within, until 5 % is reached: 95 % is claimed, at least 90 must hold."""
    tries = 4000 if request.config.getoption("--every-case") else 250
    share, launches = covered(Rule(0.05), spread, tries=tries)
    assert share >= 0.9
    assert min(launches) >= FEWEST
    assert max(launches) <= MOST
    assert len(set(launches)) > (1 if spread > 0.02 else 0)


def test_more_spread_takes_more_launches():
    means = [np.mean(covered(Rule(0.05), spread, tries=15)[1]) for spread in (0.01, 0.05, 0.1)]
    assert means == sorted(means)
    assert means[0] < 6
    assert means[2] > 15


def test_the_precision_is_how_far_the_interval_reaches():
    turns = turns_of([[1.0], [1.1], [1.2]])
    interval = interval_of(turns)
    assert precision_of(turns) == pytest.approx(interval.high / interval.value - 1)
    assert precision_of(turns_of([[1.0], [1.1]])) is None
    assert precision_of(turns_of([[1.0, 1.0, 1.0, 1.0]])) is None  # one launch: not between processes
    assert precision_of({}) is None
    assert not Rule(0.5).holds({})


def test_a_reason_gives_the_number_and_the_limit():
    turns = turns_of([[1.0], [1.0], [math.exp(0.01)]])
    assert stop_of(Why.PRECISE, turns, "5 %").reason == "precise enough: 1.44 % <= 5 %, 3 launches"
    assert stop_of(Why.CAP, turns, "3 launches").reason == "cap of 3 launches reached at 1.44 %"
    assert (
        stop_of(Why.BUDGET, turns_of([[1.0]]), "9 s").reason == "budget of 9 s spent after 1 launch, with no interval"
    )
    assert "a case spent after 3 launches" in stop_of(Why.CASE_BUDGET, turns, "9 s").reason


@pytest.mark.parametrize("asked", [(0.0,), (1.0,), (0.05, 2, 9), (0.05, 5, 4)])
def test_rules_without_sense_are_refused(asked):
    with pytest.raises(ValueError, match=r"above 0 and below 1|at least are needed"):
        Rule(*asked)


def test_a_cap_below_the_fewest_lowers_them():
    assert Rule.until(0.05) == Rule(0.05, FEWEST, MOST)
    assert Rule.until(0.05, 4) == Rule(0.05, 4, 4)
    with pytest.raises(ValueError, match="3 at least"):
        Rule.until(0.05, 2)
