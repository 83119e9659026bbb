"""Intervals and ratios at the edges; what they cover is simulated in tests/validation/test_claims.py."""

from __future__ import annotations

import math

import pytest

from rnnbench.analysis.ranking import choose_reference, rankings, speedups
from rnnbench.analysis.stats import Basis, interval_of, ratio_of, summaries, times_frame, turn_seconds
from rnnbench.model import Pass
from rnnbench.records.record import Status
from tests.report.fake import MIXED, case, failure, make, memory, record

CASE = case("imdb-50", Pass.TRAIN_STEP)


def test_an_interval_over_one_launch_is_marked():
    rounds = {(0, 0, j): 1.0 + 0.01 * j for j in range(4)}
    assert interval_of(rounds).basis is Basis.ROUNDS
    assert not interval_of(rounds).above_one


def test_two_values_give_no_interval():
    for values in ({(0, 0, 0): 2.0}, {(0, 0, 0): 2.0, (0, 0, 1): 2.0}, {(0, 0, 0): 2.0, (0, 1, 0): 2.0}):
        interval = interval_of(values)
        assert interval.value == pytest.approx(2.0)
        assert interval.basis is Basis.NONE
        assert math.isnan(interval.low)
    assert interval_of({}) is None


def test_a_slow_round_does_not_move_its_launch():
    calm = {(0, i, j): 1.0 for i in range(3) for j in range(5)}
    assert interval_of(calm | {(0, 1, 2): 50.0}).value == pytest.approx(1.0)


def test_a_launch_on_a_busy_machine_does_not_move_the_time():
    """As seen: 50 steps that each waited for a time slice. The mean was 5.4 ms."""
    launches = {(0, 0, 0): 0.6e-3, (0, 1, 0): 0.61e-3, (0, 2, 0): 424e-3}
    assert interval_of(launches).value == pytest.approx(0.61e-3)
    assert interval_of(launches).noisy
    quiet = dict.fromkeys(launches, 0.2e-3)
    assert ratio_of(launches, quiet).value == pytest.approx(3.05)


def test_the_drift_of_a_machine_falls_out_of_a_ratio():
    drift = {(0, i, j): 1.0 + i + 0.5 * j for i in range(3) for j in range(4)}
    twice = {key: 2 * value for key, value in drift.items()}
    ratio = ratio_of(twice, drift)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((2, 2, 2))
    assert ratio.above_one
    assert ratio_of({(0, 0, 0): 1.0}, {(1, 0, 0): 1.0}) is None


def test_only_shared_rounds_enter_a_ratio():
    a = {(0, i, j): 3.0 for i in range(3) for j in range(4)}
    b = {key: 1.0 for key in a if key[2] < 2} | {(1, 9, 9): 100.0}
    assert ratio_of(a, b).value == pytest.approx(3.0)


def test_warmups_are_left_out_of_a_turn():
    assert turn_seconds(record(CASE, "numba", [9.0, 1.0, 2.0, 3.0], warmup=1)) == pytest.approx(2.0)
    assert turn_seconds(record(CASE, "numba", [9.0], warmup=1)) is None


def test_one_wrong_round_takes_a_backend_out_of_every_ranking():
    records = [record(CASE, "numba", [1.0], round=r) for r in range(3)]
    records += [record(CASE, "jax", [2.0], round=r) for r in range(3)]
    records += [failure(CASE, "numba", Status.WRONG, "error of loss is 1")]
    (answer,) = rankings(summaries(records))
    assert answer.fastest == "jax"
    assert answer.unranked == {"numba": "wrong"}


def test_what_was_measured_before_a_crash_stays():
    records = [record(CASE, "numba", [1.0], launch=n, round=r) for n in range(3) for r in range(4)]
    records.append(failure(CASE, "numba", Status.CRASHED, "killed", launch=2, round=3))
    (summary,) = summaries(records)
    assert summary.status is Status.OK
    assert summary.time.value == pytest.approx(1.0)
    assert "crashed in 1 of 3 launches: killed" in summary.reason


def test_a_believable_run():
    fake = make(failures=MIXED)
    table = times_frame(summaries(fake.records))
    assert len(table) == 3 * 4 * 8
    assert set(table.status) == {"ok", "unavailable", "timeout", "crashed", "wrong"}
    assert (table[table.status == "ok"].seconds > 0).all()
    assert table[table.status == "unavailable"].seconds.isna().all()
    found = {a.key: a for a in rankings(summaries(fake.records))}
    assert all(a.fastest == "numba" and a.sure for a in found.values())
    assert choose_reference(summaries(fake.records)) == "torch"
    over = speedups(summaries(fake.records), "torch")
    assert (over[over.backend == "torch"].speedup.dropna() == 1).all()
    assert (over[over.backend == "numba"].speedup > 5).all()
    with pytest.raises(ValueError, match="is not in this run"):
        choose_reference(summaries(fake.records), "mxnet")


def test_no_records():
    assert times_frame([]).empty
    assert rankings([]) == []
    assert choose_reference([]) is None


def test_a_process_for_memory_is_no_launch():
    timed = [record(CASE, "a", [1.0], launch=i, round=r) for i in range(3) for r in range(2)]
    crashed = failure(CASE, "a", Status.CRASHED, "gone", launch=3)
    process = memory(CASE, "a")
    (found,) = summaries([*timed, crashed, process])
    assert found.reason == "crashed in 1 of 4 launches: gone"
    (found,) = summaries([*timed, memory(CASE, "a", status=Status.TIMEOUT, reason="its memory: slow")])
    assert (found.status, found.reason) == (Status.OK, "timeout, its memory: slow")
