"""From a plan to tasks: read the rows, fall back where they cannot be had, make the parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from rnnbench import workloads
from rnnbench.correctness.oracle import LOSS_STEPS
from rnnbench.harness import footprint
from rnnbench.harness.plan import Plan, cases_of, wanted
from rnnbench.harness.run_state import Task
from rnnbench.model import DType, Model, Problem
from rnnbench.params import Init, Params, cast, init_params
from rnnbench.records.store import StoreError
from rnnbench.workloads import files, made_up
from rnnbench.workloads.base import MADE_UP, Dataset, Source, Spec, Split, Workload, WorkloadUnavailable

Say = Callable[[str], None]


def workload_of(spec: Spec, given: Mapping[str, Workload], folder: Path | None = None) -> Workload:
    """The workload that a plan's spec stands for: as `given`, from the registry, or from the folder of the run.

    Raises StoreError where the rows that a run has kept cannot be read.
    """
    if spec.name in given:
        return given[spec.name]
    if spec.origin == MADE_UP:
        return Workload(data=made_up.made_up_rows, **vars(spec))
    if spec.origin:
        own = workloads.get(spec.origin)
        return replace(own, **{name: value for name, value in vars(spec).items() if name != "rows"})
    assert folder is not None
    try:
        return files.kept_workload(folder, spec)
    except ValueError as error:
        raise StoreError(f"{error}; put back a copy, or measure in a new folder") from error


def load_rows(workload: Workload, seed: int, data_dir: str | None, say: Say) -> tuple[Workload, Dataset]:
    """The workload and its rows; the stand-in, said in one line, where the rows cannot be had.

    Raises WorkloadUnavailable where there is no stand-in.
    """
    source = Source(T=workload.T, seed=seed, data_dir=None if data_dir is None else Path(data_dir), say=say)
    try:
        return workload, workload.load(source)
    except WorkloadUnavailable as error:
        if workload.stand_in is None:
            raise
        name = workload.stand_in + workload.name.removeprefix(workload.origin)
        say(f"{workload.name} cannot be had, {name} is used under its own name. {error}")
        own, spec = workloads.get(workload.stand_in), workload.spec
        stand_in = replace(own, name=name, model=spec.model, train=spec.train, B=spec.B, T=spec.T)
        return stand_in, stand_in.load(source)


def check_sizes(plan: Plan, *, trained: bool = False) -> None:
    """Raise ValueError for batches larger than the data set, and where memory does not hold what is asked.

    Before any row is made, and, of a run, before its folder is. `trained`: the plan is of trainings, and of no cases.
    Sizes that memory does not hold are left out, and an error only where not one is left.
    """
    trained = trained or not plan.passes
    check_batches(plan)
    refused = refused_sizes(plan, trained=trained)
    asked = sum(len(plan.dtypes) for spec in plan.workloads if trained or _wanted_at_all(plan, spec))
    if refused and len(refused) == asked:
        raise ValueError(next(iter(refused.values())))


def check_batches(plan: Plan) -> None:
    """Raise ValueError for batches larger than the data set."""
    for spec in plan.workloads:
        if spec.rows[0] < spec.B:
            raise ValueError(f"batch size {spec.B} is more than the {spec.rows[0]} training rows of {spec.name}")


def refused_sizes(plan: Plan, *, trained: bool = False) -> dict[tuple[str, DType], str]:
    """The workloads that need more memory than there is: by name and type, what each would need and the way out."""
    free, kept, found = footprint.free(), 0, {}
    workers = 1 if trained else footprint.workers_of(plan)
    for spec in plan.workloads:
        if not trained and not _wanted_at_all(plan, spec):
            continue
        train, total = spec.rows
        for dtype in plan.dtypes:
            problem = spec.problem(dtype, plan.truncation)
            most = max([LOSS_STEPS, *(case.steps for case in cases_of(plan, spec))])
            making = making_of(spec)
            needed = 0
            if not trained:
                needed = footprint.bytes_needed(
                    problem, total, min(train, most * spec.B), workers, making=making, threads=plan.threads
                )
            # Where the workers of the cases have ended
            if trained or plan.until_accuracy or spec.name in plan.training:
                alone = footprint.bytes_needed(
                    problem, total, total, 1, predicts=True, making=making, threads=plan.threads
                )
                needed = max(needed, alone)
            if reason := footprint.too_large(kept + needed, workers, free):
                fewer = ", or fewer backends" * (len(plan.backends) > 1)
                way_out = f"smaller sizes{fewer}" if plan.sweep else f"a smaller -B or -T{fewer}"
                found[spec.name, dtype] = f"{spec.name} with T = {spec.T}, B = {spec.B} {reason}; take {way_out}"
        if (spec.name, plan.dtypes[0]) not in found:
            # the parameters of all workloads are made before the first one is measured
            kept += footprint.params_of(problem) * 8
    return found


def making_of(spec: Spec) -> int:
    """Bytes a number of a row while rows are made or read."""
    return made_up.MAKING if spec.made_up and spec.origin == MADE_UP else footprint.MAKING


def too_large_here(spec: Spec, problem: Problem) -> str | None:
    """What a session in this process would need and what there is, where that is less, or None."""
    train, total = spec.rows
    making = making_of(spec) if spec.origin else 0  # rows of the user's own are there already
    needed = total * footprint.row_of(problem) * making + footprint.params_of(problem) * footprint.EXACT
    needed += footprint.in_worker(problem, train)
    reason = footprint.too_large(needed, 0, footprint.free())
    return reason and f"{spec.name} with T = {spec.T}, B = {spec.B} {reason}; take smaller sizes"


def _wanted_at_all(plan: Plan, spec: Spec) -> bool:
    return any(wanted(plan, case, name) for case in cases_of(plan, spec) for name in plan.backends)


def tasks_of(
    plan: Plan, say: Say, given: Mapping[str, Workload] | None = None, folder: Path | None = None
) -> list[Task]:
    """One task for each workload and type, in the plan's order; cases that the filter leaves to no backend are dropped.

    `given` are workloads that are here already, by name; rows of others that are a user's own are in `folder`. What
    memory does not hold gets a task without rows that says why. Raises WorkloadUnavailable as `load_rows`.
    """
    refused = refused_sizes(plan)
    for reason in dict.fromkeys(refused.values()):
        say(f"left out: {reason}")
    tasks: dict[str, list[Task]] = {}
    params: dict[tuple[Model, Init], Params] = {}  # many sizes of a sweep share a model
    for spec in plan.workloads:
        if not _wanted_at_all(plan, spec):
            continue
        left_out = {dtype: refused[spec.name, dtype] for dtype in plan.dtypes if (spec.name, dtype) in refused}
        if len(left_out) == len(plan.dtypes):
            nothing = Dataset(made_up.NOTHING, made_up.NOTHING, None, "")
            tasks[spec.name] = _tasks_of_workload(plan, spec, nothing, {}, left_out)
            continue
        workload, dataset = load_rows(workload_of(spec, given or {}, folder), plan.seed, plan.data_dir, say)
        if workload.name not in tasks:  # two names may share one stand-in
            key = workload.model, workload.init
            if key not in params:
                params[key] = init_params(*key, plan.seed)
            tasks[workload.name] = _tasks_of_workload(plan, workload.spec, dataset, params[key], left_out)
    return [task for group in tasks.values() for task in group]


def _tasks_of_workload(
    plan: Plan, spec: Spec, dataset: Dataset, params: Params, refused: Mapping[DType, str]
) -> list[Task]:
    tasks = []
    for dtype in plan.dtypes:
        reason = refused.get(dtype)
        train, own = (made_up.NOTHING, {}) if reason else (dataset.train, params)
        known = None if reason else train
        every = cases_of(plan, spec, known)
        cases = [c for c in every if c.dtype is dtype and any(wanted(plan, c, name) for name in plan.backends)]
        if cases:
            most = max(LOSS_STEPS, *(case.steps for case in cases))
            staged: Split = train.part(0, most * spec.B)
            problem = spec.problem(dtype, plan.truncation, known)
            tasks.append(Task(problem, tuple(cases), staged, cast(own, dtype), dataset.source, reason))
    return tasks
