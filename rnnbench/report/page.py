"""The written report of a run: `report.md`, CSV tables and figures in one folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rnnbench.report import energy, facts, gpu, memory, peak, plots, sections, stopping, sweep, tables, warnings
from rnnbench.report.context import Context
from rnnbench.report.markdown import escape, figure
from rnnbench.report.text import QUICK
from rnnbench.results.record import Epoch, Record

Drawn = tuple[list[str], list[Path]]  # a figure's pages as Markdown, and the paths
MANY_CASES = 8  # from here on drawing takes longer than starting processes for it


def drawn(name: str, context: Context, folder: Path, vector: bool) -> Drawn:
    """Draw and save one figure; its pages as Markdown, and the paths."""
    embedded: list[str] = []
    paths: list[Path] = []
    for page in plots.draw(name, context):
        saved = plots.save(folder / "figures", page, vector=vector)
        embedded.append(figure(saved, folder, page.alt))
        paths += saved
    return embedded, paths


def _figures(context: Context, folder: Path, processes: int, vector: bool) -> tuple[dict[str, list[str]], list[Path]]:
    """Every figure; name -> its pages as Markdown, and the paths."""
    names = plots.OF_SWEEPS if context.sweep else tuple(plots.REGISTRY)
    draw = partial(drawn, context=context, folder=folder, vector=vector)
    if processes > 1 and len({r.case.key for r in context.records}) >= MANY_CASES:
        made = _side_by_side(draw, names, processes - 1)
    else:
        made = {name: draw(name) for name in names}
    embedded = {name: made[name][0] for name in names if made[name][0]}
    return embedded, [path for name in names for path in made[name][1]]


def _side_by_side(draw: Callable[[str], Drawn], names: Sequence[str], helpers: int) -> dict[str, Drawn]:
    """The figures by new processes from the first on, and by this one from the last on, until they meet."""
    with ProcessPoolExecutor(helpers, get_context("spawn")) as pool:
        begun = {name: pool.submit(draw, name) for name in names}
        mine = {name: draw(name) for name in reversed(names) if begun[name].cancel()}
        return {name: mine[name] if name in mine else begun[name].result() for name in names}


def text(context: Context, figures: sections.Figures) -> str:
    """The page: the answer, the run, the results, then how they were made."""
    parts = [f"# rnnbench: {escape(str(context.run.get('run_id', 'report')))}"]
    if context.quick:
        parts.append(f"> **{QUICK}**")
    if context.unlike:
        parts.append(f"> **{escape(context.unlike)}**")
    if context.sweep:
        return "\n\n".join([*parts, *sweep.parts(context, figures)]) + "\n"
    parts += sections.answer(context)
    parts += warnings.section(context)
    parts += facts.run(context)
    parts += facts.work(context)
    parts += stopping.noise(context)
    measured = (sections.times, sections.speedup, gpu.section, peak.section, energy.section, memory.section)
    for section in (*measured, sections.costs, sections.errors, sections.curves):
        parts += section(context, figures)
    for section_of in (stopping.stops, sections.missing, facts.subnormals, facts.contracts):
        parts += section_of(context)
    parts += facts.definitions()
    return "\n\n".join(parts) + "\n"


def write_report(
    folder: Path,
    records: Sequence[Record],
    epochs: Sequence[Epoch],
    machine: Mapping[str, Any],
    run: Mapping[str, Any],
    reference: str | None = None,
    *,
    processes: int = 1,
    vector: bool = False,
) -> list[Path]:
    """Write `report.md`, `tables/*.csv`, `figures/*.png` and with `vector` `figures/*.svg`; the paths, the page first.

    `machine` and `run` are facts by name, nested or not. `reference` is the backend that speed-ups are over, or None
    to have one chosen; ValueError where it is not in the records. OSError where the folder cannot be written.
    With several `processes`, who calls must be importable: the figures of many cases are drawn in new ones.
    """
    context = Context(records, epochs, machine, run, reference)
    folder.mkdir(parents=True, exist_ok=True)
    figures, drawings = _figures(context, folder, processes, vector)
    written = tables.write(folder / "tables", tables.frames(context))
    page = folder / "report.md"
    page.write_text(text(context, figures), encoding="utf-8")
    return [page, *written, *drawings]
