"""A slow-down planted in real processes: the busy loop is as long as it says, and the comparison finds it."""

from __future__ import annotations

import time

import pytest

import claims
import planted
from claims import PARTS
from planted import planted_run, slowed
from rnnbench.analysis.compare import Ratio
from rnnbench.analysis.stats import Basis, Interval


def test_the_loop_takes_its_share_of_the_call():
    ratios = []
    for _ in range(5):
        start = time.perf_counter()
        slowed(lambda: time.sleep(0.01), 0.5)()
        ratios.append((time.perf_counter() - start) / 0.01)
    assert min(ratios) >= 1.5
    assert min(ratios) < 2.5


@pytest.mark.parametrize(("found", "false", "broken"), [(97, 2, False), (70, 2, True), (97, 20, True)])
def test_tries_are_counted_and_judged(found, false, broken, monkeypatch):
    def made(seed, share):
        def ratio(slower):
            value = 1.1 if slower else 1.0
            return Interval(value, value - 0.01, value + 0.01, Basis.LAUNCHES), Ratio(value)

        return {"planted": ratio(seed < found), "unchanged": ratio(seed < false)}

    monkeypatch.setattr(planted, "planted_run", made)
    (table,) = PARTS["planted"](0, 100)
    assert [one.hits for one in table.found] == [found, false]
    assert any(one.broken for one in table.found) is broken
    assert "planted" not in claims.SIMULATED


@pytest.mark.slow
def test_a_planted_slow_down_is_found_in_real_processes(monkeypatch):
    """In reduced form: one run, twice as long, seen through any neighbours."""
    for name in planted.CASES:
        monkeypatch.setitem(planted.backends.REGISTRY, name, planted.backends.REGISTRY["numpy"])
    monkeypatch.setitem(planted.EFFORTS, planted.Mode.QUICK, planted.EFFORTS[planted.Mode.QUICK])
    for name in ("PYTHONPATH", "RNNBENCH_PLANTED"):
        monkeypatch.setenv(name, "")
    found = planted_run(0, 1.0, launches=5, rounds=4)
    assert found["planted"][0].low > 1.2
    assert found["unchanged"][0].low < 1.2
