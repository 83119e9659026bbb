"""The written report of a run: `report.md`, CSV tables and figures in one folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, BrokenExecutor, ProcessPoolExecutor, wait
from functools import partial
from importlib import import_module
from multiprocessing import active_children, get_context
from pathlib import Path
from warnings import catch_warnings, simplefilter

from rnnbench.records.folder import refuse_foreign
from rnnbench.report import devices, facts, plots, sections, sweep, tables
from rnnbench.report.data import ReportData
from rnnbench.report.section import Figures, Markdown, Section, escape, markdown
from rnnbench.report.text import QUICK

TITLE = "# rnnbench: "
Drawn = tuple[list[str], list[Path]]  # a figure's pages as Markdown, and the paths
THREADED = {"jax", "tensorflow", "torch"}  # a process that has them cannot be split: their threads would be missing
DRAWN_WITHIN = 300.0  # seconds for all figures in processes side by side
LIBRARIES = ("matplotlib.figure", "matplotlib.backends.backend_agg", "matplotlib.textpath", "pandas", "scipy.special")


def load_libraries() -> None:
    """Import what draws, tabulates and counts now, so that its time can be counted apart."""
    for name in LIBRARIES:
        import_module(name)


def drawn(name: str, data: ReportData, folder: Path, vector: bool) -> Drawn:
    """Draw and save one figure."""
    embedded: list[str] = []
    paths: list[Path] = []
    for page in plots.draw_figure(name, data):
        saved = plots.save(folder / "figures", page, vector=vector)
        embedded.append(plots.embedded(saved, folder, page.alt))
        paths += saved
    return embedded, paths


def _figures(data: ReportData, folder: Path, vector: bool, processes: int) -> tuple[dict[str, list[str]], list[Path]]:
    """Every figure; name -> its pages as Markdown, and the paths."""
    names = plots.OF_SWEEPS if data.sweep else tuple(plots.REGISTRY)
    draw = partial(drawn, data=data, folder=folder, vector=vector)
    if processes > 1 and sys.platform == "linux" and not sys.modules.keys() & THREADED and len(data.problems) > 1:
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


def sections_of(data: ReportData) -> Iterator[Section]:
    """The page: the answer, what to bear in mind, the results, then how they were made."""
    first = sections.warnings_section(data.warnings if data.records else [])
    on_gpu = [devices.crossings_section(data), devices.on_the_gpu_section(data)]
    run = [facts.run_section(data), facts.machine_section(data)]
    last = [sections.missing_section(data), facts.subnormals_section(data), facts.contracts_section(data)]
    if data.sweep:
        yield from [sweep.sweep_answer_section(data), first, *sweep.sweep_results(data), *on_gpu]
        yield from [
            Section("The work", [Markdown(sweep.work_text(data))]),
            sections.threads_section(data),
            sweep.sweep_errors_section(data),
            last[0],
            *run,
            *last[1:],
        ]
    else:
        yield from [sections.answer_section(data), first, *run, facts.work_section(data), facts.noise_section(data)]
        yield from [sections.times_section(data), sections.threads_section(data), sections.speedup_section(data)]
        yield from on_gpu
        yield from [devices.shares_of_peak_section(data), devices.energy_section(data), devices.memory_section(data)]
        yield from [sections.costs_section(data), sections.errors_section(data), sections.curves_section(data)]
        yield from [facts.stops_section(data), *last]
    yield facts.definitions_section()


def text(data: ReportData, figures: Figures) -> str:
    """The page as Markdown; figures that no section has a place for stand at its end."""
    parts = [f"{TITLE}{escape(str(data.run.get('run_id', 'report')))}"]
    parts += [f"> **{escape(mark)}**" for mark in (data.quick and QUICK, data.unlike) if mark]
    parts.append(markdown(sections_of(data), figures))
    if others := [shown for pages in figures.values() for shown in pages if shown not in parts[-1]]:
        parts += ["## Other figures", *others]
    return "\n\n".join(parts) + "\n"


def write_report(folder: Path, data: ReportData, *, vector: bool = False, processes: int = 1) -> list[Path]:
    """Write `report.md`, `tables/*.csv`, `figures/*.png` and with `vector` `figures/*.svg`; the paths, the page first.

    ValueError where the reference that is wanted is not in the records, OSError where the folder cannot be written or
    has a `report.md` of another origin.
    Figures are drawn by as many `processes` at once, on Linux, where they can be split off from one
    that has imported no framework.
    """
    page = folder / "report.md"
    refuse_foreign(page, TITLE)
    folder.mkdir(parents=True, exist_ok=True)
    written = tables.write_tables(folder / "tables", tables.frames(data))
    figures, drawings = _figures(data, folder, vector, processes)
    page.write_text(text(data, figures), encoding="utf-8", errors="replace")
    return [page, *written, *drawings]
