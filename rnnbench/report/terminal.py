"""What is shown at the end of a run: the times, what is missing, the warnings, and last the answer."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from rnnbench.report.answer import answer_section, markings
from rnnbench.report.data import ReportData
from rnnbench.report.devices import on_the_gpu_section
from rnnbench.report.facts import noise_section, stops_section
from rnnbench.report.latency import latency_section
from rnnbench.report.section import Item, Section, Toned, print_sections
from rnnbench.report.sections import (
    curves_section,
    leads_section,
    missing_section,
    threads_section,
    times_section,
    warnings_section,
)
from rnnbench.report.sweep import sweep_answer_section
from rnnbench.report.text import is_stand_in, workload_label
from rnnbench.report.to_accuracy import to_accuracy_section


def _heading(data: ReportData) -> Section:
    """What must be known before a number is read."""
    notes: list[Item] = [
        (Toned(workload_label(workload, source), "warning"), Toned(f"{source}; not the real rows", "warning"))
        for workload, source in data.sources.items()
        if is_stand_in(source)
    ]
    notes += [(Toned("disturbed", "warning"), Toned(note, "warning")) for note in data.disturbances]
    return Section("", [*markings(data), notes])


def _times(data: ReportData) -> list[Section]:
    return [times_section(data), latency_section(data), on_the_gpu_section(data)]


def render(console: Console, data: ReportData) -> None:
    """Print the report's sections in brief, the answer last: what stays on the screen.

    ValueError where the reference that is wanted is not in the records.
    """
    shown = [_heading(data)]
    shown += [leads_section(data)] if data.sweep else _times(data)
    shown += [threads_section(data), noise_section(data), stops_section(data), missing_section(data)]
    counted = [w for w in data.warnings if w.counts] if data.records else []
    shown += [curves_section(data), to_accuracy_section(data), warnings_section(counted)]
    print_sections(console, shown)
    console.print()
    if data.sweep:
        print_sections(console, [sweep_answer_section(data)])
    elif data.records or data.trainings or not data.epochs:
        print_sections(console, [answer_section(data)])


def text_of(data: ReportData, width: int) -> str:
    """What `render` prints, as plain text of so many columns."""
    text = StringIO()
    render(Console(file=text, width=width, color_system=None), data)
    return text.getvalue().rstrip()
