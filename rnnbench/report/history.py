"""A history for people and programs: tables for the terminal and for a page, figures, JSON, CSV."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnbench.analysis.changepoints import LEVEL, Step
from rnnbench.analysis.history import Line, RunPoint
from rnnbench.records.folder import refuse_foreign
from rnnbench.report.markdown import escape, figure, marked, table
from rnnbench.report.text import FOOTNOTES, Labels, times, unit_for, with_interval

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

PAGE, TITLE = "history.md", "# rnnbench: history"
Origins = dict[tuple[int, int], str]  # line and step -> the commit it came with, in words
MOST_ALONE = 12  # lines of one run each that are shown as tables
HEADER = ("run", "date", "commit", "time", "change")


def labels_of(lines: Sequence[Line]) -> Labels:
    """How the cases are called."""
    return Labels({}, len({line.case.dtype for line in lines}) > 1)


def title(line: Line, labels: Labels, lines: Sequence[Line]) -> str:
    """Case and backend; the machine too where there are several lines of them."""
    several = sum(other.case.key == line.case.key and other.backend == line.backend for other in lines) > 1
    return f"{labels.of(line.case)} {line.backend}{f', machine {line.machine}' if several else ''}"


def rows(line: Line) -> Iterator[tuple[str, ...]]:
    """One for each run: id, date, commit, time with interval, and the step that it begins."""
    unit = unit_for(point.time.value for point in line.points)
    begun = {step.index: step for step in line.steps}
    for i, point in enumerate(line.points):
        step = begun.get(i)
        when = point.run.started[:16].replace("T", " ")
        time = f"{with_interval(point.time, unit.seconds)} {unit.name}"
        yield point.run.id, when, point.run.version, time, changed(step) if step else ""


def changed(step: Step) -> str:
    """`slower, 1.12x`."""
    return f"{'slower' if step.ratio > 1 else 'faster'}, {times(step.ratio)}"


def sentences(lines: Sequence[Line], origins: Origins) -> list[str]:
    """One for each step: what changed, by how much, where."""
    labels = labels_of(lines)
    found = [
        f"{title(line, labels, lines)}: {changed(step)} (p {step.p:.2g}), {origins[i, j]}"
        for i, line in enumerate(lines)
        for j, step in enumerate(line.steps)
    ]
    return found or ["no step was found"]


def how(lines: Sequence[Line], margin: float) -> str:
    """What counts as a step, and how often chance makes one."""
    return (
        f"{len(lines)} {'line' if len(lines) == 1 else 'lines'}; a step is a change of level by more than "
        f"{100 * margin:.3g} % that fewer than {100 * LEVEL:.0f} in 100 lines of no step would show"
    )


def render(console: Console, lines: Sequence[Line], origins: Origins, margin: float, notes: Sequence[str] = ()) -> None:
    """Print a table for each line, then the steps and the notes. Many lines of one run each are only counted."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    labels, printed = labels_of(lines), ""
    alone = [line for line in lines if len(line.points) == 1]
    hidden = alone if len(alone) > MOST_ALONE else []
    for line in lines:
        if line in hidden:
            continue
        shown = Table(box=box.SIMPLE_HEAD, title=Text(title(line, labels, lines)), title_justify="left")
        for name in HEADER:
            shown.add_column(name, justify="right" if name == "time" else "left", no_wrap=True)
        for cells in rows(line):
            shown.add_row(*(Text(cell) for cell in cells))
            printed += cells[3]
        console.print(shown)
    feet = [f"{mark} {words}" for mark, words in FOOTNOTES.items() if mark in printed]
    if hidden:
        feet.append(f"{len(hidden)} lines hold one run each and are not shown; -o writes them all")
    for text in (*feet, *notes, *sentences(lines, origins), how(lines, margin)):
        console.print(Text(text))


def page(lines: Sequence[Line], origins: Origins, margin: float, notes: Sequence[str], figures: Sequence[str]) -> str:
    """Markdown: the steps, the figures, a table for each line."""
    labels = labels_of(lines)
    said = [*sentences(lines, origins), *notes, how(lines, margin)]
    parts = [TITLE, "\n".join(f"- {escape(text)}" for text in said), *figures]
    for line in lines:
        parts.append(f"## {escape(title(line, labels, lines))}")
        parts.append(marked(table(HEADER, [[escape(cell) for cell in cells] for cells in rows(line)])))
    return "\n\n".join(parts) + "\n"


def frame(lines: Sequence[Line]) -> pd.DataFrame:
    """One row for each run of each line, seconds a call."""
    import pandas as pd

    return pd.DataFrame([_fields(line, i, point) for line in lines for i, point in enumerate(line.points)])


def _fields(line: Line, index: int, point: RunPoint) -> dict[str, Any]:
    step = next((step for step in line.steps if step.index == index), None)
    return {
        "case": line.case.key,
        "backend": line.backend,
        "machine_id": point.summary.records[0].machine_id,
        "run": point.run.id,
        "place": point.run.place,
        "started": point.run.started,
        "commit": point.run.commit,
        "dirty": point.run.dirty,
        **_time(point),
        "step_ratio": step.ratio if step else None,
        "step_p": step.p if step else None,
    }


def _time(point: RunPoint) -> dict[str, float | None]:
    interval = {"seconds": point.time.value, "low": point.time.low, "high": point.time.high}
    return {name: value if math.isfinite(value) else None for name, value in interval.items()}


def as_json(lines: Sequence[Line], origins: Origins, margin: float, notes: Sequence[str] = ()) -> dict[str, Any]:
    """For programs; seconds a call, None for what is not known."""
    return {
        "margin": margin,
        "level": LEVEL,
        "notes": list(notes),
        "lines": [
            {
                "case": line.case.key,
                "backend": line.backend,
                "machine_id": line.machine,
                "apart": list(line.apart),
                "runs": [
                    {"run": p.run.id, "place": p.run.place, "started": p.run.started or None, "commit": p.run.commit,
                     "dirty": p.run.dirty, **_time(p)}
                    for p in line.points
                ],
                "steps": [
                    {"index": step.index, "run": line.points[step.index].run.id, "ratio": step.ratio, "p": step.p,
                     "came": origins[i, j]}
                    for j, step in enumerate(line.steps)
                ],
            }
            for i, line in enumerate(lines)
        ],
    }  # fmt: skip


def write(
    folder: Path, lines: Sequence[Line], origins: Origins, margin: float, notes: Sequence[str] = ()
) -> list[Path]:
    """Write `history.md`, `tables/history.csv` and the figures; the paths, the page first. OSError where it cannot.

    A page of another origin is not written over, which is an OSError too.
    """
    from matplotlib import rc_context

    from rnnbench.report import plots
    from rnnbench.report.plots.history import pages
    from rnnbench.report.style import RC

    refuse_foreign(folder / PAGE, TITLE)
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    names: Callable[[Line], str] = lambda line: title(line, labels_of(lines), lines)  # noqa: E731
    with rc_context(RC):
        made = pages(lines, names)
    saved = [plots.save(folder / "figures", one, vector=True) for one in made]
    embedded = [figure(paths, folder, one.alt) for paths, one in zip(saved, made, strict=True)]
    csv, written = folder / "tables" / "history.csv", folder / PAGE
    frame(lines).to_csv(csv, index=False, errors="replace")
    written.write_text(page(lines, origins, margin, notes, embedded), encoding="utf-8", errors="replace")
    return [written, csv, *(path for paths in saved for path in paths)]
