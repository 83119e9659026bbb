"""Drift and two modes: found where they are, and seldom where they are not. Simulated, the seed kept."""

from __future__ import annotations

import numpy as np
import pytest

from rnnbench.results.shape import BIMODAL, bimodal, drifts, separation
from rnnbench.results.stats import summarise
from tests.report.fake import case, record

CASE = case()
SINGLE = {
    "normal": lambda rng, n: 1 + 0.05 * rng.normal(size=n),
    "log-normal": lambda rng, n: np.exp(0.5 * rng.normal(size=n)),
    "exponential": lambda rng, n: 1 + rng.exponential(0.2, n),
    "uniform": lambda rng, n: rng.uniform(1, 1.5, n),
    "every 20th disturbed": lambda rng, n: np.exp(0.02 * rng.normal(size=n)) * (1 + 0.5 * (rng.random(n) < 0.05)),
    "wandering": lambda rng, n: np.exp(0.05 * np.cumsum(rng.normal(size=n)) / np.sqrt(n)),
}


def answer(turns, backend="numba"):
    """`turns`: (launch, round) -> seconds of its calls."""
    return summarise([record(CASE, backend, s, launch=key[0], round=key[1]) for key, s in turns.items()])


@pytest.mark.parametrize("kind", SINGLE)
def test_single_modes_are_seldom_called_two(kind):
    """Turns over the limit: at most 2 % of 20 calls; answers of 6 such turns: none of 100."""
    rng = np.random.default_rng(17)
    over = np.mean([separation(np.log(SINGLE[kind](rng, 20)))[0] > BIMODAL for _ in range(1000)])
    assert over < 0.02
    turns = [{(n // 2, n % 2): SINGLE[kind](rng, 27) for n in range(6)} for _ in range(100)]
    assert not any(bimodal(answer(t)) for t in turns)


def test_two_modes_are_found_and_measured():
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(50):
        calls = {(n, 0): np.exp(0.02 * rng.normal(size=27)) * (1 + 0.3 * (rng.random(27) < 0.4)) for n in range(6)}
        if modes := bimodal(answer(calls)):
            found += 1
            assert modes.apart == pytest.approx(1.3, rel=0.05)
    assert found == 50


def test_two_modes_need_calls_and_distance():
    close = {(n, 0): [1.0] * 12 + [1.01] * 12 for n in range(3)}
    assert bimodal(answer(close)) is None
    few = {(n, 0): [1.0] * 6 + [2.0] * 6 for n in range(3)}
    assert bimodal(answer(few)) is None
    assert bimodal(answer({(0, 0): [1.0] * 12 + [2.0] * 12})) is None  # one turn
    assert bimodal(answer({(n, 0): [1.0] * 24 for n in range(3)})) is None


def run_of(rng, launches, rounds, drift_rounds=0.0, drift_launches=0.0):
    turns = {}
    for launch in range(launches):
        own = 0.05 * rng.normal() + drift_launches * launch / max(1, launches - 1)
        for r in range(rounds):
            turns[launch, r] = [np.exp(own + drift_rounds * r / max(1, rounds - 1) + 0.02 * rng.normal())] * 3
    return answer(turns)


@pytest.mark.parametrize(("launches", "rounds"), [(3, 2), (3, 4), (10, 6)])
def test_a_steady_run_has_a_drift_in_fewer_than_one_in_twenty(launches, rounds):
    """Runs of 4 answers with 5 % spread between launches and 2 % within: those in which any drift is told."""
    rng = np.random.default_rng(5)
    false = np.mean([bool(drifts([run_of(rng, launches, rounds) for _ in range(4)])) for _ in range(60)])
    assert false < 0.05 + 2 * np.sqrt(0.05 * 0.95 / 60)


def test_a_drift_is_found_over_rounds_and_over_launches():
    rng = np.random.default_rng(7)
    ((s, change),) = drifts([run_of(rng, 10, 6, drift_rounds=0.2), run_of(rng, 10, 6)])
    assert len(s.turns) == 60
    assert change == pytest.approx(np.expm1(0.2), rel=0.25)
    ((_, change),) = drifts([run_of(rng, 10, 1, drift_launches=0.4)])
    assert change == pytest.approx(np.expm1(0.4), rel=0.4)
    assert drifts([run_of(rng, 3, 2, drift_rounds=0.2)]) == []  # too few turns to tell
    assert drifts([]) == []
