"""Drift and two modes are found where they are; false alarms are in tests/validation/test_claims.py."""

from __future__ import annotations

import numpy as np
import pytest

from rnnbench.analysis.diagnostics import bimodal, drifts
from worlds import answer, drifting


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


def test_a_drift_is_found_over_rounds_and_over_launches():
    rng = np.random.default_rng(7)
    ((s, change),) = drifts([drifting(rng, 10, 6, drift_rounds=0.2), drifting(rng, 10, 6)])
    assert len(s.turns) == 60
    assert change == pytest.approx(np.expm1(0.2), rel=0.25)
    ((_, change),) = drifts([drifting(rng, 10, 1, drift_launches=0.4)])
    assert change == pytest.approx(np.expm1(0.4), rel=0.4)
    assert drifts([drifting(rng, 3, 2, drift_rounds=0.2)]) == []  # too few turns to tell
    assert drifts([]) == []
