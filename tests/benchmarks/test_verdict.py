"""The decision on simulated rounds whose truth is known: what is slower is found, what is not is let pass."""

from __future__ import annotations

import numpy as np
import pytest

from duel import Measured
from verdict import (
    Finding,
    Unit,
    Verdict,
    confidence_for,
    confirmed,
    findings,
    interval_of,
    judge,
    judge_launches,
    launch_ratios,
    ratios_for,
    ratios_of,
    sign_interval,
    turn_value,
)

LAUNCHES, ROUNDS, MARGIN = 3, 6, 0.1


def simulated(rng, truth: float, *, process=0.02, round_=0.08, bursts=0.1) -> list[list[float]]:
    """Ratios of a noisy machine: a speed for each process, a spread for each round, and now and then a busy core."""
    speeds = rng.normal(0, process, LAUNCHES)
    logs = np.log(truth) + speeds[:, None] + rng.normal(0, round_, (LAUNCHES, ROUNDS))
    busy = np.where(rng.random((2, LAUNCHES, ROUNDS)) < bursts, np.log(1.5), 0)
    return np.exp(logs + busy[0] - busy[1]).tolist()


def share_called(truth: float, verdict: Verdict, trials: int = 100, **noise: float) -> float:
    rng = np.random.default_rng(0)
    return float(np.mean([
        judge(simulated(rng, truth, **noise), MARGIN, confidence_for(30))[0] is verdict for _ in range(trials)
    ]))  # fmt: skip


def test_what_is_unchanged_is_not_called_slower():
    assert share_called(1.0, Verdict.SLOWER) == 0


def test_a_slow_down_of_the_margin_itself_is_seldom_called():
    assert share_called(1 + MARGIN, Verdict.SLOWER) <= 0.02


def test_a_planted_slow_down_is_found():
    assert share_called(1.5, Verdict.SLOWER) >= 0.9
    assert share_called(1 / 1.5, Verdict.FASTER) >= 0.9


def test_a_quiet_machine_tells_smaller_ones():
    quiet = {"process": 0.005, "round_": 0.01, "bursts": 0.0}
    assert share_called(1.15, Verdict.SLOWER, **quiet) >= 0.95
    assert share_called(1.0, Verdict.SAME, **quiet) >= 0.95


def test_intervals_cover_the_truth():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        ratios = np.exp(rng.normal(0, 0.1, LAUNCHES * ROUNDS))
        _, low, high = interval_of(ratios, 0.95)
        covered += low <= 1 <= high
    assert 0.9 <= covered / 200 <= 0.99


def test_one_odd_process_decides_nothing():
    calm, odd = [1.0] * ROUNDS, [1.5] * 20
    verdict, (_, low, _) = judge([calm, odd, odd], MARGIN, 0.95)
    assert low > 1 + MARGIN
    assert verdict is Verdict.INCONCLUSIVE


def test_a_wide_interval_is_inconclusive():
    verdict, _ = judge([[0.5, 2.0, 0.7, 1.4, 0.6, 1.6]] * 2, MARGIN, 0.95)
    assert verdict is Verdict.INCONCLUSIVE


def test_equal_ratios_have_an_interval_of_no_width():
    assert judge([[1.2] * 6], MARGIN, 0.95) == (Verdict.SLOWER, (1.2, 1.2, 1.2))


@pytest.mark.parametrize(("cases", "least"), [(1, 6), (30, 11), (1000, 16)])
def test_rounds_that_an_interval_needs(cases, least):
    assert ratios_for(cases) == least
    assert 1 - 2.0 ** (1 - least) >= confidence_for(cases) > 1 - 2.0 ** (2 - least)


def test_interruptions_of_calls_do_not_move_a_turn():
    assert turn_value([5000, 101, 900, 100, 700]) == 100


def test_ratios_are_taken_within_rounds_and_drift_falls_out():
    turns = [[([100 * d] * 4, [120 * d] * 4) for d in (1, 2, 5)], [([300] * 4, [360] * 4)]]
    assert ratios_of(turns) == [[pytest.approx(1.2)] * 3, [pytest.approx(1.2)]]


def test_every_case_has_a_finding():
    turns = [[([1000] * 4, [2000] * 4)] * 3] * 2
    measured = Measured({"a": turns}, {"b": "base: no such kernel"}, {"c": "new: killed"})
    found = {f.case: f for f in findings(["a", "b", "c", "d"], measured, MARGIN)}
    assert [f.verdict for f in found.values()] == [Verdict.SLOWER, Verdict.MISSING, Verdict.BROKEN, Verdict.BROKEN]
    assert (found["a"].base, found["a"].new, found["a"].ratio) == pytest.approx((1e-6, 2e-6, 2.0))
    assert found["b"].reason == "base: no such kernel"
    assert found["c"].reason == "new: killed"
    assert found["d"].reason


def test_by_launch_the_best_calls_stand_for_it():
    turns = [[([100, 180], [300, 330]), ([160, 170], [112, 500])], [([100], [110])] * 3]
    assert launch_ratios(turns) == [pytest.approx(1.12), pytest.approx(1.1)]


def test_the_sign_interval_is_exact():
    values = [float(i) for i in range(1, 11)]
    assert sign_interval(values, 0.975) == (5.5, 2.0, 9.0)  # 1 - 2 * 11 / 1024
    assert sign_interval(values, 0.98) == (5.5, 1.0, 10.0)
    assert sign_interval(values[:5], 0.95) == (3.0, 0.0, float("inf"))


def test_by_launch_odd_ones_are_outvoted():
    calm = [1.09, 1.1, 1.11, 1.1, 1.12, 1.1, 1.09, 1.1, 1.11]
    assert judge_launches([*calm, 0.7], 0.03, 0.975)[0] is Verdict.SLOWER
    assert judge_launches([*calm[:8], 0.7, 0.8], 0.03, 0.975)[0] is Verdict.INCONCLUSIVE
    assert judge_launches([1 / r for r in calm] + [2.0], 0.03, 0.975)[0] is Verdict.FASTER
    assert judge_launches([1.0, 1.01, 0.99] * 3 + [1.6], 0.03, 0.975)[0] is Verdict.SAME
    assert judge_launches(calm[:5], 0.03, 0.975)[0] is Verdict.INCONCLUSIVE


def test_what_is_slower_must_be_so_again():
    slower, same = Finding("a", Verdict.SLOWER, 1, 1, 1.3, 1.2, 1.4), Finding("a", Verdict.SAME, 1, 1, 1.01, 0.9, 1.1)
    broken = Finding("a", Verdict.BROKEN, reason="new: killed")
    assert confirmed([slower], [slower]) == [slower]
    assert confirmed([same], []) == [same]
    (kept,) = confirmed([slower], [same])
    assert (kept.verdict, kept.reason) == (Verdict.INCONCLUSIVE, "slower by 1.300; measured again: 1.010, same")
    assert confirmed([slower], [broken])[0].reason == "slower by 1.300; measured again: new: killed"


@pytest.mark.parametrize(("unit", "enough"), [(Unit.ROUND, (2, 3)), (Unit.LAUNCH, (6, 1))])
def test_too_few_ratios_decide_nothing(unit, enough):
    turn = ([1000], [2000])
    launches, rounds = enough
    assert findings(["a"], Measured({"a": [[turn] * rounds] * launches}), MARGIN, unit)[0].verdict is Verdict.SLOWER
    (few,) = findings(["a"], Measured({"a": [[turn] * rounds] * (launches - 1)}), MARGIN, unit)
    assert (few.verdict, few.reason) == (Verdict.INCONCLUSIVE, "the time was over before enough was measured")
