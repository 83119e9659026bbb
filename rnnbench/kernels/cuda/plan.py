"""How work is cut into blocks and threads: sizes known when a kernel is compiled. `regimes` chooses by them.

A kernel is compiled for the sizes it is asked for, when it is first launched. Tests make them tiny, so that data of a
few rows crosses the edges of blocks.
"""

from __future__ import annotations

import enum
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


class RegimeKind(enum.StrEnum):
    """The regimes of the recurrence, in the order in which they are tried."""

    REGISTERS = "registers"
    SPLIT = "split"
    SPREAD = "spread"
    STEPS = "steps"
    TILES = "tiles"


PAIR = 2  # numbers of k that lie together in `spread`
QUAD = 4  # numbers of a 128-bit load, in float32


@dataclass(frozen=True)
class Lanes:
    """Sizes of a block that has all of W_hh, as in `lanes`: `lanes` threads share `per` units.

    A unit has `gates` columns of weights, over `along` times `width` numbers of k: forward one for each gate, and back
    one that runs along all gates. `lanes` and `per` are powers of two, and `lanes` is a multiple of `per`, `width` of
    both, and `along` times it of QUAD times `lanes`; `kept` of a thread's weights are in registers, a multiple of QUAD
    times its columns. `full`: H is `width`.
    """

    width: int
    lanes: int
    per: int
    kept: int
    rows: int
    gates: int = 1
    along: int = 1
    full: bool = False

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.width * self.lanes // self.per

    @property
    def columns(self) -> int:
        """Columns of weights of a thread."""
        return self.per * self.gates

    @property
    def depth(self) -> int:
        """Numbers of k of a lane."""
        return self.along * self.width // self.lanes

    @property
    def pooled(self) -> int:
        """Weights of a thread in shared memory."""
        return self.depth * self.columns - self.kept

    @property
    def apart(self) -> int:
        """Sums of a row and column in a thread, which has QUAD of a row in all, or more."""
        return max(1, QUAD // self.columns)

    @property
    def turns(self) -> int:
        """Threads that are the cell of a unit, each for some rows."""
        return self.lanes // self.per

    @property
    def mine(self) -> int:
        """Rows that a thread is the cell of."""
        return math.ceil(self.rows / self.turns)

    @property
    def buffers(self) -> tuple[int, int, int]:
        """Shape of what is multiplied by the weights, in shared memory, twice."""
        return 2, self.rows, self.along * self.width

    def static_bytes(self, dtype: str) -> int:
        """Shared memory of a block that is not the pool."""
        return math.prod(self.buffers) * np.dtype(dtype).itemsize

    def pool_bytes(self, dtype: str) -> int:
        """Shared memory of the pool; never none: the simulator makes no empty array."""
        return max(1, self.pooled) * self.threads * np.dtype(dtype).itemsize


APART = 8  # numbers between the sums of two columns, so that a warp that reads four of them meets no bank twice


@dataclass(frozen=True)
class Shape:
    """Sizes of a block that has some columns of W_hh, as in `spread`, and of what it works in.

    `lanes` is a multiple of `per` times `rows`, `columns` of `per`, `depth` of PAIR.
    """

    columns: int
    lanes: int
    per: int
    depth: int
    rows: int

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.lanes * self.columns // self.per

    @property
    def width(self) -> int:
        """H padded."""
        return self.lanes * self.depth

    @property
    def staged(self) -> tuple[int, int]:
        """Shape of the rows in shared memory."""
        return self.rows, self.width

    @property
    def sums(self) -> tuple[int, int]:
        """Shape of the sums of the lanes, a line for each row and column."""
        return self.rows * self.columns, self.lanes + APART

    @property
    def turns(self) -> int:
        """Numbers of a row that a thread stages."""
        return math.ceil(self.width / self.threads)

    @property
    def adders(self) -> int:
        """Threads that add up one of those lines."""
        return self.threads // (self.rows * self.columns)


@dataclass(frozen=True)
class LaunchPlan:
    """Launch sizes.

    A block of a product has `side` x `side` threads with micro x micro sums each, one of `micros`, and reads `depth`
    numbers of k at a time. In the recurrence a block owns at most `rows` batch rows, one while there are no more than
    `spread`; a thread keeps H numbers of W_hh in registers, H padded to a multiple of `pad` (itself one of 4), as long
    as they take no more than `kept_bytes`. Rows of a block times H padded is at most `unrolled`, what LLVM unrolls in
    full: a loop that stays would find the weights in memory.
    `threads`: of every other block. `tokens`: of the vocabulary, whose gradients one block sums in float32, for
    `token_columns` columns of the embedding. `outputs`: emitted outputs, whose losses one block computes. `blocks`:
    wanted where a sum over steps is split.

    `group`: threads of a warp that share as many columns, from an H padded of `grouped` on; below, a thread a column.
    `turns`: threads of a unit of a cell with gates, half as many from an H padded of `halved` on. Rows of a block times
    the weights of a thread in registers is at most `unrolled_gates`.
    Of twice as many threads as columns, or with gates: `block_registers` of all threads of a block, of which each needs
    `beside`, or `beside_gates`, for what is not a weight.
    Of columns spread over blocks: `columns` of a block, the first that gives no more blocks than there are
    multiprocessors; `lanes` threads a column, which serve `per` columns and at most `deepest` k each; up to `few` batch
    rows, or `few_steps` with a launch a step. With gates `columns` are units, up to `few_gates` rows; a thread has at
    most `unrolled_spread` weights, and needs `beside_spread` registers for the rest.
    `step_micro`: micro of the product of one step, whose tiles are small because there are few.
    `kinds`: regimes that may be taken.
    """

    # products
    side: int = 16
    micros: tuple[int, ...] = (8, 4, 2)
    depth: int = 16
    # recurrences with all weights of a column in one thread
    rows: int = 4
    spread: int = 128
    pad: int = 32
    kept_bytes: int = 512
    unrolled: int = 128
    unrolled_gates: int = 256
    group: int = 4
    grouped: int = 96
    turns: int = 4
    halved: int = 96
    # everything else
    threads: int = 256
    tokens: int = 32
    token_columns: int = 32
    outputs: int = 32
    blocks: int = 264
    # recurrences with two threads a column, or columns over blocks, or a launch a step
    block_registers: int = 65536
    beside: int = 32
    beside_gates: int = 56
    columns: tuple[int, ...] = (8, 12)
    lanes: int = 128
    per: int = 4
    deepest: int = 8
    few: int = 64
    few_gates: int = 32
    few_steps: int = 16
    beside_spread: int = 64
    unrolled_spread: int = 64
    step_micro: int = 2
    # which recurrences may be taken
    kinds: tuple[RegimeKind, ...] = tuple(RegimeKind)

    def tiles(self, rows: int, columns: int, micro: int) -> tuple[int, int]:
        """Blocks of a product into (rows, columns)."""
        edge = self.side * micro
        return math.ceil(rows / edge), math.ceil(columns / edge)

    def micro(self, rows: int, columns: int, dtype: str, split: bool) -> int:
        """The fastest of `micros`, by instructions: micro^2 multiply-adds and a dozen others for each k and tile.

        Fewer tiles than fill the device take as long as those that do, unless the sum is `split`. In float64 8 x 8 sums
        are more than there are registers.
        """

        def instructions(micro: int) -> int:
            tiles = math.prod(self.tiles(rows, columns, micro))
            return (tiles if split else max(tiles, self.blocks // 2)) * (micro * micro + 12)

        small = [micro for micro in self.micros if micro * np.dtype(dtype).itemsize <= 32]
        return min(small, key=instructions)

    def width(self, H: int, dtype: str) -> int | None:
        """H padded, where W_hh stays in registers; None where it does not fit them."""
        padded = self.pad * math.ceil(H / self.pad)
        return padded if padded * np.dtype(dtype).itemsize <= self.kept_bytes else None

    def thread_registers(self, threads: int) -> int:
        """Registers of a thread in a block of so many: given out in eights, to four warps at a time."""
        return min(248, self.block_registers // (128 * math.ceil(threads / 128)) // 8 * 8)

    def block_rows(self, b: int, width: int | None) -> int:
        """Batch rows of one block: 1, 2, 4, ... up to `rows`."""
        rows = 1
        while rows < self.rows and rows * self.spread < b and 2 * rows * (width or 0) <= self.unrolled:
            rows *= 2
        return rows

    def tokens_owned(self, dtype: str) -> int:
        """Tokens of a block: their sums are in shared memory, and take as many bytes in any type."""
        return max(1, self.tokens * 4 // np.dtype(dtype).itemsize)

    def token_blocks(self, V: int, dtype: str) -> int:
        """Blocks that own V tokens in turn: a power of two, so that the lower bits of a token name its block."""
        return 1 << (math.ceil(V / self.tokens_owned(dtype)) - 1).bit_length()

    def chunks(self, n: int, m: int, columns: int, dtype: str) -> int:
        """Parts of a sum over n steps into an (m, columns) matrix, so that there are about `blocks` of them in all."""
        micro = self.micro(m, columns, dtype, split=True)
        return max(1, min(self.blocks // math.prod(self.tiles(m, columns, micro)), math.ceil(n / (self.side * micro))))
