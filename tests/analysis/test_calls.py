"""Calls behind a time: what is counted, and who was not warm yet."""

from __future__ import annotations

import pytest

from rnnbench.analysis.diagnostics import calls_of
from rnnbench.analysis.stats import summarise
from rnnbench.model import Pass
from rnnbench.records.record import Status
from tests.report.fake import case, failure, record

CASE = case("imdb-50", Pass.TRAIN_STEP)


def turns(samples, launches=3, warmup=1):
    return [record(CASE, "numba", samples, launch=i, round=j, warmup=warmup) for i in range(launches) for j in range(2)]


def test_warm_ups_and_outliers_are_counted_and_nothing_else():
    failed = failure(CASE, "numba", Status.CRASHED, "killed", launch=9)
    calls = calls_of(summarise([*turns([9.0, 1.0, 1.1, 1.2, 1.0, 5.0]), failed]))
    assert (calls.warmups, calls.kept, calls.outliers) == (6, 30, 6)
    assert not calls.unsettled


def test_a_slow_first_call_is_told():
    calls = calls_of(summarise(turns([9.0, 1.5, 1.0, 1.0, 1.0])))
    assert calls.first.value == pytest.approx(1.5)
    assert calls.unsettled
    assert not calls_of(summarise(turns([9.0, 1.05, 1.0, 1.0, 1.0]))).unsettled
    assert not calls_of(summarise(turns([9.0, 1.5, 1.0, 1.0, 1.0], launches=1))).unsettled


def test_too_few_calls_say_nothing():
    calls = calls_of(summarise(turns([9.0, 5.0, 1.0])))
    assert (calls.kept, calls.outliers, calls.first) == (12, 0, None)
