"""From a plan with a sweep to tasks: one for each size and type, on rows that share their memory."""

from __future__ import annotations

from rnnbench.measure.checks import Task
from rnnbench.measure.schedule import Plan
from rnnbench.model import Case, Problem
from rnnbench.params import Init, cast, init_params
from rnnbench.workloads import dense

GIB = 1 << 30
PROCESS_BYTES = 400 << 20  # a worker with its library, before it has a problem


def problems_of(plan: Plan) -> list[Problem]:
    """The problems of the plan's sweep, type by type."""
    assert plan.sweep is not None
    return [dense.problem_of(sizes, plan.sweep.E, dtype) for dtype in plan.dtypes for sizes in plan.sweep.cases]


def cases_of(plan: Plan, problem: Problem) -> tuple[Case, ...]:
    """The passes that are asked of a problem."""
    return tuple(Case(**vars(problem), pass_=pass_) for pass_ in plan.passes)


def bytes_needed(plan: Plan, problem: Problem) -> int:
    """About what the workers of one problem take together: rows twice, and a few arrays as large as all states."""
    number = 8 if problem.dtype == "float64" else 4
    rows = dense.batches_of(problem) * problem.B * problem.T * problem.model.E * (4 + number)
    states = 6 * number * problem.B * problem.T * problem.model.H
    return len(plan.backends) * (PROCESS_BYTES + rows + states)


def check_memory(plan: Plan) -> None:
    """Raise ValueError where the largest problem needs more memory than there is."""
    import psutil

    largest = max(problems_of(plan), key=lambda p: bytes_needed(plan, p))
    needed, free = bytes_needed(plan, largest), psutil.virtual_memory().available
    if needed > free:
        raise ValueError(
            f"{largest.name} needs about {needed / GIB:.1f} GiB in {len(plan.backends)} processes, and "
            f"{free / GIB:.1f} GiB are free; take smaller sizes, or fewer backends with -b"
        )


def tasks_of_sweep(plan: Plan) -> list[Task]:
    """One task for each problem. Raises ValueError as `check_memory`."""
    check_memory(plan)
    problems = problems_of(plan)
    numbers = dense.make(problems, plan.seed)

    made = {model: init_params(model, Init.KERAS, plan.seed) for model in {p.model for p in problems}}
    source = dense.SOURCE.format(plan.seed)
    return [Task(p, cases_of(plan, p), numbers.rows(p), cast(made[p.model], p.dtype), source) for p in problems]
