"""Tables as data, in seconds and plain ratios, for CSV files and for figures: one row for each thing that was asked."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rnnbench.analysis.accuracy import to_accuracy_frame
from rnnbench.analysis.costs import costs_frame
from rnnbench.analysis.devices import memory_frame
from rnnbench.analysis.latency import latencies_frame
from rnnbench.analysis.ranking import cells_frame
from rnnbench.analysis.roofline import shares_frame
from rnnbench.analysis.stats import Summary, case_fields, times_frame
from rnnbench.records.record import Epoch, ErrorOf, checks_in
from rnnbench.report.data import ReportData

if TYPE_CHECKING:
    import pandas as pd


def group_of(array: str) -> str:
    """The group that an array is shown in: `grad W_hh` among the gradients, `loss of step 3` with the loss."""
    first = array.split(" ", 1)[0]
    return {"grad": "gradients", "param": "parameters"}.get(first, first)


def worst_errors(summary: Summary) -> dict[str, ErrorOf]:
    """Array -> its largest error in any round, as a part of its limit; one that is not a number is the largest."""
    worst: dict[str, ErrorOf] = {}
    for record in checks_in(summary.records):
        for name, e in record.errors.items():
            if name not in worst or error_share(e) > error_share(worst[name]):
                worst[name] = e
    return worst


def error_share(e: ErrorOf) -> float:
    """Error over limit; infinite where the error is not a number."""
    return math.inf if e.error is None else e.error / e.limit


def errors_frame(found: Iterable[Summary]) -> pd.DataFrame:
    """One row for each case, backend and array: the largest error of any round, its limit, and their quotient."""
    import pandas as pd

    rows = [
        {
            **case_fields(s.case),
            "backend": s.backend,
            "status": str(s.status),
            "array": name,
            "group": group_of(name),
            "error": math.nan if e.error is None else e.error,
            "limit": e.limit,
            "error_over_limit": error_share(e),
            "ok": e.ok,
        }
        for s in found
        for name, e in worst_errors(s).items()
    ]
    return pd.DataFrame(rows)


def curves_frame(epochs: Iterable[Epoch]) -> pd.DataFrame:
    """One row for each epoch of each training."""
    import pandas as pd

    return pd.DataFrame([asdict(e) for e in epochs])


def frames(data: ReportData) -> dict[str, pd.DataFrame]:
    """Name -> table. One that would have no row is left out."""
    made = {
        "times": times_frame(data.summaries), "speedups": data.speedups,
        "shares": shares_frame(data.summaries, data.peak), "memory": memory_frame(data.summaries),
        "costs": costs_frame(data.summaries), "break_even": data.break_evens,
        "cells": cells_frame(data.summaries) if data.sweep else None, "errors": errors_frame(data.summaries),
        "curves": curves_frame(data.epochs), "to_accuracy": to_accuracy_frame(data.to_reach),
        "latencies": latencies_frame(data.summaries),
    }  # fmt: skip
    return {name: table for name, table in made.items() if table is not None and len(table)}


def write_tables(folder: Path, made: dict[str, pd.DataFrame]) -> list[Path]:
    """Write each table as CSV; the paths."""
    if made:
        folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, table in made.items():
        paths.append(folder / f"{name}.csv")
        table.to_csv(paths[-1], index=False)
    return paths
