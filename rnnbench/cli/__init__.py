"""The command line: parse, call, print. What computes is imported inside the commands, so that `--help` is quick."""

from __future__ import annotations

from typing import Any

import click

from rnnbench import __version__
from rnnbench.cli import check, compare, env, history, report, run, seeds, sweep, train, verify, warm
from rnnbench.cli import list as list_
from rnnbench.cli.shell import Command
from rnnbench.names import unknown


class Group(Command, click.Group):
    """Commands, with the nearest right one for a wrong one."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if self.get_command(ctx, args[0]) is None:
            ctx.fail(unknown("command", args[0], self.list_commands(ctx)))
        return super().resolve_command(ctx, args)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="rnnbench")
def main() -> None:
    """How fast can a recurrent network run on this machine, and whose implementation should I use?

    \b
    Examples:
      python -m rnnbench run                      check and time all backends, write a report
      python -m rnnbench run --quick              the same as a smoke test
      python -m rnnbench sweep                    time and share of peak against size
      python -m rnnbench list                     workloads and backends, and what is missing
      python -m rnnbench verify -w rows.npz       compare backends with the oracle, on your rows
      python -m rnnbench train imdb-50            train on real reviews
      python -m rnnbench report reports/RUN       write a report again
      python -m rnnbench compare BASE NEW         is the run NEW slower than the run BASE?
      python -m rnnbench history                  all runs in order of time, and where a case changed
      python -m rnnbench check reports/RUN        the warnings of a run, each with a remedy
    """


for _command in (
    run.run,
    list_.list_,
    verify.verify,
    train.train,
    seeds.seeds,
    sweep.sweep,
    report.report,
    compare.compare,
    check.check,
    history.history,
    env.env,
    warm.warm,
):
    main.add_command(_command)
