"""A backend against itself: the noise floor, and the edges; false alarms are in tests/validation/test_claims.py."""

from __future__ import annotations

import numpy as np
import pytest

from rnnbench.analysis.noise import noise_of
from rnnbench.model import Pass
from rnnbench.records.record import Status
from tests.report.fake import case, failure
from worlds import twins


def test_the_floor_follows_the_spread_and_the_launches():
    rng = np.random.default_rng(0)
    names = ["a", "b", "c"]
    floors = [
        noise_of(twins(rng, names=names, spread=spread, launches=n)).floor
        for spread, n in ((0.01, 4), (0.05, 4), (0.05, 16))
    ]
    assert floors[1] == pytest.approx(5 * floors[0], rel=0.4)
    assert floors[2] == pytest.approx(floors[1] / 2, rel=0.4)


def test_a_real_difference_would_be_called():
    noise = noise_of(twins(np.random.default_rng(0), names=["a"], launches=10, spread=0.01, twin=1.2))
    assert noise.false_alarms == len(noise.pairs) == 4
    assert noise.pairs[0].ratio.value == pytest.approx(1.2, rel=0.05)


def test_one_launch_tells_no_interval():
    noise = noise_of(twins(np.random.default_rng(0), names=["a"], launches=1))
    assert noise.launches == 1
    assert not any(pair.different or pair.excludes_one for pair in noise.pairs)
    assert noise.as_json("r", "m")["pairs"][0]["q"] is None


def test_twins_that_failed_are_no_pairs():
    records = twins(np.random.default_rng(0), names=["a", "b"])
    wrong = failure(case("imdb-50", Pass.FORWARD), "a#2", Status.WRONG, "error of loss is 1")
    pairs = {(p.backend, p.case.pass_) for p in noise_of([*records, wrong]).pairs}
    assert ("a", Pass.FORWARD) not in pairs
    assert len(pairs) == 7
    assert noise_of([r for r in records if r.backend == "a"]) is None
    assert noise_of([]) is None
