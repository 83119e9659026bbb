"""A history as a page: the answer, each case's time run after run against its first level, a table for each line."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from rnnbench.analysis.changepoints import LEVEL, MIN_RUNS
from rnnbench.analysis.history import DatedRun, Line, RunPoint, in_order
from rnnbench.model import Pass
from rnnbench.report import html, interactive
from rnnbench.report.data import by_times
from rnnbench.report.history import Origins, changed_text, history_items, line_table, step_tone, titles_of
from rnnbench.report.interactive import Interactive, short_number
from rnnbench.report.section import Figure, Item, Markdown, Section, Toned, table
from rnnbench.report.text import Labels, ratio_text, with_interval
from rnnbench.units import unit_for

MAX_DRAWN = 100  # runs of a panel, the last
MAX_ROWS = 3000  # of all tables of single runs together
JUDGED = f"""\
A line is one case of one backend over the runs that measured the same work on the same machine with the same versions.
A *step* is a change of level by more than the margin that fewer than {100 * LEVEL:.0f} in 100 lines without one would
show, by ranks, looked for from {MIN_RUNS} runs on in the last 100. The figure divides each time by the median of the
line's first level, so that lines of very different times share an axis."""


def history_page(lines: Sequence[Line], origins: Origins, margin: float, notes: Sequence[str] = ()) -> str:
    """The whole file."""
    labels = Labels({}, len({line.case.dtype for line in lines}) > 1)
    backends = _order(lines)
    runs = in_order(point.run for line in lines for point in line.points)
    steps, ground = history_items(lines, origins, margin, notes)
    stepped = any(line.steps for line in lines)
    lead = Toned(_lead([line.steps[-1].ratio for line in lines if line.steps]), "lead")
    span: list[Item] = [("Runs", f"{len(runs)}, {_span(runs)}.")]
    answer = Section("Answer", [lead, steps, [*span, *ground], Figure("stepped" if stepped else "history")])
    every = [Figure("history")] if stepped else []
    most = max(2, MAX_ROWS // max(1, len(lines)))
    titles = titles_of(lines)
    tables = [
        Section(title, [line_table(line, most)], folded=True, keys=labels.keys(line.case) | {"backend": line.backend})
        for title, line in zip(titles, lines, strict=True)
    ]
    cut: list[Item] = [("", f"Of each line the last {most} runs; tables/history.csv has all.")]
    shown = [
        answer,
        Section("Now and at first", [*every, _overview(lines, labels, backends)]),
        Section("Run by run", [*([cut] if any(len(line.points) > most for line in lines) else []), *tables]),
        Section("How this is judged", [Markdown(JUDGED)], folded=True),
    ]
    return html.document(shown, f"history of {len(runs)} runs", _script(lines, runs, labels, backends))


def _lead(ratios: Sequence[float]) -> str:
    """`1 case became slower, 2 became faster.`, by the last step of each line."""
    slower, faster = sum(ratio > 1 for ratio in ratios), sum(ratio <= 1 for ratio in ratios)
    said = [
        f"{n} {'case' if n == 1 else 'cases'} became {what}"
        for n, what in ((slower, "slower"), (faster, "faster"))
        if n
    ]
    return f"{', '.join(said) or 'No step was found'}."


def _span(runs: Sequence[DatedRun]) -> str:
    """`2026-01-01 to 2026-01-12, commits abc1234 to def5678`."""
    days = [run.started[:10] for run in runs if run.started]
    commits = [run.version for run in runs if run.commit]
    said = [f"{days[0]} to {days[-1]}"] if days else []
    return ", ".join([*said, *([f"commits {commits[0]} to {commits[-1]}"] if commits else [])]) or "of unknown dates"


def _order(lines: Sequence[Line]) -> list[str]:
    """All backends, by their times over the fastest's in each case, as a report has them."""
    cases: dict[str, dict[str, float]] = {}
    for line in lines:
        cases.setdefault(line.case.key, {}).setdefault(line.backend, line.points[-1].time.value)
    return by_times(cases.values(), (line.backend for line in lines))


def _overview(lines: Sequence[Line], labels: Labels, backends: Sequence[str]) -> Any:
    """A row for each line: the last step, its first and its last time."""
    cases, rows = list(dict.fromkeys(line.case.key for line in lines)), []
    lines = sorted(lines, key=lambda line: (cases.index(line.case.key), backends.index(line.backend)))
    for line in lines:
        first, last = line.points[0], line.points[-1]
        unit = unit_for(point.time.value for point in (first, last))
        times = [f"{with_interval(point.time, unit.seconds)} {unit.name}" for point in (first, last)]
        ratio = ratio_text(last.time.value / first.time.value) if len(line.points) > 1 else ""
        step = Toned(changed_text(line.steps[-1]), step_tone(line.steps[-1])) if line.steps else ""
        named = labels.of(line.case), line.backend, line.machine, f"{len(line.points)}"
        rows.append([*named, step, ratio, *times])
    header = ("case", "backend", "machine", "runs", "last step", "now / first", "at first", "now")
    made = table(header, rows)
    if len({line.machine for line in lines}) == 1:
        made = made.drop(columns=["machine"])
    made.attrs["keys"] = [labels.keys(line.case) for line in lines]
    return made


def _script(lines: Sequence[Line], runs: Sequence[DatedRun], labels: Labels, backends: Sequence[str]) -> Interactive:
    drawn = list(runs[-MAX_DRAWN:])
    places = {run.id: i for i, run in enumerate(drawn)}
    groups: dict[str, list[Line]] = {}
    for line in lines:
        groups.setdefault(line.case.key, []).append(line)
    networks, passes = list(dict.fromkeys(labels.keys(line.case)["network"] for line in lines)), list(Pass)
    panels = [_panel(group, labels, places, backends) for group in groups.values()]
    panels.sort(key=lambda p: (networks.index(p["keys"]["network"]), passes.index(p["keys"]["pass"])))
    stepped = [panel for panel in panels if any(line["steps"] for line in panel["lines"])]
    x = {"label": "run", "form": "count", "log": False, "names": [run.version for run in drawn],
         "said": [f"{run.id}, {run.started[:10]}, {run.version}" for run in drawn]}  # fmt: skip
    y = {"label": "", "form": "ratio", "log": True, "narrowest": 1.2}
    spec = {"kind": "lines", "x": x, "y": y}
    label = "Time against its first level, run after run: down is faster"
    figures = {"history": spec | {"label": label, "panels": panels}}
    if stepped:
        figures["stepped"] = spec | {"label": f"{label}; cases with a step", "panels": stepped}
    keys = [labels.keys(line.case) for line in lines]
    results = [key | {"backend": line.backend} for key, line in zip(keys, lines, strict=True)]
    choices = interactive.chosen_from(keys, ("network", "cell", "dtype", "pass"))
    return Interactive(backends, choices, results, figures)


def _panel(group: Sequence[Line], labels: Labels, places: dict[str, int], backends: Sequence[str]) -> dict[str, Any]:
    """One case: a line for each backend, and for each machine that its runs are of."""
    drawn = []
    several = len({line.machine for line in group}) > 1
    for line in sorted(group, key=lambda line: backends.index(line.backend)):
        end = line.steps[0].index if line.steps else len(line.points)
        level = median(point.time.value for point in line.points[:end])
        points = [_point(p, places[p.run.id], level) for p in line.points if p.run.id in places]
        steps = [
            [places[run.id], changed_text(step)] for step in line.steps if (run := line.around(step)[1]).id in places
        ]
        name = f"{line.backend}{f', {line.machine}' if several else ''}"
        if points:
            drawn.append({"backend": line.backend, "name": name, "points": points, "steps": steps})
    return {"title": labels.of(group[0].case), "keys": labels.keys(group[0].case), "lines": drawn}


def _point(p: RunPoint, place: int, level: float) -> list[Any]:
    """Where it is, the value with its interval, and what is said of it."""
    unit = unit_for([p.time.value])
    values = [short_number(v / level) for v in (p.time.value, p.time.low, p.time.high)]
    said = f"{with_interval(p.time, unit.seconds)} {unit.name}, {ratio_text(p.time.value / level)}"
    return [place, *values, said]
