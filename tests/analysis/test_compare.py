"""Verdicts on simulated runs whose truth is known, and at the edges; whether two sides are alike."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from rnnbench.analysis.comparable import Side, differences, hashes_of
from rnnbench.analysis.compare import (
    Gate,
    Ratio,
    Verdict,
    compare_sides,
    judge,
    launch_logs,
    launches_needed,
    ratio_of_runs,
)
from rnnbench.analysis.stats import Metric
from rnnbench.contract import Contract
from rnnbench.model import DType, Pass, Truncation
from rnnbench.records.record import Contention, Seeds, Status
from tests.report.fake import case, check, failure, record, trial

GATE = Gate(Metric.MEDIAN, 0.05)
CASE = case("imdb-50", Pass.TRAIN_STEP)
CONTRACT = Contract(2, "kept", False, {})


def test_as_many_launches_as_are_said_to_be_needed_decide():
    rng = np.random.default_rng(0)
    needed = launches_needed(ratio_of_runs(*rng.normal(0, 0.04, (2, 1000))), (1000, 1000), margin=0.05)
    assert 20 <= needed <= 25  # 1.96 * 0.04 * sqrt(2 / n) = log(1.05) / 2 at n = 21
    decided = {1.0: Verdict.SAME, 1.1: Verdict.SLOWER, 1 / 1.1: Verdict.FASTER}
    for truth, verdict in decided.items():
        found = [
            judge(with_q(ratio_of_runs(*rng.normal([[0], [math.log(truth)]], 0.04, (2, needed)))), 0.05)
            for _ in range(100)
        ]
        assert found.count(verdict) >= 90
    assert launches_needed(Ratio(1.0, 0.5, 2.0), (4, 4), 1e-3) is None
    assert launches_needed(Ratio(1.0, 0.0, math.inf), (4, 4), 0.05) is None


def with_q(ratio: Ratio) -> Ratio:
    return replace(ratio, q=ratio.p)


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [
        (Ratio(1.10, 1.06, 1.14, 0.001, 0.001), Verdict.SLOWER),
        (Ratio(1.10, 1.02, 1.19, 0.02, 0.04), Verdict.SLOWER),
        (Ratio(1.10, 1.02, 1.19, 0.02, 0.2), Verdict.INCONCLUSIVE),
        (Ratio(1.04, 1.01, 1.08, 0.01, 0.01), Verdict.INCONCLUSIVE),
        (Ratio(1.02, 1.01, 1.03, 0.001, 0.001), Verdict.SAME),
        (Ratio(1.00, 0.90, 1.11, 1.0, 1.0), Verdict.INCONCLUSIVE),
        (Ratio(0.90, 0.86, 0.94, 0.001, 0.001), Verdict.FASTER),
        (Ratio(1.50), Verdict.INCONCLUSIVE),
    ],
)
def test_the_verdict_on_a_ratio(ratio, verdict):
    assert judge(ratio, 0.05) is verdict


def launches(seconds, backend="numba", asked=CASE, **fields):
    """A check and a turn for each launch."""
    promised = fields.pop("contract", CONTRACT)
    given = {"run_id": "new", "machine_id": "m"} | fields
    turns = [record(asked, backend, [s], **{"launch": i} | given) for i, s in enumerate(seconds)]
    return [check(asked, backend, launch=r.launch, contract=promised, **given) for r in turns] + turns


def only(base, new, gate=GATE, machines=({}, {})):
    (finding,) = compare_sides(Side(base, machines[0]), Side(new, machines[1]), gate)
    return finding


def test_a_launch_is_the_median_of_its_turns_and_a_resumed_one_another():
    records = [record(CASE, "numba", [s], launch=0, round=j) for j, s in enumerate((1.0, 1.0, 9.0))]
    records += [record(CASE, "numba", [2.0], launch=0, part=1), record(CASE, "numba", [4.0], launch=0, run_id="b")]
    records.append(failure(CASE, "numba", Status.CRASHED, "killed", launch=7))
    assert np.exp(launch_logs(records, Metric.MEDIAN)) == pytest.approx([1.0, 2.0, 4.0])
    uneven = [record(CASE, "numba", [9.0, 1.0, 2.0, 6.0], warmup=1)]
    assert np.exp([launch_logs(uneven, m)[0] for m in Metric]) == pytest.approx([2.0, 1.0, 3.0])


def test_two_launches_a_side_give_a_ratio_and_no_verdict():
    finding = only(launches([1.0, 1.0]), launches([3.0, 3.0]))
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert finding.ratio.value == pytest.approx(3.0)
    assert math.isnan(finding.ratio.low)
    assert not finding.has_interval
    assert "an interval needs 3 a side" in finding.reason


def test_equal_launches_have_an_interval_of_no_width():
    assert only(launches([1.0] * 3), launches([1.0] * 3)).verdict is Verdict.SAME
    slower = only(launches([1.0] * 3), launches([1.2] * 3))
    assert slower.verdict is Verdict.SLOWER
    assert (slower.ratio.low, slower.ratio.high) == pytest.approx((1.2, 1.2))


def test_a_wide_interval_says_how_many_launches_it_takes():
    finding = only(launches([1.0, 1.2, 1.4]), launches([1.1, 1.3, 1.6]))
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert finding.needed > 50
    assert only(launches([1.0, 1.2, 1.4]), launches([1.1, 1.3, 1.6]), Gate(Metric.MEDIAN, 1.5)).needed is None


def test_the_more_cases_the_surer_each_has_to_be():
    base, new = launches([1.00, 1.04, 1.08]), launches([1.14, 1.18, 1.22])
    assert only(base, new).verdict is Verdict.SLOWER
    others = [f"other-{i}" for i in range(30)]
    base += [r for name in others for r in launches([1.0, 1.1, 1.2], name)]
    new += [r for name in others for r in launches([1.0, 1.1, 1.2], name)]
    first, *_ = compare_sides(Side(base), Side(new), GATE)
    assert first.verdict is Verdict.INCONCLUSIVE
    assert "as one of 31 cases it may be chance" in first.reason


def test_what_only_one_side_has_is_missing():
    base, new = launches([1.0] * 3), launches([1.0] * 3, "jax")
    found = {f.backend: f for f in compare_sides(Side(base), Side(new), GATE)}
    assert list(found) == ["jax", "numba"]
    assert {f.verdict for f in found.values()} == {Verdict.MISSING}
    assert (found["jax"].reason, found["jax"].no_baseline) == ("base has no such case", True)
    assert (found["numba"].reason, found["numba"].no_baseline) == ("new has no such case", False)


def test_what_failed_is_not_comparable_and_broken_where_it_is_new():
    right, wrong = launches([1.0] * 3), [failure(CASE, "numba", Status.WRONG, "error of loss is 1")]
    new = only(right, wrong)
    assert (new.verdict, new.broken, new.reason) == (Verdict.NOT_COMPARABLE, True, "new: wrong: error of loss is 1")
    base = only(wrong, right)
    assert (base.verdict, base.broken, base.no_baseline) == (Verdict.NOT_COMPARABLE, False, True)
    absent = only(right, [failure(CASE, "numba", Status.UNAVAILABLE, "numba not installed")])
    assert (absent.verdict, absent.broken) == (Verdict.MISSING, False)


def test_a_crash_in_one_launch_is_broken_beside_its_verdict():
    crash = failure(CASE, "numba", Status.CRASHED, "killed", launch=3, run_id="new", contract=CONTRACT, machine_id="m")
    finding = only(launches([1.0] * 3), [*launches([1.0] * 3), crash])
    assert (finding.verdict, finding.broken) == (Verdict.SAME, True)
    assert "crashed in 1 of 4 launches" in finding.reason


FACTS = {
    "cpu": {"model": "A", "features": ["avx2", "fma"], "mhz": 2000},
    "python": "3.11",
    "rnnbench": "1",
    "libraries": {"numba": "1", "torch": "1"},
    "workers": {"numba": {"libraries": {"numba": "1"}}, "torch": {"libraries": {"torch": "1"}}},
}


def moved(**facts):
    return {**FACTS, **facts}


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        (moved(cpu={"model": "B", "features": ["avx2", "fma"]}), ["cpu model A / B"]),
        (moved(cpu={"model": "A", "features": ["avx2", "avx512f", "fma"]}), ["cpu features - / avx512f"]),
        (moved(python="3.12"), ["python 3.11 / 3.12"]),
        (moved(workers={"numba": {"libraries": {"numba": "2"}}}), ["numba 1 / 2"]),
        (moved(workers={}, libraries={"numba": "1"}), []),
        (moved(workers={}, libraries={"numba": "3", "torch": "1"}), ["numba 1 / 3", "torch none / 1"]),
        (moved(workers={**FACTS["workers"], "torch": {"libraries": {"torch": "2"}}}), []),
        (moved(rnnbench="2", load=[9], git={"commit": "b"}), []),
        ({}, ["machine m / other"]),
    ],
)
def test_an_unlike_machine_is_named_by_what_matters(facts, named):
    base, new = Side(launches([1.0]), FACTS), Side(launches([1.0], machine_id="other"), facts)
    assert differences("numba", base, new) == named
    same = Side(launches([1.0]), facts)
    assert differences("numba", base, same) == []  # one id: nobody looks further


def test_parts_with_equal_hashes_are_not_looked_at_and_older_files_know_fewer_facts():
    hashed = {**FACTS, "hashes": hashes_of(FACTS)}
    more = moved(kernel={"aslr": "off"}, libc="glibc 2.36")
    assert found_between(FACTS, more) == []  # the older file does not tell
    more["hashes"] = hashes_of(more)
    assert found_between(hashed, more) == ["libc none / glibc 2.36", "kernel aslr none / off"]
    unnamed = {**hashed, "hashes": {**hashed["hashes"], "system": "elsewhere"}}
    assert found_between(hashed, unnamed) == [f"system {hashed['hashes']['system']} / elsewhere"]
    libraries = {**hashed, "hashes": {**hashed["hashes"], "software": "others"}}
    assert found_between(hashed, libraries) == []  # of libraries that this backend does not use


def test_another_blas_is_named():
    def with_pools(*pools):
        return moved(workers={"numba": {"libraries": {"numba": "1"}, "threadpools": list(pools)}})

    blas = {"internal_api": "openblas", "version": "0.3.30", "architecture": "Zen", "num_threads": 2}
    assert found_between(with_pools(blas, blas), with_pools(blas)) == []
    assert found_between(with_pools(blas), with_pools({**blas, "version": "0.3.31"})) == [
        "openblas 0.3.30 Zen / 0.3.31 Zen"
    ]


def found_between(base, new):
    return differences("numba", Side(launches([1.0]), base), Side(launches([1.0], machine_id="other"), new))


@pytest.mark.parametrize(
    ("new", "named"),
    [
        (launches([1.0] * 3, contract=replace(CONTRACT, threads=1)), "threads 2 / 1"),
        (launches([1.0] * 3, contract=replace(CONTRACT, subnormals="flushed", tf32=True)),
         "subnormals kept / flushed; TF32 False / True"),
        (launches([1.0] * 3, asked=replace(CASE, B=64, model=replace(CASE.model, H=8))), "model H 32 / 8; B 32 / 64"),
        (launches([1.0] * 3, asked=replace(CASE, dtype=DType.FLOAT64)), "dtype float32 / float64"),
        (launches([1.0] * 3, asked=replace(CASE, truncation=Truncation(5, 5))),
         "truncation window none / 5; truncation stride none / 5"),
        (launches([1.0] * 3, seeds=Seeds(1, 0, 0)), "seed of params 0 / 1"),
    ],
)  # fmt: skip
def test_unlike_work_is_not_comparable_and_named(new, named):
    finding = only(launches([1.0] * 3), new)
    assert finding.verdict is Verdict.NOT_COMPARABLE
    assert finding.reason == f"unlike: {named}"
    assert finding.ratio is None


def by(threads, tried=(1, 2), seconds=1.0):
    """Three launches by so many threads, of which the better was found."""
    contract = replace(CONTRACT, threads=threads)
    return launches([seconds] * 3, contract=contract, threads=threads, tried=tried)


def test_sides_that_found_different_threads_the_better_are_compared_and_that_is_told():
    """A commit that spoils the work of two threads cannot hide behind one."""
    finding = only(by(2), by(1, seconds=1.2))
    assert finding.verdict is Verdict.SLOWER
    assert finding.reason == "threads 2 / 1, the better in each run"
    assert only(by(2), by(2)).reason is None


@pytest.mark.parametrize(
    ("base", "new"), [(by(2, ()), by(1)), (by(2), by(1, ())), (by(2, ()), by(1, ())), (by(2), by(1, (1, 4)))]
)
def test_threads_that_were_asked_for_are_held_against_no_others(base, new):
    finding = only(base, new)
    assert (finding.verdict, finding.reason) == (Verdict.NOT_COMPARABLE, "unlike: threads 2 / 1")


@pytest.mark.parametrize(("busy", "verdict"), [(0.5, Verdict.INCONCLUSIVE), (0.01, Verdict.SLOWER)])
def test_threads_that_a_trial_beside_others_found_make_no_difference(busy, verdict):
    """The same code an hour later: one core was in use, so two threads were the better for a moment."""
    seen = Contention(0.01, around_seconds=0.2, around_share=busy)
    turns = [
        trial(CASE, "numba", tried=(1, 2), pair=i, threads=n, samples_ns=(round(1e9 * seconds),), contention=seen,
              machine_id="m")
        for i in range(3) for n, seconds in ((1, 1.8), (2, 1.6))
    ]  # fmt: skip
    assert not any(t.disturbed for t in turns)
    finding = only(by(1), by(2, seconds=1.6) + turns)
    assert finding.verdict is verdict
    assert ("measure again when they rest" in finding.reason) == (verdict is Verdict.INCONCLUSIVE)
    assert only(by(2), by(2, seconds=1.6) + turns).verdict is Verdict.SLOWER


def test_threads_that_were_found_are_held_against_the_same_that_were_asked_for():
    assert only(by(2, ()), by(2)).verdict is Verdict.SAME


def test_a_dtype_that_base_has_is_held_against_its_own():
    doubled = replace(CASE, dtype=DType.FLOAT64)
    both = launches([1.0] * 3) + launches([2.0] * 3, asked=doubled)
    assert [f.verdict for f in compare_sides(Side(both), Side(both), GATE)] == [Verdict.SAME] * 2


def test_a_margin_must_be_above_zero():
    with pytest.raises(ValueError, match="the margin is 0; it must be a number above 0"):
        Gate(Metric.MEDIAN, 0.0)
    assert str(Gate(Metric.MIN, 0.075)) == "min:7.5%"


@pytest.mark.parametrize("scale", [2.0, 0.5])
def test_a_difference_from_a_run_that_others_disturbed_is_not_told(scale):
    """Five launches a side; those of `new` count although they are disturbed, as there are no others."""

    def side(run_id, factor, disturbed=0.0):
        made = [
            record(CASE, "numba", [1e-3 * factor * x], launch=n, round=0)
            for n, x in enumerate((1, 1.01, 1.02, 1.03, 1.04))
        ]
        return Side([replace(r, run_id=run_id, disturbed=disturbed) for r in made])

    told = Verdict.SLOWER if scale > 1 else Verdict.FASTER
    assert compare_sides(side("a", 1), side("b", scale), GATE)[0].verdict is told
    (found,) = compare_sides(side("a", 1), side("b", scale, 0.4), GATE)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.reason == "other programs disturbed turns of new that count; measure again when they rest"
    (both,) = compare_sides(side("a", 1, 0.2), side("b", scale, 0.4), GATE)
    assert "turns of base and new" in both.reason
    (alike,) = compare_sides(side("a", 1), side("b", 1, 0.4), GATE)
    assert alike.verdict is Verdict.SAME
