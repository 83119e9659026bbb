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
from rnnbench.model import Model
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
    Of a sweep, sizes that memory does not hold are left out, and an error only where not one is left.
    """
    for spec in plan.workloads:
        if spec.rows[0] < spec.B:
            raise ValueError(f"batch size {spec.B} is more than the {spec.rows[0]} training rows of {spec.name}")
    refused = refused_sizes(plan, trained=trained)
    if refused and (plan.sweep is None or len(refused) == len(plan.workloads)):
        raise ValueError(next(iter(refused.values())))


def refused_sizes(plan: Plan, *, trained: bool = False) -> dict[str, str]:
    """The workloads that need more memory than there is: by name, what each would need and the way out."""
    free, kept, found = footprint.free(), 0, {}
    workers = 1 if trained else footprint.workers_of(plan)
    for spec in plan.workloads:
        if not _wanted_at_all(plan, spec):
            continue
        train, total = spec.rows
        for dtype in plan.dtypes:
            problem = spec.problem(dtype, plan.truncation)
            most = max(LOSS_STEPS, *(case.steps for case in cases_of(plan, spec)))
            making = made_up.MAKING if spec.made_up and spec.origin == MADE_UP else footprint.MAKING
            needed = 0
            if not trained:
                needed = footprint.bytes_needed(problem, total, min(train, most * spec.B), workers, making=making)
            if trained or spec.name in plan.training:  # where the workers of the cases have ended
                alone = footprint.bytes_needed(problem, total, total, 1, at_once=footprint.PREDICTED, making=making)
                needed = max(needed, alone)
            if reason := footprint.too_large(kept + needed, workers, free):
                fewer = ", or fewer backends" * (len(plan.backends) > 1)
                way_out = f"smaller sizes{fewer}" if plan.sweep else f"a smaller -B or -T{fewer}"
                found[spec.name] = f"{spec.name} with T = {spec.T}, B = {spec.B} {reason}; take {way_out}"
                break
        else:  # the parameters of all workloads are made before the first one is measured
            kept += footprint.params_of(problem) * 8
    return found


def _wanted_at_all(plan: Plan, spec: Spec) -> bool:
    return any(wanted(plan, case, name) for case in cases_of(plan, spec) for name in plan.backends)


def tasks_of(
    plan: Plan, say: Say, given: Mapping[str, Workload] | None = None, folder: Path | None = None
) -> list[Task]:
    """One task for each workload and type, in the plan's order; cases that the filter leaves to no backend are dropped.

    `given` are workloads that are here already, by name; rows of others that are a user's own are in `folder`. Of a
    sweep, a size that memory does not hold gets a task without rows that says why. Raises ValueError as `check_sizes`,
    and WorkloadUnavailable as `load_rows`.
    """
    check_sizes(plan)
    refused = refused_sizes(plan)
    for reason in refused.values():
        say(f"left out: {reason}")
    tasks: dict[str, list[Task]] = {}
    params: dict[tuple[Model, Init], Params] = {}  # many sizes of a sweep share a model
    for spec in plan.workloads:
        if not _wanted_at_all(plan, spec):
            continue
        if spec.name in refused:
            nothing = Dataset(made_up.NOTHING, made_up.NOTHING, None, "")
            tasks[spec.name] = _tasks_of_workload(plan, spec, nothing, {}, refused[spec.name])
            continue
        workload, dataset = load_rows(workload_of(spec, given or {}, folder), plan.seed, plan.data_dir, say)
        if workload.name not in tasks:  # two names may share one stand-in
            key = workload.model, workload.init
            if key not in params:
                params[key] = init_params(*key, plan.seed)
            tasks[workload.name] = _tasks_of_workload(plan, workload.spec, dataset, params[key])
    return [task for group in tasks.values() for task in group]


def _tasks_of_workload(
    plan: Plan, spec: Spec, dataset: Dataset, params: Params, refused: str | None = None
) -> list[Task]:
    train, tasks = dataset.train, []
    known = None if refused else train
    for dtype in plan.dtypes:
        every = cases_of(plan, spec, known)
        cases = [c for c in every if c.dtype is dtype and any(wanted(plan, c, name) for name in plan.backends)]
        if cases:
            most = max(LOSS_STEPS, *(case.steps for case in cases))
            staged: Split = train.part(0, most * spec.B)
            problem = spec.problem(dtype, plan.truncation, known)
            tasks.append(Task(problem, tuple(cases), staged, cast(params, dtype), dataset.source, refused))
    return tasks
