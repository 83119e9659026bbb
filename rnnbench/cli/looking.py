"""`list`, `report`, `compare`, `warm` and `env`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from rnnbench import backends, workloads
from rnnbench.cli.shell import (
    allowed_threads,
    complain,
    console_of,
    given,
    guarded,
    print_json,
    print_table,
    say,
)
from rnnbench.cli.training import SEEDS
from rnnbench.commands.names import FolderType
from rnnbench.commands.options import (
    BACKEND,
    BACKENDS,
    DTYPE,
    DTYPES,
    GATE,
    JSON,
    THREADS,
    TIMEOUT,
    WORDS,
    WORKLOAD,
    options,
    several,
)
from rnnbench.model import DType, Pass


@click.command("list")
@click.option("--contract", is_flag=True, help="Show what each backend has inside the clock; imports all of them.")
@several("--backend", "-b", "names", type=BACKENDS, help="With --contract. Default: all that are not on request.")
@click.option("--workload", "-w", type=WORKLOAD, help="With --contract: whose sizes. Default: imdb-50.")
@click.option("--dtype", type=DTYPE, help="With --contract. Default: float32.")
@options(TIMEOUT, JSON)
@click.pass_context
def list_(
    ctx: click.Context,
    contract: bool,
    names: tuple[str, ...] | None,
    workload: str | None,
    dtype: str | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Show the workloads and backends, and how to get what is missing.

    \b
    Examples:
      python -m rnnbench list
      python -m rnnbench list --json
      python -m rnnbench list --contract -b numba,jax -w imdb-200
    """
    if contract:
        guarded(lambda: _contracts(names or tuple(backends.usual()), workload or "imdb-50", dtype, timeout, as_json))
    for option in given(ctx, {"contract", "as_json"}):
        flag = option.opts[0]
        raise click.UsageError(f"{flag} belongs to --contract; give that too, or leave {flag} out")
    tasks = {name: workloads.get(name) for name in workloads.REGISTRY}
    answers = {name: (entry.summary, backends.missing(name)) for name, entry in backends.REGISTRY.items()}
    if as_json:
        print_json(
            {
                "workloads": {
                    name: {"summary": w.summary, "B": w.B, "T": w.T, "epochs": w.epochs, "stand_in": w.stand_in,
                           "expect": w.expect, "shapes": w.model.shapes}
                    for name, w in tasks.items()
                },
                "backends": {name: {"summary": text, "missing": why} for name, (text, why) in answers.items()},
                "passes": list(Pass),
                "dtypes": list(DType),
                "seeds": SEEDS,
            }
        )  # fmt: skip
        return
    print_table(
        ("workload", "what it is"), [(n, "; ".join(filter(None, (w.summary, w.expect)))) for n, w in tasks.items()]
    )
    print_table(("backend", "what it is", "here"), [(n, text, why or _here(n)) for n, (text, why) in answers.items()])


def _here(name: str) -> str:
    """What is known of an installed backend without starting it."""
    return "installed; needs an NVIDIA GPU" if backends.REGISTRY[name].gpu else "ready"


def _contracts(names: tuple[str, ...], workload: str, dtype: str | None, timeout: float, as_json: bool) -> int:
    """What `list --contract` prints; 3 where no backend could tell."""
    from rnnbench.commands import contract as telling
    from rnnbench.harness.plan import problem_of

    problem = problem_of(workloads.get(workload), DType(dtype or DType.FLOAT32), None)
    with console_of(stderr=True).status(f"importing {', '.join(names)}"):
        told = telling.ask(names, problem, allowed_threads(None), timeout)
    if as_json:
        print_json(telling.as_json(told, problem))
    else:
        telling.show(console_of(), told, problem)
    return 0 if any(t.contract for t in told.values()) else 3


@click.command()
@click.argument("folder", type=FolderType())
@click.option("--reference", type=BACKEND, help="Whom speed-ups are relative to.")
@click.option("--svg", is_flag=True, help="The figures as SVG too, for print and slides.")
@click.option("--export", "form", type=click.Choice(["github", "bencher"]),
              help="Write nothing; print JSON for a tracker: github-action-benchmark's customSmallerIsBetter, or "
              "Bencher Metric Format.")  # fmt: skip
def report(folder: Path, reference: str | None, svg: bool, form: str | None) -> None:
    """Write the report of a run's folder again: report.md, tables and figures.

    \b
    Examples:
      python -m rnnbench report reports/mine
      python -m rnnbench report reports/mine --reference jax --svg
      python -m rnnbench report reports/mine --export bencher > bencher.json

    \b
    Exit codes:
      0  written, or with --export printed
      2  an option or argument is wrong
      3  with --export: no right time to print
      4  the run cannot be read, or the report not written
      70  a fault of rnnbench itself; RNNBENCH_TRACEBACK=1 in the environment shows where
    """
    from rnnbench.records import store

    if svg and form is not None:
        raise click.UsageError("--export writes no figures; leave out --svg")

    def work() -> int:
        loaded = store.load(folder)
        for problem in loaded.problems:
            say(problem, err=True)
        if loaded.problems and not (loaded.records or loaded.curves):
            raise store.StoreError(f"{folder} holds no record that can be read; its report stays as it is")
        if form is not None:
            return _exported(form, loaded)
        if not (loaded.records or loaded.curves or store.is_run(folder)):
            raise store.StoreError(f"{folder} holds no run: no record in it can be read; no report was written")
        from rnnbench.report.context import Context
        from rnnbench.report.page import write_report
        from rnnbench.report.terminal import render

        chosen = reference or loaded.run.get("reference")
        context = Context(loaded.records, loaded.curves, loaded.machine, loaded.run, chosen)
        try:
            write_report(folder, context, vector=svg, processes=allowed_threads(None))
        except OSError as error:
            raise store.StoreError(f"the report cannot be written to {folder}: {error.strerror}") from error
        render(console_of(), context)
        say(f"Report: {folder / 'report.md'}")
        return 0

    guarded(work)


def _exported(form: str, loaded: Any) -> int:
    """Print for a tracker; what is left out is said beside it."""
    from rnnbench.report.export import export

    printed, left = export(form, loaded.records, loaded.machine)
    for text in left:
        say(f"left out: {text}", err=True)
    if not printed:
        return complain("no right time to print", 3)
    print_json(printed)
    return 0


COMPARE_EPILOG = """\b
Examples:
  python -m rnnbench compare reports/before reports/after
  python -m rnnbench compare reports/before reports/after --fail-on median:10% -k "numba train_step"
  python -m rnnbench compare base.jsonl new.jsonl --require-baseline --markdown
  python -m rnnbench compare reports/before reports/after --fail-on median:10%,inconclusive
  python -m rnnbench compare reports/before reports/after --noise reports/aa

\b
Verdicts, by the ratio NEW / BASE and its 95 % interval over process launches:
  slower          surely not equal (among all cases no more than 5 % of such calls are wrong), and the ratio is
                  above 1 + PERCENT
  faster          the same in the other direction
  same            the whole interval is within PERCENT
  inconclusive    neither: more launches or a quieter machine would tell
  not comparable  unlike work, threads, dtype, machine or versions, each named; or one side failed
  missing         on one side

\b
Exit codes:
  0  no case is slower, as far as can be told
  1  a case is slower
  2  an option or argument is wrong
  3  no case could be compared: unlike, failed, missing, or fewer than 3 launches
  4  a run cannot be read, or the answer not written
  5  no case is slower, but one is wrong, crashed, hung or ran out of memory in NEW
  6  with --require-baseline: a case that NEW timed has nothing in BASE to be held against
  7  with --fail-on inconclusive: a case is inconclusive
  70  a fault of rnnbench itself; RNNBENCH_TRACEBACK=1 in the environment shows where
Where several hold, the first of 1, 5, 6, 3 and 7.
"""


@click.command(epilog=COMPARE_EPILOG)
@click.argument("base")
@click.argument("new")
@click.option("--fail-on", type=GATE, multiple=True, metavar="METRIC:PERCENT|inconclusive",
              help="What counts as slower: median, min or mean of the calls of a turn, and by how much. "
                   "Default: median, by the noise of this machine where an A/A run told it, else by 5%. "
                   "inconclusive: also fail, with 7, where a case is neither slower, faster nor the same.")  # fmt: skip
@click.option("--noise", metavar="RUN", help="The A/A run (run --aa) whose noise is the margin. Default: the newest "
              "of this machine beside NEW and BASE.")  # fmt: skip
@click.option("--require-baseline", is_flag=True, help="Fail where a case of NEW has nothing to be held against.")
@click.option("--markdown", is_flag=True, help="Print Markdown, for a pull request.")
@options(WORDS, JSON)
def compare(
    base: str,
    new: str,
    fail_on: tuple[tuple[Any, ...], ...],
    noise: str | None,
    require_baseline: bool,
    markdown: bool,
    filter_: str,
    as_json: bool,
) -> None:
    """Say for each case whether the run NEW is slower than the run BASE, and how sure that is.

    BASE and NEW are folders of runs, ids of runs under reports, or files of records.
    """
    from rnnbench.analysis.compare import Gate
    from rnnbench.commands.compare import compared
    from rnnbench.report import compare as shown

    asked = [one for each in fail_on for one in each]
    gates = [one for one in asked if isinstance(one, Gate)]
    if len(gates) > 1:
        raise click.UsageError(f"--fail-on gives both {gates[0]} and {gates[1]}; choose one of them")
    gate = gates[0] if gates else None
    if noise is not None and gate is not None:
        raise click.UsageError("--noise and --fail-on both give the margin; choose one of them")
    if markdown and as_json:
        raise click.UsageError("--markdown and --json are two forms of one answer; choose one of them")

    def work() -> int:
        found = compared(base, new, gate, filter_, lambda text: say(text, err=True), noise)
        answer = found.findings, found.gate, found.notes
        if as_json:
            print_json(shown.as_json(*answer))
        elif markdown:
            say(shown.markdown(*answer), nl=False)
        else:
            shown.render(console_of(), *answer)
        return found.code(require_baseline, len(asked) > len(gates))

    guarded(work)


@click.command()
@several("--dtype", "dtypes", type=DTYPES, help="Comma-separated. Default: float32.")
def warm(dtypes: tuple[str, ...] | None) -> None:
    """Compile our kernels now and keep them on disk, so that nobody waits later.

    A run measures what compiling costs and keeps its own; `train`, `verify`, `seeds` and your programs profit.

    \b
    Examples:
      python -m rnnbench warm
      python -m rnnbench warm --dtype float32,float64
    """
    from rnnbench.commands import warm as warming

    def work() -> int:
        warming.run(tuple(DType(d) for d in dtypes or (DType.FLOAT32,)), console_of(stderr=True))
        return 0

    guarded(work)


@click.command()
@click.option("--peak", is_flag=True, help="Also measure multiply-adds and bytes a second, which takes seconds.")
@options(THREADS, JSON)
def env(peak: bool, threads: int | None, as_json: bool) -> None:
    """Show this machine as a run would record it.

    \b
    Examples:
      python -m rnnbench env
      python -m rnnbench env --json
      python -m rnnbench env --peak
    """
    from rnnbench.harness.computing import computing
    from rnnbench.machine.fingerprint import fingerprint
    from rnnbench.machine.interference import Watch
    from rnnbench.machine.peak import PeakUnknown, measure
    from rnnbench.report import machine
    from rnnbench.report.peak import lines

    cores, start, found = allowed_threads(threads), Watch().start, None
    facts = {**fingerprint(), "start": start, "workers": computing(cores)}
    if peak:
        try:
            found = measure(tuple(DType), cores)
        except PeakUnknown as error:
            sys.exit(complain(str(error), 3))
        facts["peak"] = asdict(found)
    if as_json:
        print_json(facts)
        return
    shown = [*machine.lines({key: value for key, value in facts.items() if key != "peak"})]
    if found:
        shown += [("peak", found.method), *((f"peak {name}", text) for name, text in lines(found))]
    print_table(("fact", "value"), shown)
