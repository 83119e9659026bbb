"""The sizes of a sweep: one axis at a time around a centre, or all H with all B. Data only, no arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

AXES = ("H", "B", "T")


@dataclass(frozen=True)
class Sizes:
    """One case of dense input: hidden units, batch rows, steps."""

    H: int = 128
    B: int = 32
    T: int = 100

    def __post_init__(self) -> None:
        for name in AXES:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")

    def along(self, axis: str, sizes: tuple[int, ...]) -> list[Sizes]:
        """These sizes with each of `sizes` on one axis, in order."""
        return [replace(self, **{axis: size}) for size in sorted(set(sizes))]


@dataclass(frozen=True)
class Sweep:
    """What is swept. An axis without sizes stays at the centre. `E`: the width of the inputs, None for as wide as H.

    `grid`: each H with each B, at the T of the centre, besides the axes.
    """

    H: tuple[int, ...] = ()
    B: tuple[int, ...] = ()
    T: tuple[int, ...] = ()
    centre: Sizes = Sizes()
    E: int | None = None
    grid: bool = False

    def __post_init__(self) -> None:
        if self.E is not None and self.E < 1:
            raise ValueError(f"E is {self.E}; it must be at least 1")
        for axis in AXES:
            self.centre.along(axis, getattr(self, axis))  # refuses a size below 1
        if not any(getattr(self, axis) for axis in AXES):
            raise ValueError("no axis is swept; give H, B or T more than one size")
        if self.grid and not (self.H and self.B):
            raise ValueError("a grid needs more than one size of H and of B")

    @property
    def axes(self) -> dict[str, list[Sizes]]:
        """Axis -> its cases from small to large, the centre not added."""
        swept = {axis: getattr(self, axis) for axis in AXES}
        return {axis: self.centre.along(axis, sizes) for axis, sizes in swept.items() if sizes}

    @property
    def cases(self) -> list[Sizes]:
        """All cases, each once: axis by axis, then what the grid adds."""
        return list(dict.fromkeys([*(s for group in self.axes.values() for s in group), *self._grid()]))

    def _grid(self) -> Iterator[Sizes]:
        if self.grid:
            for H, B in product(sorted(self.H), sorted(self.B)):
                yield replace(self.centre, H=H, B=B)
