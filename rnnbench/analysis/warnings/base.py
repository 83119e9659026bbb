"""The kinds of warnings with their remedies, and how many signs of one kind become one warning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """How much a warning weighs, the heaviest first. A note says what is not known, and is no warning."""

    SEVERE = "severe"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Kind:
    """What one sort of warning is called, and what helps."""

    title: str
    remedy: str
    of_sweep: str = ""  # where another one helps a sweep


AGAIN = "sweep again, and report both runs together"
KINDS = {
    "machines": Kind("several machines", "compare within one machine; measure again in a new folder"),
    "disturbed": Kind("disturbed", "measure again; keep the machine awake and its clock alone meanwhile"),
    "quick": Kind("quick run", "leave out --quick for numbers to quote"),
    "crowded": Kind("more threads than cores", "measure with fewer --threads, or allow more cores"),
    "others": Kind("busy machine", "end other programs, or measure when they rest; trust ratios within rounds only"),
    "stolen": Kind("stolen time", "use a machine of your own, or one with dedicated cores"),
    "load": Kind("loaded machine", "wait until the load has fallen, then measure again"),
    "governor": Kind("frequency scaling", "set the governor: cpupower frequency-set -g performance"),
    "turbo": Kind(
        "turbo", "turn it off: write 1 to intel_pstate/no_turbo, or 0 to cpufreq/boost, in /sys/devices/system/cpu"
    ),
    "launches": Kind("few launches", "leave out --quick, or measure with run --rigorous", AGAIN),
    "calls": Kind("few calls", "measure with run --rigorous", AGAIN),
    "clock": Kind(
        "short calls",
        "ask for more work in a call: a larger batch, more steps, or the epoch pass",
        "sweep larger sizes alone",
    ),
    "unsettled": Kind("warm-up not over", "measure with run --rigorous: its turns are longer", AGAIN),
    "drift": Kind("drifting rounds", "let the machine reach a steady temperature, then measure again"),
    "bimodal": Kind("two modes", "look at the raw samples; pin the clock, free the machine, or report both modes"),
    "unknown": Kind("not known", "look at the host, or measure outside of the virtual machine or container"),
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
