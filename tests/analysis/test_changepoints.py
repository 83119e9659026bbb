"""Steps in a history, at the edges; in simulated series, in tests/validation/test_simulated.py."""

from __future__ import annotations

import numpy as np

from rnnbench.analysis.changepoints import MAX_RUNS, MIN_RUNS, best_cut, levels, steps

MARGIN = 0.05


def test_two_steps_are_told_apart():
    values = [1.0, 1.01, 0.99, 1.02, 0.98, 1.03, 1.0, 1.01, 0.97, 1.0]
    up = [*values, *(1.5 * v for v in values), *values]
    assert [step.index for step in steps(up, MARGIN)] == [10, 20]
    assert [step.ratio > 1 for step in steps(up, MARGIN)] == [True, False]
    assert [(a, b) for a, b, _ in levels(up, steps(up, MARGIN))] == [(0, 10), (10, 20), (20, 30)]


def test_one_odd_run_a_small_step_and_too_few_runs_are_none():
    calm = [1.0 + 0.001 * (i % 7) for i in range(20)]
    assert steps([*calm[:10], 9.0, *calm[10:]], MARGIN) == ()
    small = [*calm, *(1.03 * v for v in calm)]
    assert steps(small, MARGIN) == ()
    assert len(steps(small, 0.02)) == 1
    few = [1.0, 1.01, 1.02, 1.03, 2.0, 2.01, 2.02, 2.03, 2.04]
    assert len(few) == MIN_RUNS - 1
    assert steps(few, MARGIN) == ()
    assert best_cut(few)[1] == 1.0
    assert len(steps([0.99, *few], MARGIN)) == 1
    assert steps([], MARGIN) == steps([1.0] * 30, MARGIN) == ()


def test_of_a_long_history_the_last_runs_are_looked_at():
    rng = np.random.default_rng(0)
    old, late = (np.exp(rng.normal(0, 0.01, MAX_RUNS)) for _ in range(2))
    old[MAX_RUNS // 2 :] *= 2
    late *= 2
    late[MAX_RUNS // 2 :] *= 1.5
    (step,) = steps([*old, *late], 0.05)
    assert step.index == MAX_RUNS + MAX_RUNS // 2
