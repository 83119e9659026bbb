"""What the documents claim of intervals, the stop rule, noise, steps and alarms, on simulated runs; and the command.

In reduced form only what surely breaks a bound is seen; with --every-case there are as many runs as the documents give.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import claims
from claims import PARTS, Found, Table
from rnnbench.analysis import intervals
from worlds import worlds

REDUCED = {"intervals": 150, "stop": 40, "verdicts": 60, "noise": 8, "history": 30, "alarms": 60, "threads": 100,
           "disturbed": 30}  # fmt: skip


@pytest.mark.parametrize("part", claims.SIMULATED)
def test_what_is_claimed_is_found(part, request):
    full = request.config.getoption("--every-case")
    found = [one for table in PARTS[part](0, None if full else REDUCED[part]) for one in table.found]
    assert any(one.least > 0 or one.most < 1 for one in found)
    missed = [one for one in found if (not one.least <= one.share <= one.most if full else one.broken)]
    assert not missed, [one.complaint() for one in missed]


def test_intervals_that_are_too_narrow_are_told(monkeypatch):
    monkeypatch.setattr(intervals, "_BEYOND", dict.fromkeys((3, 5), -0.2))
    first, *_ = PARTS["intervals"](0, 150)
    assert [one.what for one in first.found if one.broken] == ["a time", "a ratio within rounds"]


def test_the_worlds_have_the_median_that_they_say():
    rng = np.random.default_rng(0)
    for name, world in worlds().items():
        logs = world.draw(rng, (200_000,))
        assert np.median(logs) == pytest.approx(world.median, abs=1e-3), name


def test_a_bound_is_broken_by_more_than_chance():
    def found(hits, runs=100, **bounds):
        return Found("a time", "spread 5 %", "95 %", hits, runs, **bounds)

    assert not found(88, least=0.9).broken
    assert found(70, least=0.9).broken
    assert found(70, least=0.9).complaint() == "a time, spread 5 %: 70.0 % of 100; at least 90 % is stated"
    assert not found(6, most=0.05).broken
    assert found(20, most=0.05).broken
    assert found(95).row()["found"] == "95.0 % (88.7 to 98.4)"
    assert found(2, 1000).row()["found"] == "0.2 % (0.024 to 0.72)"
    text = Table("Intervals", [found(95)]).markdown()
    assert text.startswith("**Intervals**\n\n| what ")
    assert "beside" not in text  # a column with nothing in it


def test_the_command_prints_what_it_found_and_refuses_what_it_cannot():
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(Path(claims.__file__)), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)

    done = run("verdicts", "--runs", "50", "--seed", "3")
    assert done.returncode == claims.OK, done.stderr
    same, other = ("\n".join(table.markdown() for table in PARTS["verdicts"](seed, 50)) for seed in (3, 4))
    assert done.stdout == f"## verdicts\n\n{same}\n"
    assert same != other
    for arguments, words in ((["speed"], "'speed' is not one of 'intervals', 'stop'"), (["--runs", "3"], "x>=10")):
        refused = run(*arguments)
        assert refused.returncode == claims.USAGE
        assert words in " ".join(refused.stderr.split())
