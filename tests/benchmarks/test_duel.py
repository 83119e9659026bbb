"""Two processes that take turns, played by a side that makes its times up: which case is slower, missing or broken."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from against import BROKEN, OK, SLOWER, alarms, code_of, readable, show
from cases import Case, Work
from duel import OVER, Duel, Effort, Finding, Measured, confirmed, findings, placed, unlike
from rnnbench.analysis.compare import Verdict
from rnnbench.analysis.stats import Basis, Interval

FAKE = (str(Path(__file__).with_name("fake_side.py")),)
EFFORT = Effort(launches=5, rounds=3)
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
        assert all(side.worker is None for side in duel.sides.values())
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
    assert found["fake b"].verdict is Verdict.NOT_COMPARABLE
    assert found["fake a"].verdict is Verdict.SAME
    assert code_of(list(found.values())) == BROKEN


@pytest.mark.parametrize("where", ["prepare", "turn"])
@pytest.mark.parametrize("who", ["base", "new"])
def test_a_side_that_dies_costs_its_case_and_no_other(compare, where, who):
    plan = {"fake a": CALM, "fake b": CALM, "fake c": CALM}
    deadly = plan | {"fake b": {**CALM, "dies_at": where}}
    found, measured = compare(*((deadly, plan) if who == "base" else (plan, deadly)))
    assert found["fake b"].verdict is Verdict.NOT_COMPARABLE
    assert f"{who}: {where}: the worker ended with exit code 7" in found["fake b"].reason
    assert found["fake a"].verdict is found["fake c"].verdict is Verdict.SAME
    assert [len(rounds) for rounds in measured.turns["fake c"]] == [EFFORT.rounds] * EFFORT.launches


def test_other_work_is_not_compared(compare):
    found, _ = compare({"fake a": {**CALM, "answer": {"loss": 0.5}}}, {"fake a": {**CALM, "answer": {"loss": 0.6}}})
    assert found["fake a"].verdict is Verdict.NOT_COMPARABLE
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


def simulated(rng, truth: float, *, process=0.02, round_=0.08, bursts=0.1) -> Measured:
    """Three launches of six rounds on a noisy machine: a speed for each process, a spread for each round, bursts."""
    logs = np.log(truth) + rng.normal(0, process, (3, 1)) + rng.normal(0, round_, (3, 6))
    busy = np.where(rng.random((2, 3, 6)) < bursts, 1.5, 1.0)
    base, new = 1e6 * busy[0], 1e6 * np.exp(logs) * busy[1]
    return Measured(
        {"a": [[([int(b)], [int(n)]) for b, n in zip(*both, strict=True)] for both in zip(base, new, strict=True)]}
    )


def share_called(truth: float, verdict: Verdict, **noise: float) -> float:
    rng = np.random.default_rng(0)
    return float(
        np.mean([findings(["a"], simulated(rng, truth, **noise), 0.1)[0].verdict is verdict for _ in range(200)])
    )


def test_what_is_unchanged_is_not_called_slower():
    assert share_called(1.0, Verdict.SLOWER) <= 0.01
    assert share_called(1.1, Verdict.SLOWER) <= 0.05  # the margin itself


def test_a_planted_slow_down_is_found():
    assert share_called(1.5, Verdict.SLOWER) >= 0.9
    assert share_called(1 / 1.5, Verdict.FASTER) >= 0.9
    quiet = {"process": 0.005, "round_": 0.01, "bursts": 0.0}
    assert share_called(1.15, Verdict.SLOWER, **quiet) >= 0.95
    assert share_called(1.0, Verdict.SAME, **quiet) >= 0.95


def test_ratios_are_taken_within_rounds_of_the_best_calls():
    """A drift falls out, and interruptions of single calls do."""
    turns = [[([100 * d, 900], [5000, 120 * d]) for d in (1, 2, 5)], [([300] * 4, [360] * 4)], [([100], [121])]]
    (found,) = findings(["a"], Measured({"a": turns}), 0.1)
    assert found.ratio == pytest.approx(1.2, rel=0.01)
    assert found.verdict is Verdict.SLOWER
    assert (found.base, found.new) == pytest.approx((2e-7, 2.4e-7))


def test_every_case_has_a_finding():
    turns = [[([1000] * 4, [2000] * 4)] * 3] * 3
    measured = Measured({"a": turns, "few": turns[:2]}, {"b": "base: no such kernel"}, {"c": "new: killed"})
    found = {f.case: f for f in findings(["a", "few", "b", "c", "d"], measured, 0.1)}
    assert [(f.verdict, f.reason) for f in found.values()] == [
        (Verdict.SLOWER, None), (Verdict.INCONCLUSIVE, OVER), (Verdict.MISSING, "base: no such kernel"),
        (Verdict.NOT_COMPARABLE, "new: killed"), (Verdict.INCONCLUSIVE, OVER),
    ]  # fmt: skip
    assert (found["a"].ratio, found["a"].low, found["a"].high) == pytest.approx((2.0, 2.0, 2.0))


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(1.11, 1.3, Verdict.SLOWER), (0.7, 0.9, Verdict.FASTER), (0.95, 1.05, Verdict.SAME),
     (0.95, 1.2, Verdict.INCONCLUSIVE), (1.05, 1.2, Verdict.INCONCLUSIVE)],
)  # fmt: skip
def test_the_whole_interval_decides(low, high, verdict):
    assert placed(Interval(1.0, low, high, Basis.LAUNCHES), 0.1) is verdict
    assert placed(Interval(1.0, low, high, Basis.ROUNDS), 0.1) is Verdict.INCONCLUSIVE


SLOW = Finding("products a", Verdict.SLOWER, 1e-6, 2e-6, 2.0, 1.9, 2.1)
SAME = Finding("products b", Verdict.SAME, 1e-3, 1e-3, 1.01, 0.99, 1.02)
GONE = Finding("products [c]", Verdict.MISSING, reason="base: no such kernel")


def test_what_is_slower_must_be_so_again():
    again = [Finding("products a", Verdict.SAME, 1, 1, 1.01, 0.9, 1.1)]
    assert confirmed([SLOW], [SLOW]) == [SLOW]
    assert confirmed([SAME], []) == [SAME]
    (kept,) = confirmed([SLOW], again)
    assert (kept.verdict, kept.reason) == (Verdict.INCONCLUSIVE, "slower by 2.000; measured again: 1.010, same")
    broken = Finding("products a", Verdict.NOT_COMPARABLE, reason="new: killed")
    assert confirmed([SLOW], [broken])[0].reason == "slower by 2.000; measured again: new: killed"


def test_the_table_names_every_case_its_times_and_reasons(capsys):
    show([SLOW, SAME, GONE], ("abc", "def"), 0.1)
    text = capsys.readouterr().out
    for words in (
        "base abc, new def", "1 us", "2 us", "2.000", "1.900 to 2.100", "slower", "products [c]",
        "missing: base: no such kernel (1 case, products [c] first)", "1 slower, 1 missing, 1 same. Margin 10%",
    ):  # fmt: skip
        assert words in text, words


@pytest.mark.parametrize(
    ("seconds", "text"), [(12.0, "12 s"), (0.0123, "12.3 ms"), (4.5e-5, "45 us"), (3e-9, "3 ns"), (1.0, "1 s")]
)
def test_durations(seconds, text):
    assert readable(seconds) == text


def test_false_alarms_are_counted_with_an_upper_bound():
    assert "0 of 40 compared cases called slower, in 0 of 20 comparisons; at 95% confidence fewer than 14%" in alarms(
        [[SAME, SAME, GONE]] * 20, 0.1
    )
    text = alarms([[SAME, SAME]] * 9 + [[SLOW, SLOW]], 0.1)
    assert "2 of 20 compared cases called slower, in 1 of 10 comparisons" in text
