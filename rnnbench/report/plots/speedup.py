"""Speed-up over the reference in the train step: a panel for each problem, with the line where nothing is gained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from rnnbench.analysis.stats import Basis, Interval, ratio_of
from rnnbench.report.data import ReportData
from rnnbench.report.plots.layout import Page, Row, headline, paged, placed_rows, point_rows, row_axis, titled
from rnnbench.report.style import FAINT
from rnnbench.report.text import ratio_text, ratio_value

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

PANELS = 12  # a page


Ratios = dict[tuple[str, str], Interval | None]  # (case, backend) -> the reference's time over its own


def _rows(data: ReportData, table: pd.DataFrame, ratios: Ratios) -> list[Row]:
    """The rows of one problem, in the order of the report."""
    lines: list[dict[str, Any]] = table.to_dict("records")  # type: ignore[assignment]
    ordered = data.in_order(lines, itemgetter("backend"))
    return [_row(line, ratios.get((line["case"], line["backend"]))) for line in ordered]


def _row(line: dict[str, Any], ratio: Interval | None) -> Row:
    if math.isnan(line["speedup"]) or ratio is None:
        return Row(line["backend"], label=line["reason"], wrong=line["status"] == "wrong")
    if line["backend"] == line["reference"]:
        return Row(line["backend"], 1.0, label="reference")
    weak = ratio.basis is not Basis.LAUNCHES
    return Row(line["backend"], ratio.value, ratio.low, ratio.high, ratio_value(ratio), weak=weak)


def pages(data: ReportData) -> list[Page]:
    """Speed-ups in the main pass of each problem; no page without a measured reference and another backend."""
    table = data.speedups
    if table is None:
        return []
    main = {problem.cases[problem.main].key: f"{problem.label}: {problem.main}" for problem in data.problems}
    table = table[table["case"].isin(main)]
    if not (table["speedup"].notna() & (table["backend"] != data.reference)).any():
        return []

    bases = {s.case.key: s.turns for s in data.summaries if s.backend == data.reference}
    ratios = {(s.case.key, s.backend): ratio_of(bases.get(s.case.key, {}), s.turns) for s in data.summaries}

    rows = {key: _rows(data, table[table["case"] == key], ratios) for key in main}
    axis = row_axis(row for of in rows.values() for row in of)

    def draw(part: Sequence[str]) -> tuple[Figure, str]:
        groups = [table[table["case"] == key] for key in part]
        figure, axes = placed_rows(len(groups), 2, data.backends, max(map(len, groups)), 3 + data.quick)
        note = (
            "Ratios within rounds, with their 95 % interval over launches (dotted: of one launch only; an arrow: it "
            "goes on). Log scale."
        )
        headline(figure, f"Speed-up over {data.reference}: larger is better", [note], data.quick)
        said = []
        for ax, key, group in zip(axes, part, groups, strict=True):
            point_rows(ax, rows[key], axis)
            if any(row.drawn for row in rows[key]):
                ax.axvline(1.0, color=FAINT, linewidth=0.9, zorder=0)
            titled(ax, main[key])
            best = group.sort_values("speedup", ascending=False).iloc[0]
            known = not math.isnan(best["speedup"])
            said.append(
                f"{main[key]}, {best['backend']} {ratio_text(best['speedup'])}" if known else f"{main[key]}, none"
            )
        return figure, f"Speed-up over {data.reference} by backend, log scale; the largest: {'; '.join(said)}"

    return paged("speedup", list(main), PANELS, draw)
