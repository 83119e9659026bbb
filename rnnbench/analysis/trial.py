"""Which number of threads is the better for an answer, by pairs of turns that are not ranked; and how it was found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from rnnbench.analysis.stats import Summary, failed_trial, turn_seconds
from rnnbench.records.record import Status, TrialRecord, trials_in

FEWEST_PAIRS = 2
MOST_PAIRS = 3
CLEAR = 1.1  # the fewest pairs decide where each of them shows one number of threads faster by this factor
TIE = 1.03  # fewer threads are taken where the median of all pairs shows them faster by more; else the most


def pairs_of(trials: Iterable[TrialRecord]) -> dict[int, dict[int, float]]:
    """Pair -> threads -> seconds a call, of the pairs that have a time for every number of threads."""
    found: dict[int, dict[int, float]] = {}
    counts: set[int] = set()
    for r in trials:
        counts |= set(r.tried)
        seconds = turn_seconds(r) if r.status is Status.OK else None
        if seconds is not None and r.threads is not None:
            found.setdefault(r.pair, {})[r.threads] = seconds
    return {pair: times for pair, times in found.items() if times.keys() == counts}


def better(pairs: Sequence[Mapping[int, float]], *, last: bool = False) -> int | None:
    """The number of threads that is to be ranked, or None where another pair is needed; `last`: there is no other.

    Fewer threads have to be faster by more than `TIE`: who computes alike with both is ranked with the most.
    """
    if not pairs:
        return None
    few, most = min(pairs[0]), max(pairs[0])
    ratios = [pair[most] / pair[few] for pair in pairs]
    if len(ratios) >= FEWEST_PAIRS and (min(ratios) >= CLEAR or max(ratios) <= 1 / CLEAR):
        return few if ratios[0] > 1 else most
    if len(ratios) < MOST_PAIRS and not last:
        return None
    return few if median(ratios) > TIE else most


@dataclass(frozen=True)
class Trial:
    """How the threads of an answer were found.

    `ratio`: the time of a call by the most threads over that by the fewest, the median of so many `pairs`; None where
    there were no pairs: the answer failed with one number of threads, as `failed` says, or a budget was spent.
    """

    tried: tuple[int, ...]
    ranked: tuple[int, ...]  # several where runs that chose differently are shown as one
    ratio: float | None
    pairs: int
    failed: str | None


def trial_of(summary: Summary) -> Trial | None:
    """How the threads of an answer were found; None where nothing was to be found."""
    records = summary.records
    tried = summary.tried
    if not tried:
        return None
    by_session: dict[tuple[str, int], list[TrialRecord]] = {}
    for r in trials_in(records):
        by_session.setdefault((r.run_id, r.part), []).append(r)
    pairs = [pair for trials in by_session.values() for pair in pairs_of(trials).values()]
    ratio = median(pair[max(tried)] / pair[min(tried)] for pair in pairs) if pairs else None
    return Trial(tried, summary.threads, ratio, len(pairs), failed_trial(records))
