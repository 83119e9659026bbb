"""From a plan with a sweep to tasks: one for each size and type, on rows that share their memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rnnbench.harness import footprint
from rnnbench.harness.checker import Task
from rnnbench.harness.plan import Plan
from rnnbench.model import Case, Problem
from rnnbench.params import Init, cast, init_params
from rnnbench.workloads import dense
from rnnbench.workloads.base import Split

NOTHING = np.empty(0, np.float32)


def problems_of(plan: Plan) -> list[Problem]:
    """The problems of the plan's sweep, type by type."""
    assert plan.sweep is not None
    return [dense.problem_of(sizes, plan.sweep.E, dtype) for dtype in plan.dtypes for sizes in plan.sweep.cases]


def cases_of(plan: Plan, problem: Problem) -> tuple[Case, ...]:
    """The passes that are asked of a problem."""
    return tuple(Case(**vars(problem), pass_=pass_) for pass_ in plan.passes)


def too_large(plan: Plan) -> dict[Problem, str]:
    """The problems that need more memory than there is, each with what it would need and the way out."""
    free, workers, kept, found = footprint.free(), footprint.workers_of(plan), 0, {}
    for problem in problems_of(plan):
        rows = dense.batches_of(problem) * problem.B
        needed = kept + footprint.bytes_needed(problem, rows, rows, workers, making=dense.MAKING)
        if reason := footprint.too_large(needed, workers, free):
            found[problem] = f"{problem.name} {problem.dtype} {reason}; take smaller sizes, or fewer backends with -b"
        else:  # the parameters of all sizes are made before the first one is measured
            kept += footprint.params_of(problem) * problem.dtype.bytes
    return found


def check_memory(plan: Plan) -> None:
    """Raise ValueError where not one size of the sweep fits into memory."""
    refused = too_large(plan)
    if len(refused) == len(problems_of(plan)):
        raise ValueError(next(iter(refused.values())))


def tasks_of_sweep(plan: Plan, say: Callable[[str], None]) -> list[Task]:
    """One task for each problem; one that needs too much memory has no rows, and says why.

    Raises ValueError as `check_memory`.
    """
    check_memory(plan)
    refused, source = too_large(plan), dense.SOURCE.format(plan.seed)
    for reason in refused.values():
        say(f"left out: {reason}")
    problems = [p for p in problems_of(plan) if p not in refused]
    numbers = dense.make(problems, plan.seed)
    made = {model: init_params(model, Init.KERAS, plan.seed) for model in {p.model for p in problems}}

    def task(p: Problem) -> Task:
        if p in refused:
            return Task(p, cases_of(plan, p), Split(NOTHING, NOTHING), {}, source, refused[p])
        return Task(p, cases_of(plan, p), numbers.rows(p), cast(made[p.model], p.dtype), source)

    return [task(p) for p in problems_of(plan)]
