"""The written report of a run: `report.md`, CSV tables and figures in one folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, BrokenExecutor, ProcessPoolExecutor, wait
from functools import partial
from importlib import import_module
from multiprocessing import active_children, get_context
from pathlib import Path
from warnings import catch_warnings, simplefilter

from rnnbench.records.folder import refuse_foreign
from rnnbench.report import energy, facts, gpu, memory, peak, plots, sections, stopping, sweep, tables, warnings
from rnnbench.report.context import Context
from rnnbench.report.markdown import escape, figure
from rnnbench.report.text import QUICK

TITLE = "# rnnbench: "
Drawn = tuple[list[str], list[Path]]  # a figure's pages as Markdown, and the paths
THREADED = {"jax", "tensorflow", "torch"}  # a process that has them cannot be split: their threads would be missing
DRAWN_WITHIN = 300.0  # seconds for all figures in processes side by side
LIBRARIES = ("matplotlib.figure", "matplotlib.backends.backend_agg", "matplotlib.textpath", "pandas", "scipy.special")


def load_libraries() -> None:
    """Import what draws, tabulates and counts now, so that who tells the time can tell it apart."""
    for name in LIBRARIES:
        import_module(name)


def drawn(name: str, context: Context, folder: Path, vector: bool) -> Drawn:
    """Draw and save one figure."""
    embedded: list[str] = []
    paths: list[Path] = []
    for page in plots.draw(name, context):
        saved = plots.save(folder / "figures", page, vector=vector)
        embedded.append(figure(saved, folder, page.alt))
        paths += saved
    return embedded, paths


def _figures(context: Context, folder: Path, vector: bool, processes: int) -> tuple[dict[str, list[str]], list[Path]]:
    """Every figure; name -> its pages as Markdown, and the paths."""
    names = plots.OF_SWEEPS if context.sweep else tuple(plots.REGISTRY)
    draw = partial(drawn, context=context, folder=folder, vector=vector)
    if processes > 1 and sys.platform == "linux" and not sys.modules.keys() & THREADED and len(context.problems) > 1:
        made = _side_by_side(draw, names, processes)
    else:
        made = [draw(name) for name in names]
    embedded = {name: pages for name, (pages, _) in zip(names, made, strict=True) if pages}
    return embedded, [path for _, paths in made for path in paths]


def _side_by_side(draw: Callable[[str], Drawn], names: Sequence[str], processes: int) -> list[Drawn]:
    """All figures; drawn one by one in this process where one of the others dies or hangs."""
    others = set(active_children())
    with catch_warnings(), ProcessPoolExecutor(processes, get_context("fork")) as pool:
        simplefilter("ignore", DeprecationWarning)  # of threads, from Python 3.12 on: BLAS's start again in a child
        futures = [
            pool.submit(draw, name) for name in names
        ]  # not `map`: a pool that breaks trips on what that cancels
        wait(futures, DRAWN_WITHIN, FIRST_EXCEPTION)
        try:
            return [future.result(timeout=0) for future in futures]
        except (BrokenExecutor, TimeoutError):
            for process in set(active_children()) - others:
                process.kill()
    return [draw(name) for name in names]


def text(context: Context, figures: sections.Figures) -> str:
    """The page: the answer, the run, the results, then how they were made."""
    parts = [f"{TITLE}{escape(str(context.run.get('run_id', 'report')))}"]
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


def write_report(folder: Path, context: Context, *, vector: bool = False, processes: int = 1) -> list[Path]:
    """Write `report.md`, `tables/*.csv`, `figures/*.png` and with `vector` `figures/*.svg`; the paths, the page first.

    ValueError where the reference that is wanted is not in the records, OSError where the folder cannot be written or
    has a `report.md` of another origin.
    Figures are drawn by as many `processes` at once, on Linux, where they can be split off from one
    that has imported no framework.
    """
    page = folder / "report.md"
    refuse_foreign(page, TITLE)
    folder.mkdir(parents=True, exist_ok=True)
    written = tables.write(folder / "tables", tables.frames(context))
    figures, drawings = _figures(context, folder, vector, processes)
    page.write_text(text(context, figures), encoding="utf-8", errors="replace")
    return [page, *written, *drawings]
