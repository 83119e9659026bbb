"""What `verify`, `list --contract` and `check` print for people. Without markup: brackets may be a name's."""

from __future__ import annotations

from rich.console import Console

from rnnbench.analysis.contention import Amounts, RunContention
from rnnbench.api.audit import Audited
from rnnbench.api.contract import ContractAnswer, contract_rows
from rnnbench.api.verify import Checked
from rnnbench.correctness.timing_audit import Finding
from rnnbench.model import Problem
from rnnbench.records.record import CheckRecord, Status
from rnnbench.report.grid import print_fitted
from rnnbench.units import number, percent


def print_contracts(console: Console, answers: dict[str, ContractAnswer], problem: Problem) -> None:
    """A table for each backend."""
    for name, answer in answers.items():
        print_fitted(console, (name, f"{problem.name} {problem.dtype}"), contract_rows(answer, problem))


def print_audit(console: Console, audited: Audited) -> None:
    """A line for each check of a backend, with the pass that is nearest to the limit or furthest over it."""
    rows = [
        (name, dtype, *_line(check, [f for f in found if f.check == check]))
        for (name, dtype), found in audited.findings.items()
        for check in dict.fromkeys(f.check for f in found)
    ]
    print_fitted(console, ("backend", "dtype", "check", "holds", "worst pass", "found", "limit", "what"), rows)
    for name, reason in (audited.reasons | audited.failures).items():
        console.print(f"{name}: {reason}", markup=False, highlight=False)
    every = [f for found in audited.findings.values() for f in found]
    console.print(f"{sum(f.ok for f in every)} of {len(every)} findings are within their limits.")


def _line(check: str, found: list[Finding]) -> tuple[str, ...]:
    worst = max(found, key=lambda f: float("inf") if f.value is None else f.value - f.limit)
    value = "none" if worst.value is None else f"{worst.value:.2g}"
    return check, "yes" if all(f.ok for f in found) else "NO", worst.pass_, value, f"{worst.limit:.2g}", worst.what


def print_checks(console: Console, checked: Checked) -> None:
    """A table with the array of each record that is nearest to its limit, and a last line with the verdict."""
    rows = [(record.case.key, record.backend, record.status, *worst(record)) for record in checked.records]
    print_fitted(console, ("case", "backend", "status", "worst array", "error", "limit"), rows)
    for record in checked.records:
        if record.reason is not None:
            console.print(f"{record.backend} on {record.case.key}: {record.reason}", markup=False, highlight=False)
    good = sum(record.status is Status.OK for record in checked.records)
    arrays = sum(len(record.errors) for record in checked.records)
    console.print(f"{good} of {len(checked.records)} answers agree with the oracle; {arrays} arrays were compared.")


def worst(record: CheckRecord) -> tuple[str, str, str]:
    """The array that is nearest to its limit, or furthest over it: name, error, limit."""
    if not record.errors:
        return "", "", ""
    infinity = float("inf")
    name, e = max(record.errors.items(), key=lambda i: infinity if i[1].error is None else i[1].error / i[1].limit)
    return name, "none" if e.error is None else f"{e.error:.1e}", f"{e.limit:.0e}"


def print_contention(console: Console, runs: list[RunContention]) -> None:
    """A table for each run: all of its turns, then those that others took most from. Of no quota nothing is said."""
    for run in runs:
        told = f"{run.turns} turns" if run.turns == run.of else f"{run.turns} of {run.of} turns"
        rows = [("all", "", f"{told}, {number(run.all.seconds)} s", run.all)]
        rows += [(turn.case, turn.backend, turn.moment, turn.amounts) for turn in run.worst]
        taken = [_taken(amounts) for *_, amounts in rows]
        if not run.all.throttled:
            taken = [{name: text for name, text in each.items() if name != "throttled"} for each in taken]
        cells = [(*row[:3], *each.values()) for row, each in zip(rows, taken, strict=True)]
        title = f"Taken from the turns of {run.run_id} by other programs"
        print_fitted(console, ("case", "backend", "turn", *taken[0]), cells, title)


def _taken(amounts: Amounts) -> dict[str, str]:
    """What is not known is empty."""
    shares = {name: getattr(amounts, name) for name in ("waited", "others", "stolen", "throttled")}
    said = {name: "" if share is None else percent(share, 1) for name, share in shares.items()}
    switches = "" if amounts.involuntary_switches is None else f"{amounts.involuntary_switches:,}"
    probe = "" if amounts.slowed is None else f"{1 + amounts.slowed:.2f}x"
    return {"waited": said.pop("waited"), "switches": switches, **said, "probe": probe}
