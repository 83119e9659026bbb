"""`rnnbench sweep`: sizes from the command line, the plan, and what a dry run shows of it."""

from __future__ import annotations

from typing import Any

from rnnbench.harness.plan import Plan
from rnnbench.harness.sweep import cases_of, problems_of
from rnnbench.model import Pass
from rnnbench.report.text import number
from rnnbench.sweep import Sizes, Sweep
from rnnbench.work import work_of

DEFAULT_AXES = {"H": (16, 32, 64, 128, 256, 512, 1024), "B": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
                "T": (1, 10, 100, 1000)}  # fmt: skip
DEFAULT_PASSES = (Pass.FORWARD, Pass.GRADIENT)


def sweep_of(axes: dict[str, tuple[int, ...] | None], E: int | None, grid: bool) -> Sweep:
    """One size moves the centre of its axis; several sweep it. Where none is swept, all that were not given are.

    Raises ValueError as `Sweep`.
    """
    given = {axis: sizes for axis, sizes in axes.items() if sizes is not None}
    centre = Sizes(**{axis: sizes[0] for axis, sizes in given.items() if len(sizes) == 1})
    swept = {axis: sizes for axis, sizes in given.items() if len(sizes) > 1}
    if not swept:
        swept = {axis: sizes for axis, sizes in DEFAULT_AXES.items() if axis not in given}
    return Sweep(**swept, centre=centre, E=E, grid=grid)


def rows_of(plan: Plan) -> list[tuple[Any, ...]]:
    """Case, millions of operations, operations a byte: a line for each case of the plan."""
    cases = [case for problem in problems_of(plan) for case in cases_of(plan, problem)]
    return [(c.key, number(work_of(c).flops / 1e6), number(work_of(c).intensity)) for c in cases]
