"""A backend against itself: false alarms and the noise floor in simulated runs, and at the edges."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rnnbench.model import Pass
from rnnbench.results.noise import noise_of
from rnnbench.results.record import Status
from tests.report.fake import case, failure, record

PASSES = tuple(Pass)


def run_of(rng, *, names, launches=3, rounds=2, spread=0.05, drift=0.1, twin=1.0):
    """Records of an A/A run: drift that all share, and a spread of each process and each turn."""
    made = []
    for i in range(launches):
        for pass_ in PASSES:
            shared = rng.normal(0, drift, rounds)
            for name in names:
                for own, scale in ((name, 1.0), (f"{name}#2", twin)):
                    turns = scale * np.exp(shared + rng.normal(0, spread) + rng.normal(0, spread, rounds))
                    made += [
                        record(case("parity", pass_), own, [1e-3 * t], launch=i, round=j) for j, t in enumerate(turns)
                    ]
    return made


def test_false_alarms_are_rare_and_the_floor_covers(request):
    """Nothing differs: under 5 % of the pairs are called different, and 95 % of ratios are within the floor."""
    tries = 200 if request.config.getoption("--every-case") else 8
    rng = np.random.default_rng(0)
    names = [f"b{i}" for i in range(5)]
    found = [noise_of(run_of(rng, names=names)) for _ in range(tries)]
    pairs = [pair for noise in found for pair in noise.pairs]
    assert len(pairs) == tries * 5 * len(PASSES)
    assert sum(pair.different for pair in pairs) <= 0.05 * len(pairs)
    assert sum(pair.alone for pair in pairs) <= 0.09 * len(pairs)
    within = [abs(math.log(p.ratio.value)) <= math.log1p(noise.floor) for noise in found for p in noise.pairs]
    assert 0.9 <= np.mean(within) <= 0.99


def test_the_floor_follows_the_spread_and_the_launches():
    rng = np.random.default_rng(0)
    names = ["a", "b", "c"]
    floors = [
        noise_of(run_of(rng, names=names, spread=spread, launches=n)).floor
        for spread, n in ((0.01, 4), (0.05, 4), (0.05, 16))
    ]
    assert floors[1] == pytest.approx(5 * floors[0], rel=0.4)
    assert floors[2] == pytest.approx(floors[1] / 2, rel=0.4)


def test_a_real_difference_would_be_called():
    noise = noise_of(run_of(np.random.default_rng(0), names=["a"], launches=10, spread=0.01, twin=1.2))
    assert noise.false_alarms == len(noise.pairs) == 4
    assert noise.pairs[0].ratio.value == pytest.approx(1.2, rel=0.05)


def test_one_launch_tells_no_interval():
    noise = noise_of(run_of(np.random.default_rng(0), names=["a"], launches=1))
    assert noise.launches == 1
    assert not any(pair.different or pair.alone for pair in noise.pairs)
    assert noise.as_json("r", "m")["pairs"][0]["q"] is None


def test_twins_that_failed_are_no_pairs():
    records = run_of(np.random.default_rng(0), names=["a", "b"])
    wrong = failure(case("parity", Pass.FORWARD), "a#2", Status.WRONG, "error of loss is 1")
    pairs = {(p.backend, p.case.pass_) for p in noise_of([*records, wrong]).pairs}
    assert ("a", Pass.FORWARD) not in pairs
    assert len(pairs) == 7
    assert noise_of([r for r in records if r.backend == "a"]) is None
    assert noise_of([]) is None
