"""Made-up rows of any sizes: random tokens or numbers, and random targets. For timing; there is nothing to learn.

Dense inputs of all sizes read one stretch of random numbers, so that many sizes need no more memory than the largest.
The numbers are small and the recurrent weights orthogonal at first: states stay off the flat ends of tanh, so that
gradients reach back through hundreds of steps and no subnormal number tells in the times.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rnnbench.data import Inputs
from rnnbench.model import Head, Loss, Model, Train, words_of
from rnnbench.workloads.base import ADAM, MADE_UP, Dataset, Source, Split, Workload

INPUT_SCALE = 0.1
STAGED_BYTES = 32 << 20  # of the inputs of all batches, where one batch is not more than that
MAX_BATCHES = 20
B, T, E, H, O = 32, 100, 128, 128, 1  # where a size is not given
MAKING = 8  # bytes a number while rows are made
NOTHING = Split(np.empty(0, np.float32), np.empty(0, np.float32))
EXPECT = "the rows are random: there is nothing to learn, and the accuracy to expect is chance"

_stretch: dict[int, NDArray[np.float32]] = {}  # seed -> random numbers; the longest so far


def made_up(model: Model, B: int = B, T: int = T, train: Train = ADAM, name: str = "") -> Workload:
    """A workload of made-up rows, named by its sizes where it has no name: `made-up V20000 E64 H256 B64 T120`."""
    sizes = {"V": model.V, "E": model.E, "H": model.H, "O": None if model.O == 1 else model.O, "B": B, "T": T}
    plain = Model(E=1, H=1, O=1)
    words = words_of(model)
    words += [f"{letter}{size}" for letter, size in sizes.items() if size is not None]
    words += [str(v) for v, usual in ((model.head, plain.head), (model.loss, plain.loss)) if v != usual]
    n = batch_count(model, B, T) * B
    return Workload(
        name or " ".join([MADE_UP, *words]),
        model,
        made_up_rows,
        B,
        T,
        train,
        rows=(n, n),
        expect=EXPECT,
        made_up=True,
        origin=MADE_UP,
    )


def batch_count(model: Model, B: int, T: int) -> int:
    """How many batches are staged: as many as fit into `STAGED_BYTES`, at least 1 and at most 20."""
    return max(1, min(MAX_BATCHES, STAGED_BYTES // (4 * B * T * (model.E if model.V is None else 1))))


def made_up_rows(source: Source) -> Dataset:
    """The staged batches, tested on themselves."""
    model, seed = source.model, source.seed
    assert model is not None
    n = batch_count(model, source.B, source.T) * source.B
    rng = np.random.default_rng([seed, 1])
    inputs: Inputs
    targets: Inputs
    if model.V is None:
        inputs = _numbers(seed, n * source.T * model.E).reshape(n, source.T, model.E)
    else:
        inputs = rng.integers(0, model.V, (n, source.T), dtype=np.int32)
    steps = (source.T,) if model.head is Head.EVERY else ()
    match model.loss:
        case Loss.CATEGORICAL_CROSS_ENTROPY:
            targets = rng.integers(0, model.O, (n, *steps), dtype=np.int32)
        case Loss.SQUARED_ERROR:
            targets = rng.standard_normal((n, *steps, model.O), dtype=np.float32)
        case _:
            targets = rng.integers(0, 2, (n, *steps, model.O)).astype(np.float32)
    split = Split(inputs, targets)
    return Dataset(split, split, None, f"made-up rows, seed {seed}")


def _numbers(seed: int, count: int) -> NDArray[np.float32]:
    """The first numbers of the stretch of a seed; a view."""
    if seed not in _stretch or len(_stretch[seed]) < count:
        _stretch.clear()
        longest = max(count, STAGED_BYTES // 4)
        numbers = np.random.default_rng(seed).standard_normal(longest, dtype=np.float32)
        _stretch[seed] = np.multiply(numbers, np.float32(INPUT_SCALE), out=numbers)
    return _stretch[seed][:count]
