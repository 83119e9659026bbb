"""Comparisons, steps and stops on simulated runs whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from claims import ended
from rnnbench.analysis.changepoints import steps
from rnnbench.analysis.comparable import Side
from rnnbench.analysis.compare import Gate, Verdict, compare_sides
from rnnbench.analysis.stats import Metric
from rnnbench.records.stops import StopRule
from worlds import NOISY, QUIET, run_of, series

GATE = Gate(Metric.MEDIAN, 0.05)
MARGIN = 0.05
RIGOROUS = {"launches": 10, "rounds": 6}  # as `run --rigorous`


def verdicts(rng, truth, **how):
    """Case name -> verdict, of a run and another whose times are those of the first times `truth`."""
    base = run_of(rng, dict.fromkeys(truth, 1e-3), "base", **how)
    new = run_of(rng, {name: 1e-3 * ratio for name, ratio in truth.items()}, "new", **how)
    return {f.backend: f.verdict for f in compare_sides(Side(base), Side(new), GATE)}


def calls(truth, *, tries=100, seed=0, **how):
    """Case name -> how often each verdict was given."""
    rng = np.random.default_rng(seed)
    found = [verdicts(rng, truth, **how) for _ in range(tries)]
    return {name: {v: sum(f[name] is v for f in found) for v in Verdict} for name in truth}


@pytest.mark.slow
def test_a_planted_slow_down_is_found_among_unchanged_cases():
    unchanged = [f"same-{i}" for i in range(3)]
    found = calls({"planted": 1.1, **dict.fromkeys(unchanged, 1.0)}, **RIGOROUS, **QUIET)
    assert found["planted"][Verdict.SLOWER] >= 95
    assert sum(found[name][Verdict.SLOWER] for name in unchanged) <= 5
    assert min(found[name][Verdict.SAME] for name in unchanged) >= 90


@pytest.mark.slow
def test_a_planted_speed_up_is_found():
    found = calls({"planted": 1 / 1.1, "same": 1.0}, tries=40, **RIGOROUS, **QUIET)
    assert found["planted"][Verdict.FASTER] >= 38
    assert found["same"][Verdict.FASTER] <= 2


def test_three_launches_tell_a_slow_down_on_a_quiet_machine_alone():
    quiet = calls({"planted": 1.1}, launches=3, launch=0.01, round_=0.01, bursts=0.0)
    assert quiet["planted"][Verdict.SLOWER] >= 95
    noisy = calls({"planted": 1.1}, launches=3, **NOISY)
    assert noisy["planted"][Verdict.INCONCLUSIVE] >= 85


@pytest.mark.slow
@pytest.mark.parametrize("launches", [3, 10])
@pytest.mark.parametrize("noise", [QUIET, NOISY], ids=["quiet", "noisy"])
def test_what_is_unchanged_is_seldom_called_slower(launches, noise):
    found = calls({"alone": 1.0}, launches=launches, **noise)["alone"]
    assert found[Verdict.SLOWER] <= 5
    assert found[Verdict.FASTER] <= 5


@pytest.mark.parametrize(("n", "at"), [(20, 10), (20, 14), (30, 24)])
@pytest.mark.parametrize("ratio", [1.2, 1 / 1.2])
def test_a_step_is_found_where_it_is(n, at, ratio):
    rng = np.random.default_rng(0)
    found = [steps(series(rng, n, at, ratio, bursts=0.0), MARGIN) for _ in range(30)]
    near = [one[0] for one in found if len(one) == 1 and abs(one[0].index - at) <= 1]
    assert len(near) >= 25
    assert np.median([step.ratio for step in near]) == pytest.approx(ratio, rel=0.03)


def test_more_spread_takes_more_launches():
    rng = np.random.default_rng(0)
    means = [np.mean([ended(rng, StopRule(0.05), spread)[0] for _ in range(15)]) for spread in (0.01, 0.05, 0.1)]
    assert means == sorted(means)
    assert means[0] < 6
    assert means[2] > 15
