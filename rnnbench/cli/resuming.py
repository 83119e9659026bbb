"""`--resume`: what stands beside it on the command line must be what the run was asked, as its plan tells."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rnnbench import backends
from rnnbench.cli.shell import given, written
from rnnbench.sizes import AXES

if TYPE_CHECKING:
    from rnnbench.harness.plan import Plan


def _trained(plan: Plan) -> Any:
    return {(): False, tuple(spec.name for spec in plan.workloads): True}.get(plan.training, plan.training)


def _sizes(axis: str) -> Callable[[Plan], Any]:
    """As the option takes them: those that are swept, else the one that the axis stays at."""

    def told(plan: Plan) -> Any:
        if plan.sweep is None:
            return getattr(plan.sizes, axis)
        return tuple(sorted(getattr(plan.sweep, axis))) or (getattr(plan.sweep.centre, axis),)

    return told


def _model(name: str, plan: Plan) -> Any:
    return getattr(plan.sizes, name) or None


# The name of an option's value -> the same in a plan. Of all others the plan has a field of that name.
_IN_PLAN: dict[str, Callable[[Plan], Any]] = {
    "workload": lambda plan: plan.names if plan.sweep is None else (plan.names or (None,))[0],
    "backend": lambda plan: tuple(name for name in plan.backends if not name.endswith(backends.REPLICA)),
    "filter_": lambda plan: plan.filter,
    "training": _trained,
    "precision": lambda plan: plan.rule and plan.rule.precision,
    "max_launches": lambda plan: plan.rule and plan.rule.max_launches,
    "threads": lambda plan: None if plan.trial else plan.threads,
    "aa": lambda plan: any(name.endswith(backends.REPLICA) for name in plan.backends),
    **{axis: _sizes(axis) for axis in AXES},
    "E": lambda plan: plan.sizes.E if plan.sweep is None else plan.sweep.E,
    **{name: partial(_model, name) for name in ("cell", "layers", "bidirectional", "V", "O", "head", "loss")},
    "grid": lambda plan: plan.sweep is not None and plan.sweep.grid,
    "dry_run": lambda plan: False,
}


def check_options(ctx: click.Context, plan: Plan, folder: Path, free: frozenset[str] = frozenset()) -> None:
    """Raise ValueError with each option that asks for something else than the run has, and both values.

    `free` are those that may be given anew.
    """
    unlike = []
    for option in given(ctx, {"resume", *free}):
        name = str(option.name)
        asked = ctx.params[name]
        if name == "output":
            has: Any = folder
            alike = asked.resolve() == folder.resolve()
        else:
            has = _IN_PLAN[name](plan) if name in _IN_PLAN else getattr(plan, name)
            if name in AXES and isinstance(asked, tuple):
                asked = tuple(sorted(asked))
            alike = asked == has or (isinstance(asked, Path) and str(asked) == has)
        if not alike:
            value = "" if getattr(option, "is_flag", False) else f" {_said(asked)}"
            unlike.append(f"{written(option, ctx)}{value} (there: {_said(has)})")
    if unlike:
        raise ValueError(
            f"{folder} is a run of something else: {', '.join(unlike)}; leave these out, or measure into another "
            "folder with -o and no --resume"
        )


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None or value == "" else str(value)
