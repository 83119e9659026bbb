"""How work is cut into blocks and threads: sizes known when a kernel is compiled, and the regime of the recurrence.

A kernel is compiled for the sizes it is asked for, when it is first launched. Tests make them tiny, so that data of a
few rows crosses the edges of blocks.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

Factory = TypeVar("Factory", bound=Callable[..., Any])


def compiled_once(factory: Factory) -> Factory:
    """A factory of kernels that makes each of them once: same sizes, same kernel."""
    return functools.cache(factory)  # type: ignore[return-value]


@dataclass(frozen=True)
class Plan:
    """Launch sizes.

    A block of a product has `side` x `side` threads with `micro` x `micro` sums each, and reads `depth` numbers of k at
    a time. In the recurrence a block owns at most `rows` batch rows, one while there are no more than `spread`; a
    thread keeps H numbers of W_hh in registers, H padded to a multiple of `pad` (itself one of 4), as long as they
    take no more than `kept_bytes`. Rows of a block times H padded is at most `unrolled`, what LLVM unrolls in full:
    a loop that stays would find the weights in memory.
    `threads`: of every other block. `words`: of the vocabulary, whose gradients one block sums. `outputs`: emitted
    outputs, whose losses one block computes. `blocks`: wanted where a sum over steps is split.
    """

    side: int = 16
    micro: int = 4
    depth: int = 16
    rows: int = 4
    spread: int = 128
    pad: int = 32
    kept_bytes: int = 512
    unrolled: int = 128
    threads: int = 256
    words: int = 64
    outputs: int = 32
    blocks: int = 264

    @property
    def edge(self) -> int:
        """Rows and columns of `out` that one block of a product writes."""
        return self.side * self.micro

    def width(self, H: int, dtype: str) -> int | None:
        """H padded, where W_hh stays in registers; None where it does not fit them."""
        padded = self.pad * math.ceil(H / self.pad)
        return padded if padded * np.dtype(dtype).itemsize <= self.kept_bytes else None

    def block_rows(self, b: int, width: int | None) -> int:
        """Batch rows of one block: 1, 2, 4, ... up to `rows`."""
        rows = 1
        while rows < self.rows and rows * self.spread < b and 2 * rows * (width or 0) <= self.unrolled:
            rows *= 2
        return rows

    def chunks(self, n: int, m: int, columns: int) -> int:
        """Parts of a sum over n steps into an (m, columns) matrix, so that there are about `blocks` of them in all."""
        tiles = math.ceil(m / self.edge) * math.ceil(columns / self.edge)
        return max(1, min(self.blocks // tiles, math.ceil(n / self.edge)))
