"""A history for people and programs: tables for the terminal and for a page, figures, JSON, CSV."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnbench.analysis.changepoints import LEVEL, Step
from rnnbench.analysis.history import Line, RunPoint
from rnnbench.records.folder import refuse_foreign
from rnnbench.report.section import Item, Section, Toned, markdown, table
from rnnbench.report.text import Labels, ratio_text, with_interval
from rnnbench.units import unit_for

if TYPE_CHECKING:
    import pandas as pd

PAGE, WHOLE, TITLE = "history.md", "history.html", "# rnnbench: history"
Origins = dict[tuple[int, int], str]  # line and step -> the commit it came with, in words
MAX_SINGLE = 12  # lines of one run each that the terminal shows as tables


def titles_of(lines: Sequence[Line]) -> list[str]:
    """Case and backend of each line; the machine too where there are several lines of them."""
    labels = Labels({}, len({line.case.dtype for line in lines}) > 1)
    counts = Counter((line.case.key, line.backend) for line in lines)
    return [
        f"{labels.of(line.case)} {line.backend}"
        f"{f', machine {line.machine}' if counts[line.case.key, line.backend] > 1 else ''}"
        for line in lines
    ]


def changed_text(step: Step | None) -> str:
    """`slower, 1.12x`."""
    return f"{'slower' if step.ratio > 1 else 'faster'}, {ratio_text(step.ratio)}" if step else ""


def step_tone(step: Step) -> str:
    """The tone of what is said of a step."""
    return "severe" if step.ratio > 1 else "best"


def line_table(line: Line, most: int | None = None) -> pd.DataFrame:
    """A row for each run, of the last `most`: id, date, commit, time with interval, and the step that it begins."""
    unit = unit_for(point.time.value for point in line.points)
    begun = {step.index: step for step in line.steps}
    rows = [
        [point.run.id, point.run.started[:16].replace("T", " "), point.run.version,
         f"{with_interval(point.time, unit.seconds)} {unit.name}", changed_text(begun.get(i))]
        for i, point in enumerate(line.points)
    ]  # fmt: skip
    return table(("run", "date", "commit", "time", "change"), rows[-(most or len(rows)) :])


def history_items(
    lines: Sequence[Line], origins: Origins, margin: float, notes: Sequence[str] = ()
) -> tuple[list[Item], list[Item]]:
    """Each step, with the commit that it came with; the notes, and how steps were judged."""
    titles = titles_of(lines)
    steps: list[Item] = [
        (
            titles[i],
            Toned(changed_text(step), "severe" if step.ratio > 1 else "best"),
            f"(p {step.p:.2g}), {origins[i, j]}",
        )
        for i, line in enumerate(lines)
        for j, step in enumerate(line.steps)
    ]
    how = (
        f"{len(lines)} {'line' if len(lines) == 1 else 'lines'}; a step is a change of level by more than "
        f"{100 * margin:.3g} % that fewer than {100 * LEVEL:.0f} in 100 lines of no step would show"
    )
    return steps, [("", text) for text in (*notes, how)]


def history_sections(
    lines: Sequence[Line], origins: Origins, margin: float, notes: Sequence[str] = ()
) -> tuple[list[Section], Section, list[str]]:
    """A table for each line; what changed, by how much and where, and how that was judged; the titles of the tables."""
    titles = titles_of(lines)
    steps, ground = history_items(lines, origins, margin, notes)
    items = [*(steps or [("", "no step was found")]), *ground]
    single = sum(len(line.points) == 1 for line in lines)
    hidden = single if single > MAX_SINGLE else 0
    tables = [
        Section(name, [shown := line_table(line)], [] if hidden and len(line.points) == 1 else [shown])
        for name, line in zip(titles, lines, strict=True)
    ]
    unseen: list[Item] = [("", f"{hidden} lines hold one run each and are not shown; -o writes them all")]
    return tables, Section("", [items], [[*(unseen if hidden else []), *items]]), titles


def _time(point: RunPoint) -> dict[str, float | None]:
    interval = {"seconds": point.time.value, "low": point.time.low, "high": point.time.high}
    return {name: value if math.isfinite(value) else None for name, value in interval.items()}


def _frame(lines: Sequence[Line]) -> pd.DataFrame:
    """One row for each run of each line, seconds a call."""
    import pandas as pd

    rows = []
    for line in lines:
        begun = {step.index: step for step in line.steps}
        for i, point in enumerate(line.points):
            run, step = point.run, begun.get(i)
            rows.append(
                {
                    "case": line.case.key, "backend": line.backend, "machine_id": point.summary.records[0].machine_id,
                    "run": run.id, "place": run.place, "started": run.started, "commit": run.commit,
                    "dirty": run.dirty, **_time(point),
                    "step_ratio": step.ratio if step else None, "step_p": step.p if step else None,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def history_json(lines: Sequence[Line], origins: Origins, margin: float, notes: Sequence[str] = ()) -> dict[str, Any]:
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


def write_history(
    folder: Path, lines: Sequence[Line], origins: Origins, margin: float, notes: Sequence[str] = ()
) -> list[Path]:
    """Write `history.html`, `history.md`, `tables/history.csv` and the figures; the paths. OSError where it cannot.

    A page of another origin is not written over, which is an OSError too.
    """
    from rnnbench.report import html, plots
    from rnnbench.report.history_page import history_page
    from rnnbench.report.plots.history import pages
    from rnnbench.report.style import own_style

    whole = folder / WHOLE
    refuse_foreign(folder / PAGE, TITLE)
    if os.path.lexists(whole):
        refuse_foreign(whole, html.FIRST)
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    tables, summary, titles = history_sections(lines, origins, margin, notes)
    names = dict(zip(map(id, lines), titles, strict=True))
    with own_style():
        made = pages(lines, lambda line: names[id(line)])
    saved = [plots.save(folder / "figures", one, vector=True) for one in made]
    embedded = [plots.embedded(paths, folder, one.alt) for paths, one in zip(saved, made, strict=True)]
    csv, written = folder / "tables" / "history.csv", folder / PAGE
    _frame(lines).to_csv(csv, index=False, errors="replace")
    whole.write_text(history_page(lines, origins, margin, notes), encoding="utf-8", errors="replace")
    link = f"[**The same as a page with filters**]({WHOLE})"
    text = "\n\n".join([TITLE, markdown([summary], {}), link, *embedded, markdown(tables, {})])
    written.write_text(f"{text}\n", encoding="utf-8", errors="replace")
    return [whole, written, csv, *(path for paths in saved for path in paths)]
