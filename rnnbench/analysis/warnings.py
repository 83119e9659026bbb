"""What a reader should bear in mind of a run: each warning with its number, its threshold and its remedy.

Pure functions of records and of the facts in `machine.json`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from rnnbench.analysis.diagnostics import BIMODAL, UNSETTLED, bimodal, calls_of, drifts
from rnnbench.analysis.speeds import two_speeds
from rnnbench.analysis.stats import Summary, is_harmless, summaries
from rnnbench.analysis.trial import trial_of
from rnnbench.model import Pass
from rnnbench.records.record import Mode, Record, checks_in
from rnnbench.units import threads as counted_threads


class Severity(StrEnum):
    """How much a warning weighs, the heaviest first. A note says what is not known, and is no warning."""

    SEVERE = "severe"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class WarningKind:
    """What one sort of warning is called, and what helps."""

    title: str
    remedy: str
    of_sweep: str = ""  # where another one helps a sweep


AGAIN = "sweep again, and report both runs together"
KINDS = {
    "machines": WarningKind("several machines", "compare within one machine; measure again in a new folder"),
    "disturbed": WarningKind(
        "disturbed",
        "measure again when other programs rest; keep the machine awake, do not set its clock, and start no other run",
    ),
    "quick": WarningKind("quick run", "leave out --quick for numbers to quote"),
    "crowded": WarningKind("more threads than cores", "measure with fewer --threads, or allow more cores"),
    "others": WarningKind(
        "busy machine", "end other programs, or measure when they rest; trust ratios within rounds only"
    ),
    "stolen": WarningKind("steal time", "use a machine of your own, or one with dedicated cores"),
    "load": WarningKind("loaded machine", "wait until the load has fallen, then measure again"),
    "governor": WarningKind("frequency scaling", "set the governor: cpupower frequency-set -g performance"),
    "turbo": WarningKind(
        "turbo", "turn it off: write 1 to intel_pstate/no_turbo, or 0 to cpufreq/boost, in /sys/devices/system/cpu"
    ),
    "launches": WarningKind("few launches", "leave out --quick, or measure with run --rigorous", AGAIN),
    "calls": WarningKind("few calls", "measure with run --rigorous", AGAIN),
    "clock": WarningKind(
        "short calls",
        "ask for more work in a call: a larger batch, more steps, or the epoch pass",
        "sweep larger sizes only",
    ),
    "step_clock": WarningKind(
        "short steps",
        "make nothing of small differences, as a reading of the clock is in each step; or measure a larger batch or a "
        "wider network",
    ),
    "unsettled": WarningKind("warm-up not over", "measure with run --rigorous: its turns are longer", AGAIN),
    "drift": WarningKind("drifting rounds", "let the machine reach a steady temperature, then measure again"),
    "bimodal": WarningKind(
        "two modes", "look at the raw samples; pin the clock, free the machine, or report both modes"
    ),
    "speeds": WarningKind(
        "two speeds", "trust ratios within rounds; for times use a machine of your own, or pin its clock"
    ),
    "unknown": WarningKind("not known", "look at the host, or measure outside of the virtual machine or container"),
}


@dataclass(frozen=True)
class Sign:
    """One thing that was seen. `weight` orders those of one kind, the largest first; `where` is an answer or ""."""

    kind: str
    severity: Severity
    text: str
    weight: float = 0.0
    where: str = ""


@dataclass(frozen=True)
class Warned:
    """All signs of one kind: the worst in words, with number and threshold, and where else."""

    kind: str
    severity: Severity
    title: str
    text: str
    remedy: str
    where: tuple[str, ...] = ()

    @property
    def counts(self) -> bool:
        """Whether it is more than a note."""
        return self.severity is not Severity.NOTE


def facts_of(machine: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A group of facts in `machine.json`, empty where it is missing or no group."""
    found = machine.get(name)
    return found if isinstance(found, Mapping) else {}


def grouped(signs: Iterable[Sign], *, swept: bool = False) -> list[Warned]:
    """One warning a kind and severity, most severe first, then in the order of `KINDS`. `swept`: of a sweep."""
    groups: dict[tuple[Severity, str], list[Sign]] = {}
    for sign in signs:
        groups.setdefault((sign.severity, sign.kind), []).append(sign)
    order = sorted(groups, key=lambda key: (list(Severity).index(key[0]), list(KINDS).index(key[1])))
    return [_together(groups[key], swept) for key in order]


def _together(signs: list[Sign], swept: bool) -> Warned:
    signs = sorted(signs, key=lambda sign: -sign.weight)
    worst, kind = signs[0], KINDS[signs[0].kind]
    where = tuple(dict.fromkeys(sign.where for sign in signs if sign.where))
    if not where:
        text = "; ".join(dict.fromkeys(sign.text for sign in signs))
    elif len(where) == 1:
        text = f"{where[0]}: {worst.text}"
    else:
        text = f"{worst.text}, in {where[0]}; {len(where)} answers in all"
    remedy = (swept and kind.of_sweep) or kind.remedy
    return Warned(worst.kind, worst.severity, kind.title, text, remedy, where)


OTHERS, OTHERS_SEVERE = 0.05, 0.25  # of the time of the allowed cores
STOLEN, STOLEN_SEVERE = 0.01, 0.1
LOAD_BEFORE = 0.25  # a core; an idle machine is near 0
LOAD_AFTER = 1.25  # a core; the run itself keeps no more than 1 busy


def of_machine(records: Sequence[Record], machine: Mapping[str, Any]) -> Iterator[Sign]:
    """Load, other processes, stolen time, clock policy, and more threads than cores."""
    yield from _business(machine)
    yield from _clock_policy(facts_of(machine, "cpu"))
    yield from _crowded(records, machine)


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _number(facts: Mapping[str, Any], key: str) -> float | None:
    value = facts.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _business(machine: Mapping[str, Any]) -> Iterator[Sign]:
    start, end = facts_of(machine, "start"), facts_of(machine, "end")
    shares = (
        ("others", "others_share", "other processes took ", OTHERS, OTHERS_SEVERE),
        ("stolen", "stolen_share", "", STOLEN, STOLEN_SEVERE),
    )
    for kind, key, words, limit, severe in shares:
        before, during = _number(start, key), _number(end, key)
        value = during if during is not None else before
        when = "during the run" if during is not None else "just before the run"
        if value is not None and value > limit:
            text = f"{words}{_share(value)} of the allowed cores' time {when}; more than {_share(limit)} disturbs"
            yield Sign(kind, Severity.SEVERE if value > severe else Severity.WARNING, text)
    if _number(end, "others_share") is None:
        yield Sign("unknown", Severity.NOTE, "the load by other processes during the run was not recorded")
    for facts, when, limit in ((start or _old_load(machine), "start", LOAD_BEFORE), (end, "end", LOAD_AFTER)):
        load = _number(facts, "load_per_core")
        if load is not None and load > limit:
            text = f"load {load:.2f} per core at the {when} of the run, more than {limit:g}"
            yield Sign("load", Severity.WARNING, text)


def _old_load(machine: Mapping[str, Any]) -> dict[str, Any]:
    load, cores = machine.get("load"), _number(facts_of(machine, "cpu"), "allowed")
    minute = load[0] if isinstance(load, list) and load else None
    return {"load_per_core": minute / cores} if isinstance(minute, int | float) and cores else {}


def _clock_policy(cpu: Mapping[str, Any]) -> Iterator[Sign]:
    if not cpu:
        return
    governor, turbo = cpu.get("governor"), cpu.get("turbo")
    low, high = _number(cpu, "min_mhz"), _number(cpu, "max_mhz")
    between = f", which lets the clock move from {low:.0f} to {high:.0f} MHz" if low and high else ""
    if governor is None:
        yield Sign("unknown", Severity.NOTE, "the frequency governor is unknown")
    elif governor != "performance":
        yield Sign("governor", Severity.WARNING, f"the governor is {governor}{between}; with performance it stays up")
    if turbo is None:
        yield Sign(
            "unknown", Severity.NOTE, "whether the clock may rise above its nominal frequency (turbo) is unknown"
        )
    elif turbo == "on":
        text = "turbo is on: the clock rises above its nominal frequency as heat and other cores allow; off is steady"
        yield Sign("turbo", Severity.WARNING, text)


def _crowded(records: Sequence[Record], machine: Mapping[str, Any]) -> Iterator[Sign]:
    threads = max((r.contract.threads for r in checks_in(records) if r.contract), default=0)
    cores, group = _number(facts_of(machine, "cpu"), "allowed"), _number(facts_of(machine, "limits"), "cpus")
    for limit, words in ((cores, "cores are allowed"), (group, "processors are what the control group allows")):
        if limit is not None and threads > limit:
            yield Sign("crowded", Severity.SEVERE, f"{threads} threads, but {limit:g} {words}")


MIN_LAUNCHES = 3  # of fewer there is no interval
MIN_CALLS = 6  # one in each turn of a default run
RESOLUTIONS = 100  # in a call: an error of 1 %
DRIFT = 0.05  # from the first to the last, and surely so


def of_records(records: Sequence[Record], machine: Mapping[str, Any]) -> Iterator[Sign]:
    """What single records say: mode, machine, disturbances."""
    ids = sorted({r.machine_id for r in records if r.machine_id})
    if len(ids) > 1 or (ids and machine.get("machine_id") not in (None, *ids)):
        ids = sorted({*ids, str(machine.get("machine_id", ids[0]))})
        text = f"records and facts have {len(ids)} fingerprints, {', '.join(ids)}; only ratios within one of them hold"
        yield Sign("machines", Severity.SEVERE, text)
    quick = sum(r.mode is Mode.QUICK for r in records)
    if quick:
        yield Sign("quick", Severity.SEVERE, f"{quick} of {len(records)} records are of a smoke run, not for quoting")
    for r in records:
        for disturbance in r.disturbances:
            text = f"{disturbance} ({r.moment})"
            severity = Severity.NOTE if is_harmless(disturbance) else Severity.SEVERE
            yield Sign("disturbed", severity, text, where=f"{r.case.key} {r.backend}")


def of_answers(found: Sequence[Summary], machine: Mapping[str, Any]) -> Iterator[Sign]:
    """What all turns of an answer say together."""
    timed = [s for s in found if s.turns]
    for s in found:
        if (trial := trial_of(s)) is not None and trial.disturbed:
            words = " or ".join(map(counted_threads, trial.ranked or trial.tried[:1]))
            text = f"other programs disturbed its trial of threads; ranked by {words}, the better is not known"
            yield _sign("disturbed", s, text, 0.0)
    for s in timed:
        yield from _counts(s)
        if taken := [r.disturbed for r in s.disturbed]:
            most = f"up to {100 * max(taken):.0f} %"
            text = f"of {len(s.turns)} turns that count {len(taken)} were disturbed: other programs took {most} of them"
            yield _sign("disturbed", s, text, max(taken) * len(taken) / len(s.turns))
        yield from _clock(s, facts_of(machine, "clock"))
        if (share := bimodal(s)) is not None:
            text = f"{share.turns} of {share.of} turns have two modes {share.apart:.2f}x apart, Ashman's D "
            yield _sign("bimodal", s, f"{text}{share.separation:.1f}, more than {BIMODAL:g}", share.apart)
    for s, change in drifts(timed):
        if abs(change) > DRIFT:
            text = f"the times moved by {100 * change:+.0f} % from first to last; more than {100 * DRIFT:g} % matters"
            yield _sign("drift", s, text, abs(change))


def of_speeds(records: Sequence[Record]) -> Iterator[Sign]:
    """What all turns of the run say together."""
    if (found := two_speeds(records)) is not None:
        share = found.slow / found.turns
        text = (
            f"{_share(share)} of the turns take {found.apart:.2f} times as long as the other {_share(1 - share)}, all "
            f"backends at the same time, in {found.stretches} stretches; Ashman's D {found.separation:.1f}, more than "
            f"{BIMODAL:g}"
        )
        yield Sign("speeds", Severity.WARNING, text)


def _sign(kind: str, s: Summary, text: str, weight: float, severity: Severity = Severity.WARNING) -> Sign:
    return Sign(kind, severity, text, weight, f"{s.case.key} {s.backend}")


def _counts(s: Summary) -> Iterator[Sign]:
    launches, calls = len({key[:2] for key in s.turns}), calls_of(s)
    if launches < MIN_LAUNCHES:
        said = "1 launch" if launches == 1 else f"{launches} launches"
        yield _sign("launches", s, f"{said}, of fewer than {MIN_LAUNCHES} there is no interval", -launches)
    if calls.kept < MIN_CALLS:
        yield _sign("calls", s, f"{calls.kept} calls count, fewer than {MIN_CALLS}", -calls.kept)
    if calls.unsettled and calls.first:
        text = f"the first counted call takes {calls.first.value:.2f} times the later ones, more than {UNSETTLED:g}"
        yield _sign("unsettled", s, text, calls.first.value)


def _clock(s: Summary, clock: Mapping[str, Any]) -> Iterator[Sign]:
    """The clock resolves no better than its step, nor than a reading of it takes."""
    known = [clock[key] for key in ("step_ns", "read_ns") if isinstance(clock.get(key), int | float)]
    if not known:
        return
    typical, resolution = float(np.median([*s.turns.values()])) * 1e9, max(known)
    if typical < RESOLUTIONS * resolution:
        kind, what = ("step_clock", "step") if s.case.pass_ is Pass.STEP else ("clock", "call")
        text = (
            f"a {what} takes {typical:,.0f} ns, less than {RESOLUTIONS} times the clock's resolution, {resolution} ns"
        )
        yield _sign(kind, s, text, -typical)


DISTURBING = ("disturbed", "others", "stolen")  # kinds; averages of load tell of what was before the run as well


def disturbing(found: Iterable[Warned]) -> Warned | None:
    """The first warning of other work on the machine, or of disturbed turns, in a list that begins with the worst."""
    return next((w for w in found if w.counts and w.kind in DISTURBING), None)


MAX_NAMED = 8  # networks of a run that were chosen one by one; of more the remedies are those of a sweep


def warnings_of(records: Sequence[Record], machine: Mapping[str, Any]) -> list[Warned]:
    """All warnings of a run, most severe first; those of one kind stand in one."""
    found = summaries(records)
    signs = [
        *of_records(records, machine),
        *of_machine(records, machine),
        *of_answers(found, machine),
        *of_speeds(records),
    ]
    return grouped(signs, swept=len({r.case.name for r in records}) > MAX_NAMED)
