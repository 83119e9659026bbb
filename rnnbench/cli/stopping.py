"""How long `run` measures, and what it measures against itself: from the options to the plan."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from rnnbench.cli.names import MAX_SIZE, Count, DurationType, PercentType
from rnnbench.cli.options import options
from rnnbench.units import exact_duration, percent

if TYPE_CHECKING:
    from rnnbench.harness.plan import Plan

STOPPING = options(
    click.option("--precision", type=PercentType(),
                 help="Launch until every 95 % interval is within this part of its time. Default of --rigorous: 2%."),
    click.option("--max-launches", type=Count(3, MAX_SIZE), metavar="N",
                 help="The most launches, with --precision or --rigorous. Default: 30."),
    click.option("--budget", type=DurationType(),
                 help="Time for the run. Once it is spent no round starts, and running work is stopped a second later; "
                      "reading data and writing the report are not cut short."),
    click.option("--case-budget", type=DurationType(),
                 help="Time for each backend in each case: checks, compiling, timing; with --memory the same again."),
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
        said = f"{most} {'launch' if most == 1 else 'launches'} of {plan.effort.rounds} rounds"
    else:
        said = (
            f"{fewest} to {most} launches of {plan.effort.rounds} rounds, until {percent(plan.rule.precision)} precise"
        )
    if plan.budget is not None:
        said += f"; {exact_duration(plan.budget)} in all"
    if plan.case_budget is not None:
        said += f"; {exact_duration(plan.case_budget)} a case and backend"
    return said
