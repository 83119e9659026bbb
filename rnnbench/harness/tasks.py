"""From a plan to tasks: read the rows, fall back where they cannot be had, make the parameters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rnnbench import workloads
from rnnbench.correctness.oracle import LOSS_STEPS
from rnnbench.harness import footprint
from rnnbench.harness.checker import Task
from rnnbench.harness.plan import Plan, epoch_steps, problem_of, wanted, workload_of
from rnnbench.harness.sweep import tasks_of_sweep
from rnnbench.model import Case, Pass
from rnnbench.params import cast, init_params
from rnnbench.workloads.base import Dataset, Source, Workload, WorkloadUnavailable, rows


def load_rows(
    workload: Workload, seed: int, data_dir: str | None, say: Callable[[str], None]
) -> tuple[Workload, Dataset]:
    """The workload and its rows; the stand-in, said in one line, where the rows cannot be had.

    Raises WorkloadUnavailable where there is no stand-in.
    """
    source = Source(T=workload.T, seed=seed, data_dir=None if data_dir is None else Path(data_dir), say=say)
    try:
        return workload, workload.load(source)
    except WorkloadUnavailable as error:
        if workload.stand_in is None:
            raise
        say(f"{workload.name} cannot be had, {workload.stand_in} is used under its own name. {error}")
        stand_in = workloads.get(workload.stand_in)
        return stand_in, stand_in.load(Source(T=stand_in.T, seed=seed))


def tasks_of(plan: Plan, say: Callable[[str], None]) -> list[Task]:
    """One task for each workload and type, in the plan's order; cases that the filter leaves to nobody are dropped.

    A sweep has one for each size and type. Raises ValueError as `check_sizes` and `check_memory`, and
    WorkloadUnavailable as `load_rows`.
    """
    if plan.sweep is not None:
        return tasks_of_sweep(plan, say)
    check_sizes(plan)
    tasks: dict[str, list[Task]] = {}
    for name in plan.workloads:
        asked = workload_of(name, plan)
        if not _wanted_at_all(plan, asked):
            continue
        workload, dataset = load_rows(asked, plan.seed, plan.data_dir, say)
        if workload.name not in tasks:  # two names may share one stand-in
            tasks[workload.name] = _tasks_of_workload(plan, workload, dataset)
    return [task for group in tasks.values() for task in group]


def check_sizes(plan: Plan, *, trained: bool = False) -> None:
    """Raise ValueError for sizes that a workload does not allow, or that need more memory than there is.

    Before any row is made, and, of a run, before its folder is. `trained`: the plan is of trainings, and of no cases.
    """
    free, workers = footprint.free(), footprint.workers_of(plan)
    for name in plan.workloads:
        workload = workload_of(name, plan)
        if not _wanted_at_all(plan, workload):
            continue
        train, made = workload.rows
        for dtype in plan.dtypes:
            problem = problem_of(workload, dtype, plan.truncation, plan.batch_size)
            if train < problem.B:
                raise ValueError(f"batch size {problem.B} is more than the {train} training rows of {name}")
            most = max(LOSS_STEPS, *(case.steps for case in cases_of(plan, workload, train)))
            needed = 0 if trained else footprint.bytes_needed(problem, made, min(train, most * problem.B), workers)
            if trained or name in plan.training:  # where the workers of the cases have ended
                needed = max(needed, footprint.bytes_needed(problem, made, made, 1, at_once=footprint.PREDICTED))
            if reason := footprint.too_large(needed, workers, free):
                way_out = "a smaller -B" + " or -T" * workload.free_length + ", or fewer backends" * (workers > 1)
                raise ValueError(f"{name} with T = {problem.T}, B = {problem.B} {reason}; take {way_out}")


def _wanted_at_all(plan: Plan, workload: Workload) -> bool:
    return any(wanted(plan, case, name) for case in cases_of(plan, workload, rows=1 << 30) for name in plan.backends)


def cases_of(plan: Plan, workload: Workload, rows: int) -> list[Case]:
    """All cases that a plan asks of a workload with so many training rows, before the filter."""
    cases = []
    for dtype in plan.dtypes:
        problem = problem_of(workload, dtype, plan.truncation, plan.batch_size)
        for pass_ in plan.passes:
            steps = epoch_steps(workload, problem.B, rows, plan.epoch_batches) if pass_ is Pass.EPOCH else 1
            cases.append(Case(**vars(problem), pass_=pass_, steps=steps))
    return cases


def _tasks_of_workload(plan: Plan, workload: Workload, dataset: Dataset) -> list[Task]:
    params = init_params(workload.model, workload.init, plan.seed)
    train = dataset.train
    tasks = []
    for dtype in plan.dtypes:
        problem = problem_of(workload, dtype, plan.truncation, plan.batch_size)
        cases = [
            case
            for case in cases_of(plan, workload, len(train.inputs))
            if case.dtype is dtype and any(wanted(plan, case, name) for name in plan.backends)
        ]
        if cases:
            most = max(LOSS_STEPS, *(case.steps for case in cases))
            staged = rows(train.inputs, train.targets, 0, most * problem.B)
            tasks.append(Task(problem, tuple(cases), staged, cast(params, dtype), dataset.source))
    return tasks
