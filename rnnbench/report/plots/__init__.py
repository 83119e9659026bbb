"""The figures of a report. A registry: name -> the function that turns a data into pages; and how they are saved."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rnnbench.report.data import ReportData
from rnnbench.report.plots.layout import Page

REGISTRY: dict[str, str] = {
    "time": "rnnbench.report.plots.time:pages",
    "speedup": "rnnbench.report.plots.speedup:pages",
    "roofline": "rnnbench.report.plots.roofline:pages",
    "costs": "rnnbench.report.plots.costs:pages",
    "break-even": "rnnbench.report.plots.breakeven:pages",
    "errors": "rnnbench.report.plots.errors:pages",
    "curves": "rnnbench.report.plots.curves:pages",
    "to-accuracy": "rnnbench.report.plots.to_accuracy:pages",
    "sweep-time": "rnnbench.report.plots.sweep:time_pages",
    "sweep-share": "rnnbench.report.plots.sweep:share_pages",
    "crossover": "rnnbench.report.plots.crossover:pages",
    "gpu-sweep": "rnnbench.report.plots.gpu:sweep_pages",
    "gpu-step": "rnnbench.report.plots.gpu:step_pages",
    "device-time": "rnnbench.report.plots.gpu:pages",
}

# What the page of a sweep shows; that of any other run shows the rest, which has a panel for each problem.
OF_SWEEPS = ("sweep-time", "sweep-share", "crossover", "roofline", "gpu-sweep", "gpu-step", "device-time")

DPI = 160


@dataclass(frozen=True)
class Drawing:
    """A saved page of a figure: its files, PNG first, and what it shows in words."""

    paths: list[Path]
    alt: str


def draw_figure(name: str, data: ReportData) -> list[Page]:
    """The pages of one figure; none where there is nothing to show."""
    from rnnbench.report.style import own_style

    module, _, function = REGISTRY[name].partition(":")
    pages: Callable[[ReportData], list[Page]] = getattr(importlib.import_module(module), function)
    with own_style():
        return pages(data)


def save(folder: Path, page: Page, *, vector: bool = False) -> list[Path]:
    """The page as PNG, and with `vector` as SVG too, else an earlier one is removed; the paths, PNG first."""
    from rnnbench.report.style import load_matplotlib, own_style

    load_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    folder.mkdir(parents=True, exist_ok=True)
    png, svg = folder / f"{page.name}.png", folder / f"{page.name}.svg"
    with own_style():
        page.figure.set_dpi(DPI)
        engine = page.figure.get_layout_engine()
        if engine is not None:
            engine.execute(page.figure)
        page.figure.set_layout_engine("none")
        # Not savefig, which draws everything once more for each file.
        FigureCanvasAgg(page.figure).print_png(png, pil_kwargs={"compress_level": 1})
        if not vector:
            svg.unlink(missing_ok=True)
            return [png]
        from matplotlib.backends.backend_svg import FigureCanvasSVG

        page.figure.set_dpi(72)
        FigureCanvasSVG(page.figure).print_svg(svg, metadata={"Date": None})
    return [png, svg]


def embedded(paths: Sequence[Path], folder: Path, alt: str) -> str:
    """A figure in Markdown, its alternative text, and a link to the same as SVG where there is one."""
    from rnnbench.report.section import escape

    place, *vector = (path.relative_to(folder).as_posix() for path in paths)
    return "\n\n".join([f"![{escape(alt)}]({place})", *(f"[as SVG]({other})" for other in vector)])
