"""Two processes that take turns, played by a side that makes its times up: who is slower, missing, wrong or dead."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from against import BROKEN, OK, SLOWER, code_of
from cases import Case, Work
from duel import Duel, Effort, unlike
from verdict import Verdict, findings

FAKE = (str(Path(__file__).with_name("fake_side.py")),)
EFFORT = Effort(launches=2, rounds=5)
CALM = {"ns": 10_000}


@pytest.fixture
def compare(tmp_path):
    """`compare(base, new)`: plans by case, such as "fake a"; the findings by case, and what was measured."""

    def run(base: dict, new: dict):
        trees = tmp_path / "base", tmp_path / "new"
        for tree, plan in zip(trees, (base, new), strict=True):
            tree.mkdir()
            (tree / "plan.json").write_text(json.dumps(plan))
        progress: list[float] = []
        duel = Duel(trees, tmp_path, threads=1, timeout=20, serve=FAKE)
        cases = [Case(*name.split(), Work) for name in base]
        measured = duel.measure(cases, EFFORT, 0, lambda what, done: progress.append(done))
        assert progress == sorted(progress)
        assert 0 <= progress[0] <= progress[-1] <= 1
        assert all(side.worker is None for side in duel.sides)
        return {f.case: f for f in findings(list(base), measured, 0.1)}, measured

    return run


def test_a_planted_slow_down_is_found_and_no_other(compare):
    base = {"fake a": CALM, "fake b": CALM, "fake c": CALM}
    found, measured = compare(base, base | {"fake b": {"ns": 14_000}, "fake c": {"ns": 7_000}})
    assert [f.verdict for f in found.values()] == [Verdict.SAME, Verdict.SLOWER, Verdict.FASTER]
    assert found["fake b"].ratio == pytest.approx(1.4, rel=0.05)
    assert found["fake b"].low < found["fake b"].ratio < found["fake b"].high
    assert [len(rounds) for rounds in measured.turns["fake a"]] == [EFFORT.rounds] * EFFORT.launches
    assert code_of(list(found.values())) == SLOWER


def test_what_base_does_not_have_is_missing_and_no_fault(compare):
    found, _ = compare({"fake a": CALM, "fake b": {"raises": "no such kernel"}}, {"fake a": CALM, "fake b": CALM})
    assert found["fake b"].verdict is Verdict.MISSING
    assert "no such kernel" in found["fake b"].reason
    assert code_of(list(found.values())) == OK


def test_what_new_cannot_do_is_a_fault(compare):
    found, _ = compare({"fake a": CALM, "fake b": CALM}, {"fake a": CALM, "fake b": {"raises": "no such kernel"}})
    assert found["fake b"].verdict is Verdict.BROKEN
    assert found["fake a"].verdict is Verdict.SAME
    assert code_of(list(found.values())) == BROKEN


@pytest.mark.parametrize("where", ["prepare", "turn"])
@pytest.mark.parametrize("who", ["base", "new"])
def test_a_side_that_dies_costs_its_case_and_no_other(compare, where, who):
    plan = {"fake a": CALM, "fake b": CALM, "fake c": CALM}
    deadly = plan | {"fake b": {**CALM, "dies_at": where}}
    found, measured = compare(*((deadly, plan) if who == "base" else (plan, deadly)))
    assert found["fake b"].verdict is Verdict.BROKEN
    assert f"{who}: {where}: the worker ended with exit code 7" in found["fake b"].reason
    assert found["fake a"].verdict is found["fake c"].verdict is Verdict.SAME
    assert [len(rounds) for rounds in measured.turns["fake c"]] == [EFFORT.rounds] * EFFORT.launches


def test_other_work_is_not_compared(compare):
    found, _ = compare({"fake a": {**CALM, "answer": {"loss": 0.5}}}, {"fake a": {**CALM, "answer": {"loss": 0.6}}})
    assert found["fake a"].verdict is Verdict.BROKEN
    assert "the norm of loss is 0.5 at base and 0.6 at new" in found["fake a"].reason


def test_nothing_compared_is_a_fault(compare):
    found, _ = compare({"fake a": {"raises": "no such kernel"}}, {"fake a": CALM})
    assert code_of(list(found.values())) == BROKEN


def test_answers_may_differ_by_rounding_only():
    assert unlike({"loss": 0.5, "W": 3.0}, {"loss": 0.500001, "W": 3.0}) is None
    assert "new answers loss" in (unlike({"loss": 0.5, "W": 3.0}, {"loss": 0.5}) or "")
    assert unlike({"loss": 0.5}, {"loss": float("nan")}) is not None


def test_no_round_begins_after_the_budget(tmp_path):
    (tmp_path / "plan.json").write_text(json.dumps({"fake a": CALM}))
    duel = Duel((tmp_path, tmp_path), tmp_path, threads=1, timeout=20, serve=FAKE)
    for seconds in (1.0, 1e-9):
        effort = Effort(launches=50, rounds=1_000_000, budget=seconds)
        measured = duel.measure([Case("fake", "a", Work)], effort, 0, lambda what, done: None)
        assert len(measured.turns.get("fake a", [])) <= 1
    assert not measured.turns
    (finding,) = findings(["fake a"], measured, 0.1)
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert code_of([finding]) == BROKEN  # nothing was compared
