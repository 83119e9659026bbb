"""How long `run` measures, and whom against himself: from the options to the plan."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from rnnbench.cli.names import DurationType, PercentType
from rnnbench.cli.options import options
from rnnbench.units import exact_duration, percent

if TYPE_CHECKING:
    from rnnbench.harness.plan import Plan

STOPPING = options(
    click.option("--precision", type=PercentType(),
                 help="Launches go on until the interval of every time is within this. Default of --rigorous: 2%."),
    click.option("--max-launches", type=click.IntRange(3), metavar="N",
                 help="The cap, where launches go on until they are precise. Default: 30."),
    click.option("--budget", type=DurationType(),
                 help="Once so long has gone by, no further round begins; what is under way is ended a second later, "
                      "but not reading data and the report."),
    click.option("--case-budget", type=DurationType(),
                 help="The same for each backend in each case: its checks, compiling and turns; the process for its "
                      "memory has it anew."),
    click.option("--aa", is_flag=True, help="Measure each backend against itself, to know the noise of the machine."),
)  # fmt: skip


BUDGETS = frozenset({"budget", "case_budget"})  # what a resumed run may be given anew


def with_budgets(plan: Plan, budget: float | None, case_budget: float | None) -> Plan:
    """The plan of a resumed run, with those budgets that were given anew."""
    return replace(plan, budget=budget or plan.budget, case_budget=case_budget or plan.case_budget)


def length_of(plan: Any) -> str:
    """`3 launches of 2 rounds`, and what may end it before."""

    fewest, most = plan.launches
    if plan.rule is None:
        said = f"{most} launches of {plan.effort.rounds} rounds"
    else:
        said = (
            f"{fewest} to {most} launches of {plan.effort.rounds} rounds, until {percent(plan.rule.precision)} precise"
        )
    if plan.budget is not None:
        said += f"; {exact_duration(plan.budget)} in all"
    if plan.case_budget is not None:
        said += f"; {exact_duration(plan.case_budget)} a case and backend"
    return said
