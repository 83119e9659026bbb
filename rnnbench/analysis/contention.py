"""How much other programs took from the turns of a run, and from which most."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from rnnbench.records.record import Contention, Record, TurnRecord, turns_in


@dataclass(frozen=True)
class Amounts:
    """What others took of some seconds, as shares; None for what is not known.

    `waited`: run delay of all threads over the time of the turn, so more than 1 where several wait. `throttled`: the
    time that a control group was held back, of all cores, over that of the turn. `slowed`: the time of the probe over
    its best in the run, less 1.
    """

    seconds: float
    waited: float | None
    involuntary_switches: int | None
    others: float | None
    stolen: float | None
    throttled: float | None
    slowed: float | None

    @property
    def largest(self) -> float:
        """The largest of the shares; 0 where none is known."""
        shares = self.waited, self.others, self.stolen, self.throttled, self.slowed
        return max((x for x in shares if x is not None), default=0.0)


@dataclass(frozen=True)
class ContendedTurn:
    """A turn, by its place in the run, and what others took of it."""

    case: str
    backend: str
    moment: str
    amounts: Amounts


@dataclass(frozen=True)
class RunContention:
    """Of `of` turns of a run `turns` tell; what others took of them together; the worst of them, the worst first.

    `slowed` of all is that of their median turn.
    """

    run_id: str
    turns: int
    of: int
    all: Amounts
    worst: tuple[ContendedTurn, ...]


def contention_of(records: Iterable[Record], worst: int) -> list[RunContention]:
    """For each run whose turns tell: the sums, and so many of its worst turns, by the largest of their shares."""
    runs: dict[str, list[TurnRecord]] = {}
    for r in turns_in(records):
        if r.samples_ns:
            runs.setdefault(r.run_id, []).append(r)
    found = []
    for run_id, turns in runs.items():
        told = [(r, r.contention) for r in turns if r.contention is not None]
        if not told:
            continue
        best = min((ns for _, c in told for ns in c.probe_ns), default=None)
        each = [ContendedTurn(r.case.key, r.backend, r.moment, _amounts(c, best)) for r, c in told]
        together = _together([c for _, c in told], [turn.amounts for turn in each])
        ordered = sorted(each, key=lambda turn: -turn.amounts.largest)
        found.append(RunContention(run_id, len(told), len(turns), together, tuple(ordered[:worst])))
    return found


def _amounts(c: Contention, best: int | None) -> Amounts:
    """`best` is the shortest probe of the run. The slower of both probes counts."""
    ns = c.run_delay_ns, c.throttled_ns
    waited, throttled = (None if each is None else each / 1e9 / max(c.seconds, 1e-9) for each in ns)
    slowed = max(c.probe_ns) / best - 1 if c.probe_ns and best else None
    return Amounts(c.seconds, waited, c.involuntary_switches, c.others_share, c.stolen_share, throttled, slowed)


def _together(told: Sequence[Contention], each: Sequence[Amounts]) -> Amounts:
    switches = [c.involuntary_switches for c in told if c.involuntary_switches is not None]
    slowed = [a.slowed for a in each if a.slowed is not None]
    return Amounts(
        sum(c.seconds for c in told),
        _mean((a.waited, a.seconds) for a in each),
        sum(switches) if switches else None,
        _mean((a.others, a.seconds) for a in each),
        _mean((a.stolen, a.seconds) for a in each),
        _mean((a.throttled, a.seconds) for a in each),
        median(slowed) if slowed else None,
    )


def _mean(shares: Iterable[tuple[float | None, float]]) -> float | None:
    """Of the shares that are known, weighted by their seconds."""
    known = [(share, seconds) for share, seconds in shares if share is not None]
    weight = sum(seconds for _, seconds in known)
    return sum(share * seconds for share, seconds in known) / weight if weight else None
