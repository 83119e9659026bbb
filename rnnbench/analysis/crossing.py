"""From which size a GPU is worth it: where its time falls below the fastest CPU backend's, between measured sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

Line = Mapping[int, float]  # size -> seconds


@dataclass(frozen=True)
class Stretch:
    """Sizes at which the GPU is ahead. None: from the smallest, or up to the largest that was measured."""

    since: float | None
    until: float | None


@dataclass(frozen=True)
class Ahead:
    """Where one line is below another over the sizes that both have; `stretches` from small to large."""

    sizes: tuple[int, ...]
    stretches: tuple[Stretch, ...]

    @property
    def always(self) -> bool:
        """At every size."""
        return self.stretches == (Stretch(None, None),)


def fastest(lines: Sequence[Line]) -> dict[int, float]:
    """Size -> the shortest time of any line that has it."""
    sizes = sorted({size for line in lines for size in line})
    return {size: min(line[size] for line in lines if size in line) for size in sizes}


def crossing(left: tuple[int, float], right: tuple[int, float]) -> float:
    """The size between two where a ratio that is above 1 at one and not at the other is 1: a line in the logarithms."""
    (a, x), (b, y) = ((size, math.log(ratio)) for size, ratio in (left, right))
    part = x / (x - y)
    return math.exp(math.log(a) + part * (math.log(b) - math.log(a)))


def ahead(gpu: Line, cpu: Line) -> Ahead | None:
    """Where `gpu` takes less time than `cpu`; None where they share no size."""
    sizes = tuple(sorted(gpu.keys() & cpu.keys()))
    if not sizes:
        return None
    ratios = [(size, cpu[size] / gpu[size]) for size in sizes]
    stretches: list[Stretch] = []
    since: float | None = None
    inside = ratios[0][1] > 1
    for before, after in pairwise(ratios):
        if (after[1] > 1) == inside:
            continue
        at = crossing(before, after)
        if inside:
            stretches.append(Stretch(since, at))
        since, inside = at, not inside
    if inside:
        stretches.append(Stretch(since, None))
    return Ahead(sizes, tuple(stretches))
