"""Each warning appears where its number is over the threshold, names both, and gives a remedy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rnnbench.analysis.warnings import Severity, warnings_of
from rnnbench.model import USUAL_PASSES, Pass
from rnnbench.records.record import Mode
from tests.report.fake import BACKENDS, case, check, contract, make, record

QUIET = {
    "machine_id": "m",
    "cpu": {"allowed": 2, "governor": "performance", "turbo": "off", "min_mhz": 800, "max_mhz": 3000},
    "limits": {"cpus": "unlimited"},
    "clock": {"step_ns": 30, "read_ns": 60},
    "start": {"load_per_core": 0.1, "others_share": 0.01, "stolen_share": 0.0},
    "end": {"load_per_core": 1.0, "others_share": 0.02, "stolen_share": 0.001},
}


def steady(launches=3, rounds=2, calls=5, seconds=1e-3, **fields):
    common = {"machine_id": "m", **fields}
    places = [(launch, round_) for launch in range(launches) for round_ in range(rounds)]
    return [record(case(), "numba", [seconds] * calls, launch=n, round=r, **common) for n, r in places]


CHECKED = check(case(), "numba", contract=contract("numba"), machine_id="m")


def found(records=None, **facts):
    machine = {key: {**value, **facts[key]} if isinstance(facts.get(key), dict) else facts.get(key, value)
               for key, value in QUIET.items()}  # fmt: skip
    return {w.kind: w for w in warnings_of([CHECKED, *(steady() if records is None else records)], machine)}


def test_a_quiet_machine_and_a_steady_run_have_none():
    assert found() == {}


@pytest.mark.parametrize(
    ("facts", "kind", "severity", "words"),
    [
        ({"end": {"others_share": 0.12}}, "others", Severity.WARNING, ("12.0 %", "5.0 %", "during the run")),
        ({"end": {"others_share": 0.4}}, "others", Severity.SEVERE, ("40.0 %",)),
        ({"end": {"others_share": None}, "start": {"others_share": 0.3}}, "others", Severity.SEVERE, ("just before",)),
        ({"end": {"stolen_share": 0.03}}, "stolen", Severity.WARNING, ("3.0 %", "1.0 %")),
        ({"start": {"load_per_core": 0.9}}, "load", Severity.WARNING, ("0.90 per core at the start", "0.25")),
        ({"end": {"load_per_core": 3.0}}, "load", Severity.WARNING, ("3.00 per core at the end", "1.25")),
        ({"start": None, "load": [1.0, 1.0, 1.0]}, "load", Severity.WARNING, ("0.50 per core at the start",)),
        ({"cpu": {"governor": "powersave"}}, "governor", Severity.WARNING, ("powersave", "800 to 3000 MHz")),
        ({"cpu": {"turbo": "on"}}, "turbo", Severity.WARNING, ("heat",)),
        ({"cpu": {"governor": None}}, "unknown", Severity.NOTE, ("governor is unknown",)),
        ({"cpu": {"turbo": None}}, "unknown", Severity.NOTE, ("above its nominal",)),
        ({"end": None}, "unknown", Severity.NOTE, ("was not recorded",)),
        ({"cpu": {"allowed": 1}}, "crowded", Severity.SEVERE, ("2 threads", "1 cores")),
        ({"limits": {"cpus": 1.5}}, "crowded", Severity.SEVERE, ("2 threads", "1.5 processors")),
        ({"clock": {"step_ns": 15_000}}, "clock", Severity.WARNING, ("1,000,000 ns", "100 times", "15000 ns")),
        ({"machine_id": "other"}, "machines", Severity.SEVERE, ("2 fingerprints", "m, other")),
    ],
)
def test_facts_of_the_machine(facts, kind, severity, words):
    machine = {**QUIET, **{k: {**QUIET[k], **v} if isinstance(v, dict) else v for k, v in facts.items()}}
    warned = next(w for w in warnings_of([CHECKED, *steady()], machine) if w.kind == kind)
    assert (warned.kind, warned.severity) == (kind, severity)
    assert all(word in warned.text for word in words), warned.text
    assert warned.remedy
    assert warned.counts == (severity is not Severity.NOTE)


def test_single_steps_have_a_remedy_of_their_own():
    """More steps or the epoch pass would be no single steps."""
    records = [replace(r, case=replace(r.case, pass_=Pass.STEP)) for r in steady()]
    (warned,) = warnings_of(records, {**QUIET, "clock": {"step_ns": 15_000}})
    assert warned.kind == "step_clock"
    assert warned.text.startswith(f"{records[0].case.key} {records[0].backend}: a step takes")
    assert "epoch" not in warned.remedy


@pytest.mark.parametrize(
    ("records", "kind", "words"),
    [
        (steady(launches=2), "launches", ("2 launches", "fewer than 3")),
        (steady(rounds=1, calls=1), "calls", ("3 calls", "fewer than 6")),
        (steady(mode=Mode.QUICK), "quick", ("6 of 6 records",)),
        ([*steady()[1:], replace(steady()[0], disturbances=("suspended for 3 s",))], "disturbed",
         ("suspended for 3 s", "launch 1, round 1", "imdb-50 train_step")),
        ([*steady()[1:], replace(steady()[0], machine_id="n")], "machines", ("m, n",)),
    ],
)  # fmt: skip
def test_facts_of_the_records(records, kind, words):
    (warned,) = warnings_of(records, QUIET)
    assert warned.kind == kind
    assert all(word in warned.text for word in words), warned.text
    assert warned.remedy


def test_calls_that_were_not_warm_two_modes_and_drift_are_told():
    slow_first = [replace(r, samples_ns=(2_000_000, *r.samples_ns)) for r in steady(launches=5)]
    assert "2.00 times" in found(slow_first)["unsettled"].text
    two = [replace(r, samples_ns=(1_000_000, 1_300_000) * 12) for r in steady()]
    assert "1.30x apart" in found(two)["bimodal"].text
    moving = [
        replace(r, samples_ns=tuple(int(ns * (1 + 0.02 * i)) for ns in r.samples_ns))
        for i, r in enumerate(steady(launches=10))
    ]
    assert "+" in found(moving)["drift"].text


def test_fifty_answers_with_one_warning_are_one_line():
    fake = make(("parity", "imdb-50"), BACKENDS, USUAL_PASSES, launches=2)
    several = [w for w in warnings_of(fake.records, {}) if w.kind == "launches"]
    assert len(several) == 1
    assert len(several[0].where) == 64
    assert "64 answers in all" in several[0].text


def test_the_most_severe_come_first():
    facts = {**QUIET, "end": {**QUIET["end"], "others_share": 0.9}, "cpu": {**QUIET["cpu"], "governor": None}}
    listed = warnings_of(steady(launches=1), facts)
    assert [w.severity for w in listed] == sorted((w.severity for w in listed), key=list(Severity).index)
    assert [w.kind for w in listed] == ["others", "launches", "unknown"]


def test_nothing_is_made_of_nothing_nor_of_facts_of_another_form():
    assert [w.kind for w in warnings_of([], {})] == ["unknown"]
    odd = {"cpu": None, "limits": 3, "clock": [1], "start": "now", "end": None, "load": "high"}
    assert [w.kind for w in warnings_of(steady(), odd)] == ["unknown"]
