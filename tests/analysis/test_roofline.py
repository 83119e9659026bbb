"""Ceilings in a machine's file, and shares of them in records."""

from __future__ import annotations

import json
import math

import msgspec
import pytest

from rnnbench.analysis.roofline import Peak, Rates, peak_of, shares_frame, with_work
from rnnbench.analysis.stats import summaries
from rnnbench.model import DType, Pass
from rnnbench.records import store
from rnnbench.work import work_of
from tests.report.fake import case, record

PEAK = Peak("by hand", {DType.FLOAT32: (Rates(1, 1e10, 8e9, 9e9), Rates(2, 2e10, 1.2e10, 1e10))})


def test_a_peak_survives_its_file_and_a_damaged_one_is_none():
    machine = json.loads(json.dumps({"peak": msgspec.to_builtins(PEAK)}))
    assert peak_of(machine) == PEAK
    assert peak_of({}) is None
    assert peak_of({"peak": {"method": "by hand"}}) is None
    assert PEAK.roof(DType.FLOAT32).threads == 2
    assert PEAK.roof(DType.FLOAT64) is None


def test_the_roof_is_the_lower_of_memory_and_multiply_adds():
    roof = PEAK.roof(DType.FLOAT32)
    assert roof.bytes == 1.2e10
    assert roof.at(0.5) == 6e9
    assert roof.at(1000) == 2e10


def test_the_best_of_two_measurements_has_the_higher_of_each():
    other = Peak("by hand", {DType.FLOAT32: (Rates(1, 9e9, 9e9, 1e9), Rates(2, 3e10, 1e9, 1e9))})
    best = Peak("by hand", {DType.FLOAT32: (Rates(1, 1e10, 9e9, 9e9), Rates(2, 3e10, 1.2e10, 1e10))})
    assert PEAK.best_of(other) == other.best_of(PEAK) == best


def test_every_record_gets_its_work_and_a_timed_one_its_share():
    asked = case("imdb-50", Pass.TRAIN_STEP)
    seconds = work_of(asked).flops / 5e9
    timed = with_work(record(asked, "numba", [9.0, seconds, seconds, seconds], warmup=1), PEAK)
    assert timed.flops == work_of(asked).flops
    assert timed.least_bytes == work_of(asked).bytes
    assert timed.share_of_peak == pytest.approx(0.25, rel=1e-6)
    assert with_work(record(asked, "numba"), PEAK).share_of_peak is None
    assert with_work(record(asked, "numba"), PEAK).flops == work_of(asked).flops
    unknown = with_work(record(case(dtype=DType.FLOAT64), "numba", [1.0]), PEAK)
    assert unknown.flops
    assert unknown.share_of_peak is None
    assert with_work(record(asked, "numba", [1.0]), None).share_of_peak is None


def test_shares_by_the_work_in_a_record():
    asked = case("imdb-50", Pass.TRAIN_STEP)
    stored = store.decode_record(store.encode(with_work(record(asked, "numba", [1.0]), PEAK)))
    assert stored.flops == work_of(asked).flops
    (row,) = shares_frame(summaries([stored]), PEAK).to_dict("records")
    assert row["flops"] == work_of(asked).flops
    assert row["share_of_peak"] == pytest.approx(work_of(asked).flops / 2e10)
    assert math.isnan(shares_frame(summaries([stored]), None)["share_of_peak"][0])
