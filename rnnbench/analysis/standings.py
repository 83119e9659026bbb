"""How each backend stands over many cases: where it is first, and how near it comes to its fastest rival elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rnnbench.analysis.stats import Summary, by_case, ratio_of
from rnnbench.model import Case

if TYPE_CHECKING:
    import pandas as pd

NEAR = 0.9  # of the fastest rival's speed


@dataclass(frozen=True)
class Cell:
    """One backend on one case: the fastest other backend's time over its own, by shared rounds."""

    backend: str
    case: Case
    rival: str
    ratio: float


@dataclass(frozen=True)
class Standing:
    """One backend over all cases that it and at least one rival were measured in."""

    backend: str
    cells: tuple[Cell, ...]

    @property
    def first(self) -> int:
        """In how many it is faster than every other."""
        return sum(cell.ratio > 1 for cell in self.cells)

    @property
    def near(self) -> int:
        """In how many it has at least `NEAR` of the fastest rival's speed."""
        return sum(cell.ratio >= NEAR for cell in self.cells)

    @property
    def worst(self) -> Cell:
        """Where it is furthest behind, or least ahead."""
        return min(self.cells, key=lambda cell: cell.ratio)


def cells_of(group: Sequence[Summary]) -> list[Cell]:
    """One for each right backend of a case that shares rounds with a right rival."""
    ranked = [s for s in group if s.ranked]
    cells = []
    for s in ranked:
        ratios = {other.backend: ratio_of(other.turns, s.turns) for other in ranked if other is not s}
        known = {name: ratio.value for name, ratio in ratios.items() if ratio}
        if known:
            rival = min(known, key=lambda name: known[name])
            cells.append(Cell(s.backend, s.case, rival, known[rival]))
    return cells


def standings(found: Iterable[Summary]) -> list[Standing]:
    """One for each backend, whoever is first most often in front."""
    cells: dict[str, list[Cell]] = {}
    for group in by_case(found).values():
        for cell in cells_of(group):
            cells.setdefault(cell.backend, []).append(cell)
    made = [Standing(backend, tuple(own)) for backend, own in cells.items()]
    return sorted(made, key=lambda s: (-s.first / len(s.cells), -s.near / len(s.cells)))


def cells(found: Iterable[Summary]) -> pd.DataFrame:
    """One row for each case and right backend: the sizes, the fastest rival, and its time over the backend's."""
    import pandas as pd

    rows = [
        {
            "case": cell.case.key,
            "pass": str(cell.case.pass_),
            "dtype": str(cell.case.dtype),
            "H": cell.case.model.H,
            "B": cell.case.B,
            "T": cell.case.T,
            "E": cell.case.model.E,
            "backend": cell.backend,
            "fastest_rival": cell.rival,
            "speed_over_rival": cell.ratio,
        }
        for group in by_case(found).values()
        for cell in cells_of(group)
    ]
    return pd.DataFrame(rows)
