"""Warnings for readers: a section of the page, lines for the terminal, rows for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.text import Text

from rnnbench.analysis.warnings import Severity, Warned
from rnnbench.report.context import Context
from rnnbench.report.markdown import escape

_STYLES = {Severity.SEVERE: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "dim"}


def section(context: Context) -> list[str]:
    """Nothing where nothing was measured or seen."""
    if not context.records or not context.warnings:
        return []
    lines = [
        f"- **{w.severity}, {escape(w.title)}**: {escape(w.text)}. *Remedy: {escape(w.remedy)}.*"
        if w.counts
        else f"- {escape(w.title)}: {escape(w.text)}."
        for w in context.warnings
    ]
    return ["## Warnings", "\n".join(lines)]


def lines(found: Sequence[Warned]) -> Iterator[Text]:
    """One line a warning."""
    for w in found:
        line = Text(f"{w.severity}, {w.title}: ", style=_STYLES[w.severity]).append(w.text, style="not bold default")
        yield line.append(f". Remedy: {w.remedy}" if w.counts else "", style="not bold dim")


def render(console: Console, found: Sequence[Warned]) -> None:
    """Print all, or that there is nothing."""
    for line in lines(found):
        console.print(line, soft_wrap=True)
    counted = sum(w.counts for w in found)
    console.print(Text(f"warnings: {counted}, notes: {len(found) - counted}"))


def as_json(found: Sequence[Warned]) -> list[dict[str, Any]]:
    """Every field of every warning."""
    return [asdict(w) for w in found]
