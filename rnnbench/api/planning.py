"""From what is asked to a plan: the same for the command line and for Python."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from rnnbench import backends as registry
from rnnbench.analysis.stop_rule import RIGOROUS
from rnnbench.harness.plan import Plan
from rnnbench.machine.cores import allowed_cores
from rnnbench.model import USUAL_PASSES, DType, Pass
from rnnbench.names import unknown
from rnnbench.records.record import Mode
from rnnbench.records.stops import StopRule
from rnnbench.workloads.base import Workload


def allowed_threads(asked: int | None) -> int:
    """As many as asked, else all allowed cores. Raises ValueError for more than those, and for none."""
    cores = len(allowed_cores())
    if asked is not None and asked < 1:
        raise ValueError(f"threads = {asked}; it must be at least 1")
    if asked is not None and asked > cores:
        raise ValueError(f"threads = {asked} is more than the {cores} cores allowed here; choose 1 to {cores}")
    return asked or cores


def plan_of(
    workloads: Sequence[Workload],
    backends: Iterable[str] | None = None,
    passes: Iterable[str] | None = None,
    dtypes: Iterable[str] | None = None,
    *,
    threads: int | None = None,
    reference: str | None = None,
    **rest: Any,
) -> Plan:
    """The plan for these workloads; `rest` are further fields of `Plan`. None is what the command line takes then.
    A run that trains to an accuracy has no passes by default.

    Where no number of threads is asked for, a run finds the better of 1 and all; a smoke run takes all.

    Raises ValueError for a name that is not known, a reference that is not measured, and too many threads.
    """
    names = tuple(registry.usual() if backends is None else dict.fromkeys(map(_registered, backends)))
    alone = passes is None and rest.get("until_accuracy") is not None
    chosen = [] if alone else known_names("pass", USUAL_PASSES if passes is None else passes, Pass)
    types = known_names("dtype", [DType.FLOAT32] if dtypes is None else dtypes, DType)
    known_names("backend", names, registry.REGISTRY)
    if reference is not None and reference not in names:
        raise ValueError(f"the reference {reference} is not among the backends of this run: {', '.join(names)}")
    return Plan(
        workloads=tuple(workload.spec for workload in workloads),
        backends=names,
        passes=tuple(Pass(name) for name in chosen),
        dtypes=tuple(DType(name) for name in types),
        threads=allowed_threads(threads),
        trial=threads is None and rest.get("mode") is not Mode.QUICK,
        reference=reference,
        own_backends=tuple(registry.REGISTRY[name].target for name in names if registry.REGISTRY[name].own),
        **rest,
    )


def _registered(name: str) -> str:
    return registry.add(name) if ".py:" in name else name


def stopped(
    plan: Plan,
    precision: float | None = None,
    max_launches: int | None = None,
    budget: float | None = None,
    case_budget: float | None = None,
    aa: bool = False,
) -> Plan:
    """The plan with its rule, its budgets and its replicas. Raises ValueError for a cap with nothing to be capped."""
    if precision is None and plan.mode is Mode.RIGOROUS:
        precision = RIGOROUS
    if precision is None and max_launches is not None:
        raise ValueError(f"max_launches = {max_launches} has no effect alone; give a precision too, such as 0.05")
    rule = None if precision is None else StopRule.until(precision, max_launches)
    names = plan.backends
    if aa:
        names = tuple(name for each in names for name in (each, each + registry.REPLICA))
    return replace(plan, rule=rule, budget=budget, case_budget=case_budget, backends=names)


def known_names(kind: str, names: Iterable[str], known: Iterable[str]) -> list[str]:
    """The names, each once. Raises ValueError for none and for one that is not known."""
    found, every = list(dict.fromkeys(names)), [str(name) for name in known]
    if not found:
        raise ValueError(f"no {kind} is named; known: {', '.join(every)}")
    for name in found:
        if str(name) not in every:
            raise ValueError(unknown(kind, str(name), every))
    return found
