"""Many runs in order of time: a line for each case and backend, of runs that measured the same on the same machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from rnnbench.analysis.changepoints import Step, steps
from rnnbench.analysis.comparable import Side, differences
from rnnbench.analysis.stats import Interval, Summary, summaries
from rnnbench.model import Case
from rnnbench.records.record import Mode, Record
from rnnbench.records.store import Loaded


@dataclass(frozen=True)
class DatedRun:
    """One run. `started` is ISO 8601 or "" where it is unknown, `commit` None."""

    id: str
    place: str
    started: str
    commit: str | None
    dirty: bool
    side: Side

    @property
    def quick(self) -> bool:
        """Whether it is a smoke test."""
        return any(r.mode is Mode.QUICK for r in self.side.records)

    @property
    def version(self) -> str:
        """Its commit in seven digits, + where files were changed; "?" where it is not known."""
        return f"{self.commit[:7]}{'+' if self.dirty else ''}" if self.commit else "?"


@dataclass(frozen=True)
class RunPoint:
    """What one run says of a case: seconds a call with the interval over its launches."""

    run: DatedRun
    summary: Summary

    @property
    def time(self) -> Interval:
        """The time of a right answer: only those are on a line."""
        assert self.summary.time is not None
        return self.summary.time


@dataclass(frozen=True)
class Line:
    """One case of one backend, run after run. `apart` names what keeps it from the line before it."""

    case: Case
    backend: str
    points: tuple[RunPoint, ...]
    apart: tuple[str, ...] = ()
    steps: tuple[Step, ...] = field(default=())

    @property
    def machine(self) -> str:
        """The id of the machine of its last run."""
        return self.points[-1].summary.records[0].machine_id

    def around(self, step: Step) -> tuple[DatedRun, DatedRun]:
        """The runs before and after a step."""
        return self.points[step.index - 1].run, self.points[step.index].run


def runs_of(loaded: Loaded, place: str, *, pooled: bool = False) -> list[DatedRun]:
    """The runs in a folder: one, or several that were merged there. What is not known of a merged one stays so.

    `pooled`: several that the user wants to see as one.
    """
    groups: dict[str, list[Record]] = {}
    for record in loaded.records:
        groups.setdefault(str(loaded.run["run_id"]) if pooled else record.run_id, []).append(record)
    single = len(groups) == 1
    found = []
    for run_id, records in groups.items():
        known = single or run_id == loaded.run.get("run_id")
        same = {r.machine_id for r in records} == {loaded.machine.get("machine_id")}
        machine = loaded.machine if known or same else {}
        git = (loaded.machine.get("git") if known else None) or {}
        started = str(loaded.run.get("started") or "") if known else ""
        started = started or min((r.started for r in records if r.started), default="")
        found.append(
            DatedRun(run_id, place, started, git.get("commit"), bool(git.get("dirty")), Side(records, machine))
        )
    return found


def in_order(runs: Iterable[DatedRun]) -> list[DatedRun]:
    """The runs by time, each once: of one that lies in several folders the first."""
    once: dict[str, DatedRun] = {}
    for run in runs:
        once.setdefault(run.id, run)
    return sorted(once.values(), key=lambda run: (run.started, run.id))


def lines_of_runs(runs: Sequence[DatedRun], margin: float) -> list[Line]:
    """A line for each case and backend, and one more for each machine or way of working that is unlike the others."""
    apart: dict[tuple[str, str], list[Line]] = {}
    for run in runs:
        for summary in summaries(run.side.records):
            if summary.ranked:
                _add(apart.setdefault((summary.case.key, summary.backend), []), RunPoint(run, summary))
    found = [line for group in apart.values() for line in group]
    return [replace(line, steps=steps([point.time.value for point in line.points], margin)) for line in found]


def _add(group: list[Line], point: RunPoint) -> None:
    """Put a point on the last line of its group that it is comparable with, else on a new one."""
    unlike: list[str] = []
    for i in reversed(range(len(group))):
        last = group[i].points[-1]
        sides = (Side(p.summary.records, p.run.side.machine) for p in (last, point))
        found = differences(point.summary.backend, *sides)
        if not found:
            group[i] = replace(group[i], points=(*group[i].points, point))
            return
        unlike = unlike or found
    group.append(Line(point.summary.case, point.summary.backend, (point,), tuple(unlike)))
