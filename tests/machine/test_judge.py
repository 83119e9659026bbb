"""Which turns others disturbed, by what was counted; and the watch over others around short turns."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace

import pytest

from rnnbench.machine import contention
from rnnbench.machine.interference import CpuTimes, read_cpu_times
from rnnbench.records.record import Contention


def turn_of(seconds=0.1, delay=0.0, others=None, around=None, stolen=None, probe=(100, 100), throttled=None):
    """`delay`, `throttled` and shares as parts of the turn; `around` is over 0.2 s."""
    delay_ns, throttled_ns = (None if x is None else round(x * seconds * 1e9) for x in (delay, throttled))
    return Contention(
        seconds, delay_ns, 0, others, stolen, probe, None if around is None else 0.2, around, throttled_ns=throttled_ns,
    )  # fmt: skip


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(contention, "allowed_cores", lambda: [0, 1])
    monkeypatch.setattr(contention, "TICK_NS", 10_000_000)


@pytest.mark.parametrize(
    ("turn", "taken"),
    [
        (turn_of(delay=0.9, others=0.5), 0.8),  # of one core, less two ticks
        (turn_of(delay=0.4, others=0.5), 0.4),
        (turn_of(delay=0.003, others=0.5), 0),  # it stepped aside
        (turn_of(delay=0.9, others=0.0), 0),  # its own threads wait for one another
        (turn_of(delay=0.9, others=0.1), 0),  # within what ticks are wrong by
        (turn_of(delay=0.11, others=0.5), 0.11),
        (turn_of(delay=0.1, others=0.5), 0),  # the limit itself
        (turn_of(seconds=0.003, delay=0.9, around=0.5), 0.9),
        (turn_of(seconds=0.003, delay=0.9, around=0.05), 0),
        (turn_of(delay=0.9, others=0.5, around=0.2), 0.3),  # the lesser of both
        (turn_of(seconds=0.003, delay=0.9), 0),  # nothing is known of others
        (turn_of(delay=None, others=0.5), 0),  # nor here of waits
        (turn_of(delay=None, stolen=0.3), 0.4),
        (turn_of(delay=0.3, others=0.5, stolen=0.2), 0.5),
        (turn_of(delay=0.9, others=0.0, throttled=0.4), 0.4),
        (turn_of(delay=None, throttled=0.1), 0),
        (turn_of(delay=None, throttled=1.5), 1.5),  # of two cores
        (turn_of(probe=(190, 300)), 0),
        (turn_of(probe=(210, 300)), 1.1),
        (turn_of(probe=()), 0),
    ],
)
def test_what_others_took(turn, taken, two_cores):
    assert contention.disturbed_by(turn, 2, 0.0, 100) == pytest.approx(taken)


@pytest.mark.parametrize(
    ("starts", "periods", "calls", "taken"),
    [
        (5, 0, 20, 0),
        (6, 0, 20, 0.4),
        (3, 2, 20, 0),
        (3, 3, 20, 0.4),
        (5, None, 20, 0),
        (1, 0, 2, 0.4),
        (None, 0, 9, 0.4),
    ],
)
def test_what_hits_few_of_many_calls_does_not_move_their_median(starts, periods, calls, taken, two_cores):
    turn = replace(turn_of(delay=0.4, others=0.5), starts=starts, throttled_periods=periods)
    assert contention.disturbed_by(turn, 2, calls=calls) == pytest.approx(taken)
    assert contention.disturbed_by(replace(turn, stolen_share=0.3), 2, calls=calls) == pytest.approx(taken + 0.4)
    judge = contention.Judge()
    assert judge("a", turn, 2, calls) == taken


def test_what_is_usual_in_quiet_is_not_held_against_others(two_cores):
    judge, crowded = contention.Judge(), turn_of(delay=0.45, others=0.5)
    assert judge("jax", crowded, 2) == 0.45  # nothing is known of it in quiet
    for delay in (0.3, 0.4, 0.5):
        assert judge("jax", turn_of(delay=delay, others=0.02, around=0.0), 2) == 0
    assert judge("jax", turn_of(delay=0.9, others=0.5, around=0.0), 2) == 0  # of which one says that it was not quiet
    assert judge("jax", crowded, 2) == 0
    assert judge("jax", turn_of(delay=0.8, others=0.5), 2) == pytest.approx(0.4)
    assert judge("torch", crowded, 2) == 0.45


def test_a_slow_core_is_held_against_the_best_so_far(two_cores):
    judge = contention.Judge()
    assert judge("a", turn_of(probe=(300, 310)), 2) == 0
    assert judge("a", turn_of(probe=(100, 310)), 2) == 0
    assert judge("a", turn_of(probe=(300, 310)), 2) == 2.0


def looks(monkeypatch, *moments):
    """Of (seconds, seconds of others) on two cores."""
    read = iter(
        [CpuTimes(at, busy=others + 0.3 * at, stolen=0.0, total=2 * at, own=0.3 * at) for at, others in moments]
    )
    monkeypatch.setattr(contention, "read_cpu_times", lambda workers: next(read))
    watch = contention.OthersWatch(list)
    for _ in moments:
        watch.look()
    return watch


def test_others_are_watched_over_a_turn_and_long_enough_before_it(monkeypatch, two_cores):
    assert looks(monkeypatch, (1.0, 0.0)).around is None
    assert looks(monkeypatch, (1.0, 0.0), (1.04, 0.0)).around is None
    watch = looks(monkeypatch, (1.0, 0.0), (1.1, 0.1), (1.2, 0.1), (1.26, 0.16), (1.35, 0.25))
    assert watch.around == pytest.approx((0.25, 0.3))  # from 1.1 on
    assert watch.busy == pytest.approx(0.6 - 0.08)
    assert watch.add_to(turn_of()) == replace(turn_of(), around_seconds=0.25, around_share=0.3)
    assert looks(monkeypatch, (1.0, 0.0), (1.3, 0.3), (2.0, 0.3), (2.1, 0.3)).around == pytest.approx((0.1, 0.0))


def test_nothing_is_known_of_others_where_the_system_does_not_count(monkeypatch):
    monkeypatch.setattr(contention, "read_cpu_times", lambda workers: None)
    watch = contention.OthersWatch(list)
    watch.begin()
    watch.look()
    assert watch.around is watch.busy is None
    assert watch.add_to(turn_of()) == turn_of()


def test_the_time_of_workers_is_our_own():
    worker = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.2)  # it starts
        first = read_cpu_times([worker.pid]), read_cpu_times()
        time.sleep(0.3)
        last = read_cpu_times([worker.pid]), read_cpu_times()
        ran = (last[0].own - first[0].own) - (last[1].own - first[1].own)
        assert 0.02 < ran < 0.5
    finally:
        worker.kill()
        worker.wait()
    assert read_cpu_times([worker.pid]).own >= 0  # one that is gone
