"""Words and figures for readers: labels, units, sensible digits, one sentence for an answer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from rnnbench.analysis.ranking import Ranking
from rnnbench.analysis.stats import Basis, Interval
from rnnbench.model import Case, Pass

QUICK = "quick: a smoke run, not for quoting"
ONE_LAUNCH = "†"
NO_INTERVAL = "‡"
MARKS = {Basis.LAUNCHES: "", Basis.ROUNDS: ONE_LAUNCH, Basis.NONE: NO_INTERVAL}
FOOTNOTES = {
    ONE_LAUNCH: "one launch: within-process spread only, so the true interval is wider",
    NO_INTERVAL: "fewer than three launches, or three rounds of one: no interval",
}


@dataclass(frozen=True)
class Unit:
    """A unit of time and its length in seconds."""

    name: str
    seconds: float


UNITS = (Unit("µs", 1e-6), Unit("ms", 1e-3), Unit("s", 1.0))


def unit_for(seconds: Iterable[float]) -> Unit:
    """The largest unit in which the shortest of these times is still at least 0.1."""
    shortest = min((s for s in seconds if math.isfinite(s) and s > 0), default=1.0)
    return next((u for u in reversed(UNITS) if shortest >= 0.1 * u.seconds), UNITS[0])


def decimals_of(value: float, digits: int = 3) -> int:
    """How many decimals show that many significant digits."""
    if value == 0 or not math.isfinite(value):
        return 0
    return max(0, digits - 1 - math.floor(math.log10(abs(value))))


def number(value: float, digits: int = 3, decimals: int | None = None) -> str:
    """A number in plain digits, thousands parted by commas; "" for NaN."""
    if math.isnan(value):
        return ""
    if math.isinf(value):
        return "inf"
    return f"{value:,.{decimals_of(value, digits) if decimals is None else decimals}f}"


def scientific(value: float) -> str:
    """An error: two digits and a power of ten."""
    return f"{value:.1e}"


def with_interval(interval: Interval, scale: float = 1.0, digits: int = 3) -> str:
    """`0.213 (0.205 to 0.221)` in units of `scale`, with its mark; the value alone where there is no interval."""
    value = interval.value / scale
    mark = MARKS[interval.basis]
    if interval.basis is Basis.NONE:
        return f"{number(value, digits)}{mark}"
    decimals = decimals_of(value, digits)
    low, high = (number(v / scale, decimals=decimals) for v in (interval.low, interval.high))
    return f"{number(value, decimals=decimals)} ({low} to {high}){mark}"


def times(ratio: float) -> str:
    """A ratio: 1.02x, 3.3x, 12x."""
    return f"{number(ratio, decimals=_ratio_decimals(ratio))}x"


def _ratio_decimals(ratio: float) -> int:
    return 0 if ratio >= 9.95 else 1 if ratio >= 1.95 else 2 if ratio >= 0.095 else decimals_of(ratio, 2)


def times_with_interval(ratio: Interval) -> str:
    """`3.3x (3.1 to 3.5)`, with its mark."""
    mark = MARKS[ratio.basis]
    if ratio.basis is Basis.NONE:
        return f"{times(ratio.value)}{mark}"
    low, high = (number(v, decimals=_ratio_decimals(ratio.value)) for v in (ratio.low, ratio.high))
    return f"{times(ratio.value)} ({low} to {high}){mark}"


def threads(count: int) -> str:
    """`1 thread`, `2 threads`."""
    return f"{count} thread" if count == 1 else f"{count} threads"


def duration(seconds: float, digits: int = 3) -> str:
    """A time in its own unit; "" for NaN."""
    if math.isnan(seconds):
        return ""
    unit = unit_for([seconds])
    return f"{number(seconds / unit.seconds, digits)} {unit.name}"


def short(text: str | None, limit: int = 60) -> str:
    """The text on one line, cut at a word where it is longer than `limit`."""
    line = " ".join((text or "").split())
    if len(line) <= limit:
        return line
    head, _, _ = line[: limit - 1].rpartition(" ")
    return (head if len(head) > limit // 2 else line[: limit - 1]).rstrip(" ,;:") + "…"


def told(status: str, reason: str | None, limit: int = 60) -> str:
    """Why a cell is empty: the status and the short reason."""
    return f"{status}: {short(reason, limit)}" if reason else status


def plain(text: str) -> str:
    """Text that any font can draw: other signs than Latin ones become question marks."""
    return "".join(c if (c.isprintable() and ord(c) < 256) or c in "…†‡" else "?" for c in text)


def workload_label(workload: str, data_source: str) -> str:
    """The workload's name, with "(synthetic)" where its data is a stand-in and the name does not say so."""
    made_up = "synthetic" in data_source.lower()
    return f"{workload} (synthetic)" if made_up and "synthetic" not in workload else workload


@dataclass(frozen=True)
class Labels:
    """How cases are called in one report: the type is named only where a run has several."""

    sources: dict[str, str]  # workload -> data source
    several_dtypes: bool

    def problem(self, workload: str, dtype: str, truncation: str) -> str:
        """Workload, type and truncation."""
        parts = [workload_label(workload, self.sources.get(workload, ""))]
        parts += [dtype] if self.several_dtypes else []
        parts += [f"truncated {truncation}"] if truncation else []
        return " ".join(parts)

    def of(self, case: Case) -> str:
        """The problem's label and the pass."""
        return f"{self.problem(case.name, str(case.dtype), str(case.truncation or ''))} {case.pass_}"


def _lead(over: str, ratio: Interval) -> str:
    """How far ahead of somebody, or that it cannot be told."""
    if ratio.low > 1 or (ratio.basis is Basis.NONE and ratio.value > 1):
        return f"{times_with_interval(ratio)} ahead of {over}"
    return f"not told apart from {over}: {times_with_interval(ratio)}"


def _nobody(answer: Ranking) -> str:
    silent = ", ".join(f"{name} {status}" for name, status in answer.unranked.items())
    return f"nobody was measured ({silent})"


def how_sure(answer: Ranking) -> str:
    """One or two words on what the lead rests on."""
    if answer.fastest is None:
        return "nobody measured"
    if answer.runner_up is None:
        return "no rival measured"
    if answer.basis is Basis.LAUNCHES:
        return "sure" if answer.sure else "not sure"
    return "one launch only" if answer.basis is Basis.ROUNDS else "no interval"


def verdict_of(answer: Ranking) -> str:
    """Who won, by how much, how sure: `numba 0.210 ms, 3.3x (3.1 to 3.5) ahead of jax`; the reference too."""
    if answer.fastest is None:
        return _nobody(answer)
    step = answer.seconds / answer.case.steps
    a_step = f" ({duration(step)} a step)" if answer.case.pass_ is Pass.EPOCH else ""
    start = f"{answer.fastest} {duration(answer.seconds)}{a_step}"
    if answer.runner_up is None:
        silent = ", ".join(f"{name} {status}" for name, status in answer.unranked.items())
        return f"{start}, alone{f' ({silent})' if silent else ''}"
    if answer.ratio is None:
        return f"{start}, first by its own times; it shares no round with {answer.runner_up}, next"
    leads = [_lead(answer.runner_up, Interval(answer.ratio, answer.low, answer.high, answer.basis))]
    if answer.over_reference is not None and answer.reference not in (None, answer.runner_up):
        leads.append(_lead(f"{answer.reference}", answer.over_reference))
    return f"{start}, {', '.join(leads)}"
