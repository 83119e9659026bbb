"""How long a run will take, guessed from its sizes before anything is measured: right within a factor of about two."""

from __future__ import annotations

from collections.abc import Iterable

from rnnbench.correctness.oracle import LOSS_STEPS
from rnnbench.harness.plan import Plan
from rnnbench.model import Case, Pass
from rnnbench.work import work_of

START, PREPARE = 2.5, 2.5  # seconds: a process with its library; preparing, compiling and first calls
FLOPS = 20e9  # in a second
STEP = 1e-5  # seconds of one step of a recurrence, forward or back, where the arithmetic costs nothing
EXTRA = 10.0  # seconds: the peak of the machine and the report


def of_call(case: Case) -> float:
    """Seconds of one call of a case by a middling backend."""
    cut, T = case.truncation, case.T
    back = 0.0 if case.pass_ is Pass.FORWARD else 2.0 * T * (1 if cut is None else cut.window / cut.stride)
    return STEP * case.steps * (T + back) + work_of(case).flops / FLOPS


def of_check(cases: Iterable[Case], first: bool) -> float:
    """Seconds of preparing a problem and checking its cases, for one backend; the losses are in the `first` launch."""
    calls = 0.0
    for case in cases:
        calls += of_call(case) * (1 + LOSS_STEPS * (first and case.pass_ is Pass.TRAIN_STEP))
    return PREPARE + calls


def of_turn(plan: Plan, case: Case) -> float:
    """Seconds of one turn."""
    turn = plan.effort.turn_of(case.pass_)
    return max(turn.seconds, turn.min_calls * of_call(case))
