"""The written report of a run: `report.md`, `report.html`, CSV tables and figures in one folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, BrokenExecutor, ProcessPoolExecutor, wait
from contextlib import suppress
from functools import partial
from importlib import import_module
from multiprocessing import active_children, get_context
from pathlib import Path
from warnings import catch_warnings, simplefilter

from rnnbench.records.folder import refuse_foreign
from rnnbench.report import answer, devices, facts, html, latency, plots, sections, sweep, tables, to_accuracy
from rnnbench.report.data import ReportData
from rnnbench.report.section import Figure, Figures, Markdown, Section, anchor, escape, markdown
from rnnbench.report.style import load_matplotlib

TITLE, HTML = "# rnnbench: ", "report.html"
THREADED = {"jax", "tensorflow", "torch"}  # a process that has them cannot be split: their threads would be missing
DRAWN_WITHIN = 300.0  # seconds for all figures in processes side by side
LIBRARIES = ("matplotlib.figure", "matplotlib.backends.backend_agg", "matplotlib.textpath", "pandas", "scipy.special")


def load_libraries() -> None:
    """Import what draws, tabulates and counts now, so that its time can be counted apart."""
    load_matplotlib()
    for name in LIBRARIES:
        import_module(name)


def drawn(name: str, data: ReportData, folder: Path, vector: bool) -> list[plots.Drawing]:
    """Draw and save the pages of one figure."""
    pages = plots.draw_figure(name, data)
    return [plots.Drawing(plots.save(folder / "figures", page, vector=vector), page.alt) for page in pages]


def _figures(data: ReportData, folder: Path, vector: bool, processes: int) -> dict[str, list[plots.Drawing]]:
    """Every figure that there is: name -> its pages."""
    names = plots.OF_SWEEPS if data.sweep else tuple(plots.REGISTRY)
    draw = partial(drawn, data=data, folder=folder, vector=vector)
    if processes > 1 and sys.platform == "linux" and not sys.modules.keys() & THREADED and len(data.problems) > 1:
        made = _side_by_side(draw, names, processes)
    else:
        made = [draw(name) for name in names]
    return {name: pages for name, pages in zip(names, made, strict=True) if pages}


def _side_by_side(
    draw: Callable[[str], list[plots.Drawing]], names: Sequence[str], processes: int
) -> list[list[plots.Drawing]]:
    """All figures; drawn one by one in this process where another dies, hangs, or cannot be started."""
    others = set(active_children())
    with suppress(OSError, RuntimeError), catch_warnings(), ProcessPoolExecutor(processes, get_context("fork")) as pool:
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


def sections_of(data: ReportData) -> list[Section]:
    """The page: the answer, what to bear in mind, the results, then how they were made."""
    warned = sections.warnings_section(data.warnings if data.records else [])
    on_gpu = [devices.crossings_section(data), devices.on_the_gpu_section(data)]
    made = [facts.run_section(data), facts.machine_section(data), facts.subnormals_section(data)]
    made += [facts.contracts_section(data), facts.definitions_section()]
    if data.sweep:
        found = [sweep.sweep_answer_section(data), warned, *sweep.sweep_results(data), *on_gpu]
        work = Section("The work", [Markdown(sweep.work_text(data))])
        found += [work, sections.threads_section(data), sweep.sweep_errors_section(data)]
        return [*found, sections.missing_section(data), *made]
    found = [answer.answer_section(data), warned, sections.times_section(data), latency.latency_section(data)]
    found += [sections.leads_section(data), sections.speedup_section(data), sections.costs_section(data)]
    found += [to_accuracy.to_accuracy_section(data)]
    found += [sections.curves_section(data), *on_gpu]
    found += [devices.shares_of_peak_section(data), devices.energy_section(data), devices.memory_section(data)]
    found += [sections.errors_section(data), sections.missing_section(data), sections.threads_section(data)]
    return [*found, facts.noise_section(data), facts.stops_section(data), facts.work_section(data), *made]


def _placed(shown: Sequence[Section]) -> set[str]:
    """The figures that have a place in the sections."""
    blocks = [block for section in shown for block in section.blocks]
    inner = [block for block in blocks if isinstance(block, Section)]
    return {block.name for block in blocks if isinstance(block, Figure)} | (_placed(inner) if inner else set())


def text(shown: Sequence[Section], title: str, figures: Figures) -> str:
    """The page as Markdown: the answer and links, then the rest."""
    first, *rest = shown
    parts = [f"{TITLE}{escape(title)}", markdown([first], figures)]
    details = [(section, markdown([section], figures)) for section in rest]
    links = [f"[{escape(s.title)}](#{anchor(s.title)})" for s, said in details if said and not s.folded]
    parts += [" · ".join([f"[**The same as a page with filters**]({HTML})", *links]), *(said for _, said in details)]
    return "\n\n".join(filter(None, parts)) + "\n"


def write_report(folder: Path, data: ReportData, *, vector: bool = False, processes: int = 1) -> list[Path]:
    """Write `report.md`, `report.html`, `tables/*.csv`, `figures/*.png`, with `vector` `figures/*.svg`; the paths.

    ValueError where the reference that is wanted is not in the records, OSError where the folder cannot be written or
    has a `report.md` of another origin.
    Figures are drawn by as many `processes` at once, on Linux, where they can be split off from one
    that has imported no framework.
    """
    page, whole = folder / "report.md", folder / HTML
    refuse_foreign(page, TITLE)
    if os.path.lexists(whole):
        refuse_foreign(whole, html.FIRST)
    folder.mkdir(parents=True, exist_ok=True)
    load_matplotlib()
    written = tables.write_tables(folder / "tables", tables.frames(data))
    drawings = _figures(data, folder, vector, processes)
    shown, title = sections_of(data), str(data.run.get("run_id", "report"))
    shown.append(Section("Other figures", [Figure(name) for name in drawings if name not in _placed(shown)]))
    figures = {name: [plots.embedded(d.paths, folder, d.alt) for d in of] for name, of in drawings.items()}
    page.write_text(text(shown, title, figures), encoding="utf-8", errors="replace")
    whole.write_text(html.page(data, shown, title, drawings), encoding="utf-8", errors="replace")
    return [page, whole, *written, *(path for of in drawings.values() for d in of for path in d.paths)]
