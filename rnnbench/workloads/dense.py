"""Dense: random inputs of any size, and a coin for each row's target. What a sweep asks its cases of.

All sizes read one stretch of random numbers, so that many of them need no more memory than the largest. The numbers
are small and the recurrent weights orthogonal at first: states stay off the flat ends of tanh, so that gradients reach
back through hundreds of steps and no subnormal number tells in the times.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rnnbench.data import Inputs
from rnnbench.model import DENSE, DType, Model, Problem, Train
from rnnbench.sweep import Sizes
from rnnbench.workloads.base import Split

INPUT_SCALE = 0.1
STAGED_BYTES = 32 << 20  # batches of one size, where one is not more than that
MOST_BATCHES = 20
SOURCE = "random numbers, seed {}"
MAKING = 8  # bytes a number while they are made


def problem_of(sizes: Sizes, E: int | None, dtype: DType) -> Problem:
    """Input as wide as E, or as the state; one logit from the last state."""
    model = Model(E=sizes.H if E is None else E, H=sizes.H, O=1)
    return Problem(DENSE, dtype, model, Train(), sizes.B, sizes.T)


def batches_of(problem: Problem) -> int:
    """How many batches are staged: as many as fit into `STAGED_BYTES`, at least 1 and at most 20."""
    return max(1, min(MOST_BATCHES, STAGED_BYTES // (4 * problem.B * problem.T * problem.model.E)))


@dataclass(frozen=True)
class Numbers:
    """The stretch: inputs (n,) float32, coins (m,) float32 of 0 and 1."""

    inputs: Inputs
    coins: Inputs

    def rows(self, problem: Problem) -> Split:
        """The staged batches of a problem; views, no copy."""
        n = batches_of(problem) * problem.B
        shape = (n, problem.T, problem.model.E)
        return Split(self.inputs[: int(np.prod(shape))].reshape(shape), self.coins[:n])


def make(problems: list[Problem], seed: int) -> Numbers:
    """Numbers enough for each of these problems."""
    rng = np.random.default_rng(seed)
    rows = [batches_of(p) * p.B for p in problems]
    inputs = max(n * p.T * p.model.E for n, p in zip(rows, problems, strict=True))
    coins = rng.integers(0, 2, max(rows)).astype(np.float32)
    return Numbers(np.float32(INPUT_SCALE) * rng.standard_normal(inputs, dtype=np.float32), coins)
