"""Words for readers: labels, values with their intervals, one sentence for the answer to a case."""

from __future__ import annotations

from dataclasses import dataclass

from rnnbench.analysis.ranking import Ranking
from rnnbench.analysis.stats import WIDEST, Basis, Interval
from rnnbench.model import Case, Pass
from rnnbench.units import decimals_of, number, threads, unit_for

QUICK = "quick: a smoke run, not for quoting"
ONE_LAUNCH = "†"
NO_INTERVAL = "‡"
NOISY = "(noisy)"
ONE_THREAD = "¹"
MARKS = {Basis.LAUNCHES: "", Basis.ROUNDS: ONE_LAUNCH, Basis.NONE: NO_INTERVAL}
FOOTNOTES = {
    ONE_LAUNCH: "one launch: within-process spread only, so the true interval is wider",
    ONE_THREAD: "by one thread; times without this mark are by all threads of the run",
    NO_INTERVAL: "fewer than three launches, or three rounds of one: no interval",
    NOISY: f"its 95 % interval is wider than a factor of {WIDEST:g}, or its two launches are further apart: measure "
    "longer, or on a quieter machine",
}


def scientific(value: float) -> str:
    """An error: two digits and a power of ten."""
    return f"{value:.1e}"


def _said(interval: Interval, value: str, ends: tuple[str, str]) -> str:
    """A value that was written by `value_text` or `ratio_value`, with its interval as far as that says anything."""
    mark = MARKS[interval.basis]
    if interval.noisy:
        return f"{value}{mark} {NOISY}"
    return f"{value}{mark}" if interval.basis is Basis.NONE else f"{value} ({ends[0]} to {ends[1]}){mark}"


def value_text(interval: Interval, scale: float = 1.0, digits: int = 3) -> str:
    """The value alone, in units of `scale`: `0.213`, or `about 0.21` where its interval is too wide."""
    value = interval.value / scale
    return f"about {number(_rough(value), 2)}" if interval.noisy else number(value, digits)


def _rough(value: float) -> float:
    """Two digits of it: 2,156 is 2,200."""
    return float(f"{value:.2g}")


def with_interval(interval: Interval, scale: float = 1.0, digits: int = 3) -> str:
    """`0.213 (0.205 to 0.221)` in units of `scale`, with its mark; only the value where there is no interval."""
    decimals = decimals_of(interval.value / scale, digits)
    low, high = (number(v / scale, decimals=decimals) for v in (interval.low, interval.high))
    return _said(interval, value_text(interval, scale, digits), (low, high))


def ratio_text(ratio: float) -> str:
    """A ratio: 1.02x, 3.3x, 12x."""
    return f"{number(ratio, decimals=_ratio_decimals(ratio))}x"


def _ratio_decimals(ratio: float) -> int:
    return 0 if ratio >= 9.95 else 1 if ratio >= 1.95 else 2 if ratio >= 0.095 else decimals_of(ratio, 2)


def ratio_value(ratio: Interval) -> str:
    """A ratio alone: `3.3x`, or `about 3.3x` where its interval is too wide."""
    return f"about {number(_rough(ratio.value), 2)}x" if ratio.noisy else ratio_text(ratio.value)


def ratio_with_interval(ratio: Interval) -> str:
    """`3.3x (3.1 to 3.5)`, with its mark."""
    low, high = (number(v, decimals=_ratio_decimals(ratio.value)) for v in (ratio.low, ratio.high))
    return _said(ratio, ratio_value(ratio), (low, high))


def short(text: str | None, limit: int = 60) -> str:
    """The text on one line, cut at a word where it is longer than `limit`."""
    line = " ".join((text or "").split())
    if len(line) <= limit:
        return line
    head, _, _ = line[: limit - 1].rpartition(" ")
    return (head if len(head) > limit // 2 else line[: limit - 1]).rstrip(" ,;:") + "…"


def status_text(status: str, reason: str | None, limit: int = 60) -> str:
    """Why a cell is empty: the status and the short reason."""
    return f"{status}: {short(reason, limit)}" if reason else status


def plain(text: str) -> str:
    """Text that any font can draw: other signs than Latin ones become question marks."""
    return "".join(c if (c.isprintable() and ord(c) < 256) or c in "…†‡¹" else "?" for c in text)


def is_stand_in(data_source: str) -> bool:
    """Whether rows were made up because the real ones could not be had: their source, as records hold it, says so."""
    return data_source.startswith("synthetic stand-in")


def workload_label(workload: str, data_source: str) -> str:
    """The workload's name, with "(synthetic)" where its data is a stand-in and the name does not say so."""
    return f"{workload} (synthetic)" if is_stand_in(data_source) and "synthetic" not in workload else workload


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

    def keys(self, case: Case) -> dict[str, str]:
        """What the filters of a page know a case by."""
        network = self.problem(case.name, str(case.dtype), str(case.truncation or ""))
        return {"network": network, "cell": case.model.cell, "dtype": str(case.dtype), "pass": str(case.pass_)}


def _lead(over: str, ratio: Interval) -> str:
    """How far ahead of another backend, or that there is no sure difference."""
    no_difference = f"no sure difference to {over}"
    if ratio.noisy:
        counted = f"{ratio.count} {'rounds of one launch' if ratio.basis is Basis.ROUNDS else 'launches'}"
        return f"{f'{ratio_value(ratio)} ahead of {over}' if ratio.lowest > 1 else no_difference} (noisy, {counted})"
    said = ratio_with_interval(ratio)
    return f"{said} ahead of {over}" if ratio.lowest > 1 else f"{no_difference}: {said}"


def how_sure(ranking: Ranking) -> str:
    """One or two words on what the leads rest on; none where launches show one of them to be no sure difference."""
    if ranking.fastest is None:
        return "none measured"
    if ranking.runner_up is None:
        return "no rival measured"
    if ranking.sure:
        return "sure"
    bases = {lead.basis for lead in ranking.leads.values()}
    if bases == {Basis.LAUNCHES}:
        return ""
    return "one launch only" if bases == {Basis.ROUNDS} else "no interval"


def duration_text(time: Interval, steps: int = 1) -> str:
    """The value alone with its unit, of one of so many steps: `0.213 ms`, `about 0.21 ms`."""
    unit = unit_for([time.value / steps])
    return f"{value_text(time, unit.seconds * steps)} {unit.name}"


def time_text(ranking: Ranking) -> str:
    """The time of the fastest: `0.210 ms by 2 threads`, of an epoch its steps' too."""
    assert ranking.time is not None
    step = duration_text(ranking.time, ranking.case.steps)
    a_step = f" ({step} a step)" if ranking.case.pass_ is Pass.EPOCH else ""
    by = f" by {' or '.join(map(threads, ranking.threads))}" if ranking.threads else ""
    return f"{duration_text(ranking.time)}{a_step}{by}"


def leads_text(ranking: Ranking) -> str:
    """Its leads: `3.3x (3.1 to 3.5) ahead of jax, 9.1x (8.8 to 9.4) ahead of torch`."""
    if ranking.lead is None:
        return f"first by its own times; it shares no round with {ranking.runner_up}, next"
    return ", ".join(_lead(name, lead) for name, lead in ranking.leads.items())


def ranking_text(ranking: Ranking) -> str:
    """The fastest and its lead: `numba 0.210 ms, 3.3x (3.1 to 3.5) ahead of jax`; over the reference too."""
    unranked = ", ".join(f"{name} {status}" for name, status in ranking.unranked.items())
    if ranking.fastest is None or ranking.time is None:
        return f"no backend was measured ({unranked})"
    start = f"{ranking.fastest} {time_text(ranking)}"
    if ranking.runner_up is None:
        return f"{start}, the only one measured{f' ({unranked})' if unranked else ''}"
    return f"{start}, {leads_text(ranking)}"
