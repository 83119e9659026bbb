"""`rnnbench sweep`: from sizes to a list of workloads and their plan, and what a dry run shows of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rnnbench.api.planning import known_names, plan_of
from rnnbench.harness.plan import SWEEP_EFFORTS, Plan, cases_of
from rnnbench.model import Pass
from rnnbench.records.record import Mode
from rnnbench.sizes import Sizes, Sweep
from rnnbench.units import number
from rnnbench.work import work_of
from rnnbench.workloads.base import MADE_UP, Workload
from rnnbench.workloads.resolve import Asked, resolve

DEFAULT_AXES = {"H": (16, 32, 64, 128, 256, 512, 1024), "B": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
                "T": (1, 10, 100, 1000)}  # fmt: skip
DEFAULT_PASSES = (Pass.FORWARD, Pass.GRADIENT)


def planned_sweep(
    workload: str | Workload | None,
    backends: Iterable[str] | None,
    passes: Iterable[str] | None,
    dtypes: Iterable[str] | None,
    axes: Mapping[str, tuple[int, ...] | None],
    E: int | None,
    grid: bool,
    sizes: Asked,
    say: Callable[[str], None],
    *,
    mode: str,
    seed: int,
    **rest: Any,
) -> tuple[Plan, dict[str, Workload]]:
    """The plan of a sweep, and its workloads by name. `sizes` are those that are not swept, of one cell; `rest` are
    further fields of the plan.

    Raises ValueError for what cannot be asked, and WorkloadUnavailable as `resolve`.
    """
    chosen = [Pass(name) for name in known_names("pass", DEFAULT_PASSES if passes is None else passes, Pass)]
    if Pass.EPOCH in chosen:
        raise ValueError("a sweep has no epoch, as its rows are made up; choose forward, gradient or train_step")
    (kind,) = known_names("mode", [mode], SWEEP_EFFORTS)
    (base,) = resolve([workload or MADE_UP], sizes, say, seed=seed)
    swept = sweep_of(axes, E, grid, base)
    found = swept_workloads(swept, base)
    plan = plan_of(
        found, backends, chosen, dtypes, mode=Mode(kind), seed=seed, sweep=swept, sizes=sizes,
        names=() if workload is None else (workload if isinstance(workload, str) else workload.name,), **rest,
    )  # fmt: skip
    return plan, {each.name: each for each in found}


def sweep_of(
    axes: Mapping[str, tuple[int, ...] | None], E: int | None, grid: bool, base: Workload | None = None
) -> Sweep:
    """One size moves the centre of its axis; several sweep it. Where none is swept, all that were not given are.

    The centre is that of `base`, whose T is swept by default only where it has no rows of its own. Raises ValueError
    as `Sweep`.
    """
    if E is None and base is not None and not _as_wide(base):
        E = base.model.E
    given = {axis: sizes for axis, sizes in axes.items() if sizes is not None}
    own = {} if base is None else {"H": base.model.H, "B": base.B, "T": base.T}
    centre = Sizes(**{**own, **{axis: sizes[0] for axis, sizes in given.items() if len(sizes) == 1}})
    swept = {axis: sizes for axis, sizes in given.items() if len(sizes) > 1}
    if not swept:
        fixed = {"T"} if base is not None and not callable(base.data) else set()
        swept = {axis: sizes for axis, sizes in DEFAULT_AXES.items() if axis not in given.keys() | fixed}
    return Sweep(**swept, centre=centre, E=E, grid=grid)


def swept_workloads(sweep: Sweep, base: Workload) -> list[Workload]:
    """The workload at each size of a sweep. Dense made-up inputs are as wide as the state, unless E is given.

    Raises ValueError where the workload has no rows of a length or width.
    """
    found = []
    for sizes in sweep.cases:
        E = sizes.H if sweep.E is None and _as_wide(base) else sweep.E
        found.append(base.resized(T=sizes.T, B=sizes.B, H=sizes.H, E=E))
    return list({workload.name: workload for workload in found}.values())


def _as_wide(base: Workload) -> bool:
    """Whether the inputs may be as wide as the state: they are dense, and made up."""
    return base.origin == MADE_UP and base.model.V is None


def rows_of(plan: Plan) -> list[tuple[Any, ...]]:
    """Case, millions of operations, operations a byte: a line for each case of the plan."""
    cases = [case for spec in plan.workloads for case in cases_of(plan, spec)]
    return [(c.key, number(work_of(c).flops / 1e6), number(work_of(c).intensity)) for c in cases]
