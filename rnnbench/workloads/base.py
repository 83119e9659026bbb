"""What a workload is: a model, how it is trained, and where its rows come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rnnbench.data import Data, Inputs
from rnnbench.model import Model, Train
from rnnbench.params import Init

Split = Data


class WorkloadUnavailable(Exception):
    """The data of a workload cannot be had. The message is one sentence for the user, with the way out."""


@dataclass(frozen=True)
class Dataset:
    """Rows to train on, to validate on after each epoch (None: the test rows), and to test on.

    `source` says in one line where the rows come from.
    """

    train: Split
    test: Split
    validation: Split | None
    source: str


@dataclass(frozen=True)
class Source:
    """What a loader is told: the seed for rows that are made, the folder to look in, the length of a row.

    `say` is told before anything that takes long, such as a download.
    """

    T: int
    seed: int = 0
    data_dir: Path | None = None
    say: Callable[[str], None] = lambda text: None


@dataclass(frozen=True)
class Workload:
    """A named task. `load` makes or reads its rows; it raises `WorkloadUnavailable` where it cannot.

    `stand_in` names the workload to use instead where the data cannot be had; `free_length` says whether T may be
    chosen; `expect` says what accuracy to expect where that would surprise.
    """

    name: str
    summary: str
    model: Model
    train: Train
    B: int
    T: int
    epochs: int
    rows: tuple[int, int]  # to train on; in all
    load: Callable[[Source], Dataset]
    init: Init = Init.KERAS
    stand_in: str | None = None
    free_length: bool = False
    expect: str = ""
    short_epoch: int = 25  # batches of the `epoch` pass, unless a run asks for the whole data set

    def with_length(self, T: int) -> Workload:
        """The same task on rows of T steps. Raises ValueError where T is fixed by the data or below 1."""
        if not self.free_length:
            raise ValueError(f"{self.name} has T = {self.T}, fixed; only running-parity takes another length")
        if T < 1:
            raise ValueError(f"T is {T}; it must be at least 1")
        return replace(self, T=T)


def rows(inputs: Inputs, targets: Inputs, start: int, stop: int) -> Split:
    """Rows [start, stop) as a split; views, no copy."""
    return Split(inputs[start:stop], targets[start:stop])
