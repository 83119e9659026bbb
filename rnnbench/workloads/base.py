"""What a workload is: a model, how it is trained, how many rows a batch has, and where the rows come from."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from rnnbench.data import Data, check_data
from rnnbench.model import DType, Loss, Model, Problem, Train, one_of
from rnnbench.params import Init

Split = Data
MADE_UP = "made-up"  # where a spec's rows come from: random numbers of any sizes
MAX_NAME = 120  # letters; it is the name of a file too
ADAM = Train()  # how a workload is trained that does not say


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
    """What a loader is given: the sizes it is asked for, the seed for rows that are made, the folder to look in.

    `say` gets a sentence before anything that takes long, such as a download.
    """

    T: int
    seed: int = 0
    data_dir: Path | None = None
    say: Callable[[str], None] = lambda text: None
    model: Model | None = None
    B: int = 1


Loader = Callable[[Source], Dataset]


@dataclass(frozen=True)
class Spec:
    """All of a workload but its rows, as a plan keeps it: a run is resumed by this alone.

    `origin` says where the rows come from: the built-in workload of that name, `made-up`, or, where it is empty, the
    folder of the run. `rows`: how many to train on, and how many in all.
    """

    name: str
    model: Model
    train: Train
    B: int
    T: int
    epochs: int
    rows: tuple[int, int]
    init: Init = Init.KERAS
    short_epoch: int = 25
    expect: str = ""
    stand_in: str | None = None
    made_up: bool = False
    origin: str = ""
    kept: str = ""  # the file of the rows in the folder of a run; workloads that differ in sizes alone share one
    lengths: bool = False  # whether rows have lengths

    def problem(self, dtype: DType, truncation: Any = None, train: Data | None = None) -> Problem:
        """The arithmetic that the workload asks for; until its rows are there, to `train` on, their mean length is
        taken for T. Raises ValueError as `Problem`.
        """
        mean = None
        if self.lengths:
            mean = float(self.T) if train is None else train.mean_length
        return Problem(self.name, dtype, self.model, self.train, self.B, self.T, truncation, mean)


@dataclass(frozen=True, eq=False)
class Workload:
    """A named task: a model, rows to run it on, and how it is trained.

    `data` are the rows themselves, `Data(x, y)`, or a function that makes or reads them, given a `Source`; of the
    latter `T`, the steps of a row, and `rows`, how many to train on and in all, must be given. `test` rows belong to
    `Data`; without them the last fifth of the rows is kept for testing. `epochs`: of a training; `short_epoch`: batches
    of the `epoch` pass, unless a run asks for the whole data set. `expect` says what accuracy to expect where that
    would surprise; `stand_in` names the built-in workload to use where the data cannot be had; `made_up` says that the
    rows mean nothing; `lengths` that those of a function have lengths (`Data.lengths`).

    Raises ValueError where rows, model and loss do not fit together.
    """

    name: str
    model: Model
    data: Data | Loader
    B: int = 32
    T: int = 0
    train: Train = ADAM
    test: Data | None = None
    epochs: int = 5
    init: Init = Init.KERAS
    short_epoch: int = 25
    rows: tuple[int, int] = (0, 0)
    summary: str = ""
    expect: str = ""
    stand_in: str | None = None
    made_up: bool = False
    origin: str = ""
    kept: str = ""
    source: str = "rows given by the user"
    lengths: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(rf"[\w.+ -]{{1,{MAX_NAME}}}", self.name) or self.name.strip(" .") != self.name:
            raise ValueError(
                f"{self.name!r} is no name of a workload; take 1 to {MAX_NAME} letters, digits, spaces or . _ + -, and "
                "no space or dot at an end"
            )
        self._set(init=one_of("init", self.init, Init))
        if self.B < 1:
            raise ValueError(f"B is {self.B}; it must be at least 1")
        for name in ("epochs", "short_epoch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if callable(self.data):
            if self.T < 1:
                raise ValueError(f"T is {self.T}; rows that are made or read need a length of at least 1")
            return
        if not self.origin and not self.kept:
            self._set(kept=self.name)
        self._set(lengths=self.data.lengths is not None)
        data, T = as_rows(self.name, self.model, self.data, self.B)
        if self.T not in (0, T):
            raise ValueError(f"T is {self.T}, but the rows of {self.name} have {T} steps; leave T out")
        self._set(data=data, T=T)
        if self.test is None:
            held_out = len(data.inputs) // 5
            self._set(rows=(len(data.inputs) - (held_out if self._may_hold_out(held_out) else 0), len(data.inputs)))
        else:
            test, steps = as_rows(f"the test rows of {self.name}", self.model, self.test)
            if steps != T:
                raise ValueError(f"test rows of {self.name} have {steps} steps, the others {T}; all need the same")
            if (test.lengths is None) is self.lengths:
                raise ValueError(f"of {self.name} only the test rows or the others have lengths; give both or neither")
            self._set(test=test, rows=(len(data.inputs), len(data.inputs) + len(test.inputs)))

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _may_hold_out(self, count: int) -> bool:
        return 0 < count <= len(self.data.inputs) - self.B  # type: ignore[union-attr]

    @property
    def spec(self) -> Spec:
        """All but the rows."""
        return Spec(**{f.name: getattr(self, f.name) for f in fields(Spec)})

    def load(self, source: Source) -> Dataset:
        """The rows, made or read where they are not given. Raises WorkloadUnavailable where they cannot be had."""
        if callable(self.data):
            return self.data(replace(source, model=self.model, B=self.B))
        data, (train, total) = self.data, self.rows
        if self.test is not None:
            return Dataset(data, self.test, None, self.source)
        if train < total:
            return Dataset(data.part(0, train), data.part(train, total), None, self.source)
        return Dataset(data, data, None, f"{self.source}; tested on the same rows")

    def resized(
        self, T: int | None = None, B: int | None = None, H: int | None = None, E: int | None = None, **rest: Any
    ) -> Workload:
        """The same task at other sizes, under a name that has those that differ: `imdb-50 H64 T100`.

        `rest` replaces further fields of the model, such as `cell` and `layers`. Raises ValueError for a size below 1
        and for one that the data fix.
        """
        model, changed, sizes = self.model, list[str](), {"E": E, "H": H, "B": B, "T": T}
        for letter, size in sizes.items():
            if size is not None and size < 1:
                raise ValueError(f"{letter} is {size}; it must be at least 1")
        if E is not None and E != model.E and model.V is None and not self.made_up:
            raise ValueError(f"E is {model.E} in {self.name}, the width of its rows; leave -E {E} out")
        if T is not None and T != self.T and not callable(self.data):
            raise ValueError(
                f"the rows of {self.name} have T = {self.T}; give rows of another length instead of -T {T}"
            )
        model = replace(model, E=E or model.E, H=H or model.H, **{k: v for k, v in rest.items() if v is not None})
        if model.cell != self.model.cell:
            changed.append(model.cell)
        if model.layers != self.model.layers:
            changed.append(f"L{model.layers}")
        if model.bidirectional != self.model.bidirectional:
            changed.append("bidirectional" if model.bidirectional else "unidirectional")
        now = {"E": model.E, "H": model.H, "B": B or self.B, "T": T or self.T}
        own = {"E": self.model.E, "H": self.model.H, "B": self.B, "T": self.T}
        changed += [f"{letter}{size}" for letter, size in now.items() if size != own[letter]]
        if not changed:
            return self
        if self.origin == MADE_UP:
            from rnnbench.workloads.made_up import made_up

            made = made_up(model, now["B"], now["T"])  # named by its sizes, unless the user has named it
            own_name = self.name != made_up(self.model, self.B, self.T).name
            name = " ".join([self.name, *changed]) if own_name else made.name
            return replace(self, name=name, model=model, B=made.B, T=made.T, rows=made.rows)
        return replace(self, name=" ".join([self.name, *changed]), model=model, B=now["B"], T=now["T"])


def as_rows(name: str, model: Model, data: Data, B: int = 1) -> tuple[Data, int]:
    """Rows as backends read them, at least B of them, and their steps T: x (N, T) int or (N, T, E), y as `Data` has it.

    Raises ValueError with the value, the limit and the way out.
    """
    x, y = np.asarray(data.inputs), np.asarray(data.targets)
    if x.ndim < 2 or y.ndim < 1 or not x.size:
        raise ValueError(
            f"{name}: x has shape {x.shape} and y {y.shape}; x needs rows of at least one step, y one each"
        )
    if len(x) != len(y):
        raise ValueError(f"{name}: x has {len(x)} rows and y {len(y)}; each row needs its own target")
    if x.dtype.kind == "b" or (x.dtype.kind in "iu" and model.V is None):
        x = x.astype(np.float32)
    if model.V is None and x.ndim == 2:
        x = x[:, :, None]
    for letter, array in (("x", x), ("y", y)):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            row = int(np.argwhere(~np.isfinite(array))[0][0])
            raise ValueError(f"{name}: {letter} holds NaN or infinity, first in row {row}; all numbers must be finite")
    if model.loss is Loss.CATEGORICAL_CROSS_ENTROPY:
        if y.dtype.kind == "f" and (y == np.round(y)).all():
            y = y.astype(np.int64)
    elif y.dtype.kind in "biu":
        y = y.astype(np.float32)
    if model.loss is Loss.BINARY_CROSS_ENTROPY and y.dtype.kind == "f" and not ((y >= 0) & (y <= 1)).all():
        bad = float(y[(y < 0) | (y > 1)][0])
        raise ValueError(
            f"{name}: a target is {bad:g}, and {model.loss} needs 0 to 1; take {Loss.CATEGORICAL_CROSS_ENTROPY} for "
            f"classes, or {Loss.SQUARED_ERROR}"
        )
    T, lengths = x.shape[1], data.lengths
    if lengths is not None:
        lengths = np.asarray(lengths)
        if lengths.dtype.kind == "f" and (lengths == np.round(lengths)).all():
            lengths = lengths.astype(np.int64)
    read = Data(x, y, lengths)
    try:
        check_data(Problem(name, DType.FLOAT32, model, ADAM, B, T, mean_length=None if lengths is None else T), read)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return read, T
