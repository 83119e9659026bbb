"""Two speeds of a machine, told from turns of all backends; how often they are missed or false is in `claims.py`."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from rnnbench.analysis.speeds import MIN_TURNS, speeds_of, two_speeds
from rnnbench.analysis.warnings import warnings_of
from rnnbench.model import Pass
from rnnbench.records.record import Status
from tests.report.fake import case, record

SLOW = 1.45
BACKENDS = {"numba": 1e-3, "torch": 4e-3, "jax": 2e-4}


def turns(slow, launches=5, rounds=8):
    """Records in the order of time; `slow(i)` says of the i-th whether the machine is slow in it."""
    rng, made = np.random.default_rng(0), []
    for launch in range(launches):
        for pass_ in (Pass.FORWARD, Pass.TRAIN_STEP):
            for round_ in range(rounds):
                for name in rng.permutation(list(BACKENDS)):
                    seconds = BACKENDS[name] * np.exp(rng.normal(0, 0.02)) * (SLOW if slow(len(made)) else 1)
                    made.append(record(case("imdb-50", pass_), str(name), [seconds] * 3, launch=launch, round=round_))
    return made


def test_two_speeds_are_told_with_their_ratio_and_shares():
    records = turns(lambda i: i % 40 >= 25)
    found = two_speeds(records)
    assert found.apart == pytest.approx(SLOW, rel=0.02)
    assert (found.turns, found.stretches) == (240, 6)
    assert found.slow == pytest.approx(90, abs=4)
    (warned,) = [w for w in warnings_of(records, {}) if w.kind == "speeds"]
    assert "37.5 % of the turns take 1.44 times as long as the other 62.5 %" in warned.text
    assert "more than 6" in warned.text
    assert warned.remedy
    assert warned.counts


@pytest.mark.parametrize(
    "slow",
    [lambda i: False, lambda i: i < 80, lambda i: i % 5 == 0, lambda i: i % 2 == 0],
    ids=["never", "at first", "every fifth", "every other"],
)
def test_one_stretch_and_single_turns_are_no_second_speed(slow):
    assert two_speeds(turns(slow)) is None


def test_a_backend_that_is_slow_by_itself_is_no_second_speed():
    records = turns(lambda i: False)
    alone = [replace(r, samples_ns=tuple(int(1.45 * ns) for ns in r.samples_ns)) if r.backend == "jax" and r.launch % 2
             else r for r in records]  # fmt: skip
    assert two_speeds(alone) is None


def test_stretches_that_take_now_more_now_less_are_other_programs():
    rng, n = np.random.default_rng(0), 300
    added = np.zeros(n)
    for i, more in enumerate((0.2, 0.5, 0.35, 0.6)):
        added[60 * i + 30 : 60 * i + 60] = more
    logs = rng.normal(0, 0.02, n) + added
    assert speeds_of(logs, np.arange(n) % 6) is None
    assert speeds_of(rng.normal(0, 0.02, n) + math.log(SLOW) * (added > 0), np.arange(n) % 6) is not None


def test_few_turns_and_turns_that_failed_tell_nothing():
    records = turns(lambda i: i % 40 >= 25)
    assert two_speeds(records[: MIN_TURNS - 1]) is None
    assert two_speeds([replace(r, status=Status.WRONG) for r in records]) is None
    assert two_speeds([]) is None
