"""Which number of threads is the better for an answer, by pairs of turns that are not ranked; and how it was found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from rnnbench.analysis.stats import Summary, failed_trial, turn_seconds
from rnnbench.records.record import Record, Status, TrialRecord, trials_in

FEWEST_PAIRS = 2
MOST_PAIRS = 3
CLEAR = 1.1  # the fewest pairs decide where each of them shows one number of threads faster by this factor
BUSY_SHARE = 0.1  # of all cores of a run: above it others decide which number of threads is the better
TIE = 1.03  # fewer threads are taken where the median of all pairs shows them faster by more; else the most


def pairs_of(trials: Iterable[TrialRecord]) -> dict[tuple[int, int], dict[int, float]]:
    """Launch and pair -> threads -> seconds a call, of the pairs that have a time for every number of threads."""
    found: dict[tuple[int, int], dict[int, float]] = {}
    counts: set[int] = set()
    for r in trials:
        counts |= set(r.tried)
        seconds = turn_seconds(r) if r.status is Status.OK else None
        if seconds is not None and r.threads is not None:
            found.setdefault((r.launch, r.pair), {})[r.threads] = seconds
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


class Decision(NamedTuple):
    """The number of threads that is to be ranked, and whether undisturbed pairs say so."""

    threads: int
    sure: bool


def decision_of(trials: Sequence[TrialRecord], *, last: bool = False) -> Decision | None:
    """What the trial of an answer says, or None where another pair is needed; `last`: there is no other.

    Pairs of which others disturbed a turn have no part in it. Where fewer than `FEWEST_PAIRS` are left of them, a
    number has to do that does not change from run to run: the fewest threads, which others disturb least, unless each
    pair shows the most faster by `CLEAR` even so.
    """
    every, calm = list(pairs_of(trials).values()), calm_pairs_of(trials)
    if len(calm) == len(every) or len(calm) >= FEWEST_PAIRS:
        found = better(calm, last=last)
        return None if found is None else Decision(found, sure=True)
    if not last:
        return None
    few, most = min(every[0]), max(every[0])
    return Decision(most if all(CLEAR * pair[most] <= pair[few] for pair in every) else few, sure=False)


def calm_pairs_of(trials: Iterable[TrialRecord]) -> list[dict[int, float]]:
    """The pairs that others did not disturb."""
    return list(pairs_of(r for r in trials if not r.disturbed).values())


def trial_beside_others(records: Iterable[Record]) -> bool:
    """Whether others were near a trial of threads, so that the same code may come out differently in quiet.

    A turn by one thread that nobody takes its core from is not disturbed, and slower where the next core is in use.
    """
    sessions = _by_session(records)
    seen = (r.contention for trials in sessions for r in trials)
    return _in_doubt(sessions) or any(c is not None and (c.around_share or 0.0) > BUSY_SHARE for c in seen)


def _by_session(records: Iterable[Record]) -> list[list[TrialRecord]]:
    found: dict[tuple[str, int], list[TrialRecord]] = {}
    for r in trials_in(records):
        found.setdefault((r.run_id, r.part), []).append(r)
    return list(found.values())


def _in_doubt(sessions: Iterable[Sequence[TrialRecord]]) -> bool:
    """Whether others left too few pairs of one undisturbed to find the better number."""
    return any((found := decision_of(trials, last=True)) and not found.sure for trials in sessions)


@dataclass(frozen=True)
class Trial:
    """How the threads of an answer were found.

    `ratio`: the time of a call by the most threads over that by the fewest, the median of so many `pairs`, undisturbed
    ones unless it is `disturbed`; None where there were no pairs: the answer failed with one number of threads, as
    `failed` says, or a budget was spent. `disturbed`: others left too few pairs alone to find the better number.
    """

    tried: tuple[int, ...]
    ranked: tuple[int, ...]  # several where runs that chose differently are shown as one
    ratio: float | None
    pairs: int
    failed: str | None
    disturbed: bool = False


def trial_of(summary: Summary) -> Trial | None:
    """How the threads of an answer were found; None where nothing was to be found."""
    records = summary.records
    tried = summary.tried
    if not tried:
        return None
    sessions = _by_session(records)
    in_doubt = _in_doubt(sessions)
    taken = (list(pairs_of(each).values()) if in_doubt else calm_pairs_of(each) for each in sessions)
    pairs = [pair for each in taken for pair in each]
    ratio = median(pair[max(tried)] / pair[min(tried)] for pair in pairs) if pairs else None
    return Trial(tried, summary.threads, ratio, len(pairs), failed_trial(records), in_doubt)
