"""What is shown at the end of a run: the answer of each case, how sure that is, the times, what is missing."""

from __future__ import annotations

from rich.console import Console

from rnnbench.report import gpu, sections, sweep
from rnnbench.report.data import ReportData
from rnnbench.report.section import Block, Item, Section, Toned, show
from rnnbench.report.text import QUICK, is_stand_in, workload_label


def _heading(data: ReportData) -> Section:
    """What must be known before a number is read."""
    marks: list[Block] = [Toned(text, "severe") for text in (data.quick and QUICK.upper(), data.unlike) if text]
    notes: list[Item] = [
        (Toned(workload_label(workload, source), "warning"), Toned(f"{source}; not the real rows", "warning"))
        for workload, source in data.sources.items()
        if is_stand_in(source)
    ]
    notes += [(Toned("disturbed", "warning"), Toned(note, "warning")) for note in data.disturbances]
    return Section("", [*marks, notes])


def render(console: Console, data: ReportData) -> None:
    """Print the report's sections in brief. ValueError where the reference that is wanted is not in the records."""
    shown = [_heading(data)]
    if data.records or not data.epochs:
        shown.append(sections.answer(data))
    shown += [sweep.sweep_answer(data)] if data.sweep else [sections.times(data), gpu.on_the_gpu(data)]
    shown += [section(data) for section in (sections.noise, sections.stops, sections.missing, sections.curves)]
    show(console, [*shown, sections.warnings([w for w in data.warnings if w.counts] if data.records else [])])
