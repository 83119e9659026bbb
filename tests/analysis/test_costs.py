"""Costs: what a compiler took stands where it is looked for, whichever pass it happened in."""

from __future__ import annotations

import pytest

from rnnbench.analysis.costs import break_even, main_cases, spent
from rnnbench.analysis.stats import summaries
from rnnbench.model import Pass
from rnnbench.records.record import Costs
from tests.report.fake import case, check, record


def records(backend, first_calls, steady):
    made = []
    for pass_, first in zip((Pass.FORWARD, Pass.GRADIENT, Pass.TRAIN_STEP), first_calls, strict=True):
        asked = case("imdb-50", pass_)
        cost = Costs(import_ns=10**9, prepare_ns=0, first_call_ns=int(first * 1e9))
        made.append(check(asked, backend, costs=cost))
        made += [record(asked, backend, [steady], round=r) for r in range(3)]
    return made


def test_compiling_in_an_earlier_pass_is_not_hidden():
    (group,) = main_cases(summaries(records("numba", (30.0, 1.0, 0.5), 0.001))).values()
    assert spent(group[0]).first_cold == pytest.approx(31.5)
    assert spent(group[0]).start == pytest.approx(32.5)


def test_a_compiler_pays_after_the_steps_that_win_it_back():
    found = main_cases(summaries(records("slow", (0, 0, 0.1), 0.1) + records("fast", (9.03, 0, 1.1), 0.05)))
    (group,) = found.values()
    slow, fast = (spent(s) for s in group)
    even = break_even(fast, slow)
    assert fast.total(even.since) < slow.total(even.since)
    assert fast.total(even.since - 1) >= slow.total(even.since - 1)


def test_compiling_while_preparing_is_not_hidden_by_the_launches_that_found_it_on_disk():
    asked = case("imdb-50", Pass.TRAIN_STEP)
    launches = [
        check(asked, "numba", launch=i, costs=Costs(10**9, prepare, 10**6, cache))
        for i, (prepare, cache) in enumerate([(11 * 10**9, "cold"), (10**9, "warm"), (10**9, "warm")])
    ]
    timed = [record(asked, "numba", [0.001], launch=i, round=r) for i in range(3) for r in range(2)]
    (found,) = (spent(s) for s in summaries([*launches, *timed]))
    assert (found.prepared_cold, found.prepared_warm, found.prepared) == (11.0, 1.0, 11.0)
    assert found.start == pytest.approx(12.001)
