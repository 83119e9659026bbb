"""What the script of a page draws and filters, ready to be written as JSON, and all of it for the report of a run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnnbench.analysis.costs import main_cases, spent
from rnnbench.analysis.roofline import reached
from rnnbench.analysis.stats import Interval, Summary, ratio_of
from rnnbench.model import Pass
from rnnbench.report.data import ProblemCases, ReportData
from rnnbench.report.plots.breakeven import last_step
from rnnbench.report.plots.curves import curves_by_training
from rnnbench.report.plots.sweep import NAMES, call_seconds, kinds_of, panel_of
from rnnbench.report.style import look
from rnnbench.report.tables import error_share, worst_errors
from rnnbench.report.text import ratio_value, ratio_with_interval, scientific, status_text, value_text, with_interval
from rnnbench.units import percent, unit_for

LEFT_OUT = ("time", "speedup", "errors")  # pictures whose values the script draws from the results
POINTS_A_DECADE = 4
# A figure of results in rows. `main`: of the results that are marked so, until a pass is chosen; `only`: of one metric.
ROWS: dict[str, Any] = {"kind": "rows", "main": False, "only": False}


@dataclass(frozen=True)
class Interactive:
    """What the script of a page draws and filters, ready for JSON.

    `results`: what is counted and drawn in rows, each with its keys, backend and points. `choices`: the filters.
    `figures`: what is drawn in place of a `Figure` of that name. `reference`: the backend that ratios are over, if any.
    """

    backends: Sequence[str]  # in their order
    choices: Mapping[str, Sequence[str]]
    results: Sequence[Mapping[str, Any]]
    figures: Mapping[str, Mapping[str, Any]]
    reference: str | None = None


def of_report(data: ReportData) -> Interactive:
    """That of the report of a run."""
    found = results(data)
    return Interactive(data.backends, choices(data), found, figures(data, found), data.reference)


def looks(names: Iterable[str]) -> list[dict[str, str]]:
    """Each backend with its colour and its marker as a path around 0."""
    return [{"name": name, "colour": look(name).colour, "path": marker_path(look(name).marker)} for name in names]


def chosen_from(keys: Iterable[Mapping[str, str]], names: Iterable[str]) -> dict[str, list[str]]:
    """What can be filtered by, with the values of each; what has one value is no filter."""
    every = list(keys)
    found = {name: list(dict.fromkeys(k[name] for k in every)) for name in names}
    return {name: values for name, values in found.items() if len(values) > 1}


def point(interval: Interval, label: str, text: str, scale: float = 1) -> dict[str, Any]:
    """A value with its interval for the script, divided by `scale`: what stands beside it, and what is said of it."""
    made: dict[str, Any] = {"value": short_number(interval.value / scale), "label": label, "text": text}
    if math.isfinite(interval.low) and math.isfinite(interval.high):
        made |= {"low": short_number(interval.low / scale), "high": short_number(interval.high / scale)}
    return made


def short_number(value: float) -> float | None:
    """Four digits, None for what JSON has no number for."""
    return float(f"{value:.4g}") if math.isfinite(value) else None


def marker_path(marker: Any) -> str:
    """A marker of matplotlib as the path of an SVG, about one unit to each side."""
    from matplotlib.markers import MarkerStyle

    style = MarkerStyle(marker)
    polygons = [np.asarray(p) for p in style.get_path().transformed(style.get_transform()).to_polygons()]
    reach = max(abs(p).max() for p in polygons)
    parts = [" L".join(f"{x / reach:.2f} {-y / reach:.2f}" for x, y in polygon) for polygon in polygons]
    return "".join(f"M{part}Z" for part in parts)


def choices(data: ReportData) -> dict[str, list[str]]:
    """What the report of a run can be filtered by."""
    keys = [problem.keys | {"pass": str(p)} for problem in data.problems for p in problem.cases]
    return chosen_from(keys, ("cell", "dtype", "pass") if data.sweep else ("network", "cell", "dtype", "pass"))


def results(data: ReportData) -> list[dict[str, Any]]:
    """One entry for each case and backend: time a step, ratios to every other, share of peak, error over limit."""
    return [
        _result(data, problem, s, group)
        for problem in (() if data.sweep else data.problems)
        for group in problem.summaries.values()
        for s in data.in_order(group.values())
    ]


def _result(data: ReportData, problem: ProblemCases, s: Summary, group: Mapping[str, Summary]) -> dict[str, Any]:
    pass_ = s.case.pass_
    made: dict[str, Any] = {
        **problem.keys, "pass": str(pass_), "main": pass_ is problem.main, "backend": s.backend,
        "wrong": str(s.status) == "wrong",
    }  # fmt: skip
    if s.time is None:
        return made | {"missing": status_text(str(s.status), s.reason, 80)}
    unit = unit_for([s.time.value / s.case.steps])
    text = f"{with_interval(s.time, unit.seconds * s.case.steps)} {unit.name}"
    label = f"{value_text(s.time, unit.seconds * s.case.steps)} {unit.name}"
    made["time"] = point(s.time, label, text + (" a step" if pass_ is Pass.EPOCH else ""), s.case.steps)
    if (found := reached(s, data.peak)) and found.share:
        label = percent(found.share, 0 if found.share >= 0.0995 else 1)
        made["share"] = {"value": short_number(found.share), "label": label, "text": f"{label} of peak"}
    if errors := [error_share(e) for e in worst_errors(s).values()]:
        worst = max(errors)
        # What is exact has no place on a log axis: it stands at its left end.
        label = scientific(worst)
        made["error"] = {"value": short_number(max(worst, 1e-9)), "label": label, "text": f"{label} of the limit"}
    if s.ranked:
        made["over"] = ratios_over(s, group.values())
    return made


def ratios_over(s: Summary, group: Iterable[Summary]) -> dict[str, dict[str, Any]]:
    """Reference -> how many times as fast this answer is, of the ranked ones of a case, itself among them."""
    ratios = {o.backend: ratio_of(o.turns, s.turns) for o in group if o.ranked and o.backend != s.backend}
    found = {name: point(r, ratio_value(r), ratio_with_interval(r)) for name, r in ratios.items() if r}
    return found | {s.backend: {"value": 1, "label": "reference", "text": "1 (reference)"}}


def figures(data: ReportData, results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Name -> what is drawn in its place: rows of the results, or panels of lines."""
    found: dict[str, dict[str, Any]] = {}
    if data.speedups is not None and not data.sweep and any(len(r.get("over", ())) > 1 for r in results):
        found["speedup"] = ROWS | {"main": True, "only": True, "metric": "over", "label": "Speed-up in the main pass"}
    if any(s.time for s in data.summaries) and not data.sweep:
        found["time"] = ROWS | {"metric": "time", "label": "Results of every case"}
    for name, lines in {"break-even": _break_even(data), "curves": _curves(data), "sweep-time": _sweep(data)}.items():
        if lines["panels"]:
            found[name] = {"kind": "lines", **lines}
    return found


def _break_even(data: ReportData) -> dict[str, Any]:
    panels = []
    keys = {case.key: problem.keys for problem in data.problems for case in problem.cases.values()}
    for case, group in main_cases(data.summaries).items() if not data.sweep else ():
        known = [c for s in group if s.ranked and (c := spent(s)).start is not None]
        if not known:
            continue
        decades = round(math.log10(last_step(known)))
        steps = [10 ** (k / POINTS_A_DECADE) for k in range(decades * POINTS_A_DECADE + 1)]
        lines = [
            {"backend": c.backend, "points": [[short_number(n), short_number(c.total(n))] for n in steps]}
            for c in known
        ]
        panels.append({"title": data.labels.of(case), "keys": keys[case.key], "lines": lines})
    x, y = {"label": "steps done", "form": "count", "log": True}, {"label": "time in all", "form": "time", "log": True}
    return {"label": "Time since the start of the process against steps done", "panels": panels, "x": x, "y": y}


def _curves(data: ReportData) -> dict[str, Any]:
    panels = []
    for (workload, dtype), curves in curves_by_training(data.epochs).items():
        label = data.labels.problem(workload, dtype, "")
        for what in ("loss", "accuracy"):
            lines = []
            for (backend, seed), epochs in curves.items():
                for name, dashed in ((what, False), (f"validation_{what}", True)):
                    points = [[e.epoch, short_number(v)] for e in epochs if (v := getattr(e, name)) is not None]
                    words = f"{backend}{f', seed {seed}' if seed else ''}{', held out' if dashed else ''}"
                    if points:
                        lines.append({"backend": backend, "name": words, "dashed": dashed, "points": points})
            if lines:
                keys = {"network": label, "dtype": dtype}
                panels.append({"title": f"{label}: {what}", "keys": keys, "lines": lines})
    x, y = {"label": "epoch", "form": "count", "log": False}, {"label": "", "form": "number", "log": False}
    said = "Loss and accuracy by epoch, dashed on held-out rows"
    return {"label": said, "panels": panels, "x": x, "y": y}


def _sweep(data: ReportData) -> dict[str, Any]:
    panels = []
    for pass_, dtype in kinds_of(data) if data.sweep else ():
        for axis in data.sweep.axes if data.sweep else ():
            panel = panel_of(data, axis, pass_, dtype, call_seconds)
            lines = [
                {"backend": name, "points": [[size, short_number(v)] for size, v in line]}
                for name, line in panel.lines.items()
            ]
            keys = {"pass": str(pass_), "dtype": str(dtype)}
            if lines:
                panels.append({"title": panel.title, "keys": keys, "x": NAMES[axis], "lines": lines})
    x, y = {"label": "size", "form": "count", "log": True}, {"label": "time of a call", "form": "time", "log": True}
    return {"label": "Time of a call against size", "panels": panels, "x": x, "y": y}
