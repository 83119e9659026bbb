"""A stored run as a badge: the JSON that shields.io's endpoint badge reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rnnbench.analysis.ranking import Ranking
from rnnbench.analysis.stats import Interval
from rnnbench.records.record import Status
from rnnbench.report.data import ReportData
from rnnbench.report.text import duration_text, ratio_value


def badge(data: ReportData) -> dict[str, Any]:
    """What is fastest in the main pass of each network, and by how much; {} where nothing is right.

    Green: every lead is sure. Yellow: not, or a smoke run. Red: some answer is wrong. Blue: there was one backend.
    """
    main = {problem.cases[problem.main] for problem in data.problems}
    found = [r for r in data.rankings if r.case in main and r.fastest]
    if not found:
        return {}
    remarks = [", some answers wrong"] * any(s.status is Status.WRONG for s in data.summaries)
    remarks += [", smoke run"] * data.quick
    label = f"rnnbench {data.labels.of(found[0].case)}" if len(found) == 1 else "rnnbench"
    said = _of_one(found[0]) if len(found) == 1 else _of_several(found)
    return {"schemaVersion": 1, "label": label, "message": said + "".join(remarks), "color": _colour(data, found)}


def _colour(data: ReportData, found: Sequence[Ranking]) -> str:
    if any(s.status is Status.WRONG for s in data.summaries):
        return "red"
    if data.quick:
        return "yellow"
    if not any(r.runner_up for r in found):
        return "blue"
    return "brightgreen" if all(r.sure for r in found) else "yellow"


def _of_one(r: Ranking) -> str:
    """`numba 3.53 ms, 4.3x ahead of jax`."""
    assert r.time is not None
    ahead = f", {ratio_value(r.lead)} ahead of {r.runner_up}" if r.lead and r.lead.lowest > 1 else ""
    return f"{r.fastest} {duration_text(r.time)}{ahead}"


def _of_several(found: Sequence[Ranking]) -> str:
    """`numba fastest in 2 of 3 networks, 4.3x to 7.8x ahead`."""
    (name, count), *_ = Counter(r.fastest for r in found).most_common(1)
    leads: list[Interval] = sorted((r.lead for r in found if r.fastest == name and r.lead), key=lambda lead: lead.value)
    ends = list(dict.fromkeys(ratio_value(lead) for lead in leads[:: max(1, len(leads) - 1)]))
    ahead = f", {' to '.join(ends)} ahead" if leads and min(lead.lowest for lead in leads) > 1 else ""
    return f"{name} fastest in {count} of {len(found)} networks{ahead}"
