"""Which recurrence for which problem on which device. One table, in the order in which `LaunchPlan.kinds` is tried.

registers   as many threads as columns of W_hh, which is kept in registers         one launch, no block waits
split       twice as many, registers and what they do not hold in                 one launch, no block waits
            dynamic shared memory
spread      few rows: columns over all multiprocessors, a barrier at each step    one launch
steps       the same blocks where they cannot be resident together                a launch per step
tiles       from `wide` on: a product per step                                    a launch per step
general     any H, W_hh read from memory at each step by each block               one launch; right, not fast
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from rnnbench.kernels.cuda.device import Room
from rnnbench.kernels.cuda.plan import PAIR, QUAD, Lanes, LaunchPlan, RegimeKind, Shape

MAX_THREADS = 1024  # of a block
STATIC_BYTES = 48 << 10  # of shared memory, with nothing asked for


@dataclass(frozen=True)
class Regime:
    """A kind with its sizes; what a kind does not have is 0. `shared`: bytes of dynamic shared memory."""

    kind: RegimeKind
    grid: int
    threads: int
    rows: int = 0
    width: int = 0
    kept: int = 0
    shared: int = 0
    spread: Shape | None = None
    lanes: Lanes | None = None

    @property
    def block(self) -> Lanes:
        """Of the regimes whose blocks have all of W_hh."""
        if self.lanes is None:
            raise ValueError(f"in the regime {self.kind} no block has all of W_hh on chip")
        return self.lanes

    @property
    def shape(self) -> Shape:
        """Of the regimes that spread columns over blocks."""
        if self.spread is None:
            raise ValueError(f"the regime {self.kind} spreads no columns over blocks")
        return self.spread


def fitting(plan: LaunchPlan, H: int, b: int, dtype: str, room: Room) -> Iterator[Regime]:
    """The regimes that this problem fits, the best first."""
    for kind in plan.kinds:
        if found := _TABLE[kind](plan, H, b, dtype, room):
            yield found


def choose(plan: LaunchPlan, H: int, b: int, dtype: str, room: Room) -> Regime:
    """The first regime that this problem fits. ValueError where none of the plan's kinds takes it."""
    for regime in fitting(plan, H, b, dtype, room):
        return regime
    raise ValueError(
        f"no kernel for H = {H}, B = {b} in {dtype} among {', '.join(plan.kinds)}; add {RegimeKind.GENERAL}"
    )


def describe(regime: Regime) -> str:
    """What a contract says of W_hh."""
    return {
        RegimeKind.REGISTERS: "in registers, as many threads as columns",
        RegimeKind.SPLIT: f"in registers ({regime.kept} numbers a thread) and shared memory, two threads a column",
        RegimeKind.SPREAD: f"spread over {regime.grid} blocks that wait for each other at each step",
        RegimeKind.STEPS: f"spread over {regime.grid} blocks, a launch per step",
        RegimeKind.TILES: "in memory, a product and a launch per step",
        RegimeKind.GENERAL: "in memory, read by each block at each step: right, not fast",
    }[regime.kind]


def _registers(plan: LaunchPlan, H: int, b: int, dtype: str, room: Room) -> Regime | None:
    width = plan.width(H, dtype)
    if width is None:
        return None
    # A block has all columns, so that no other needs its states
    rows = plan.block_rows(b, width)
    # Threads that share columns read fewer states, and meet once more: worth it where columns are long
    group = plan.group if width >= plan.grouped and width % (QUAD * plan.group) == 0 else 1
    block = Lanes(width, group, group, width, rows)
    return Regime(RegimeKind.REGISTERS, math.ceil(b / rows), width, rows, width, lanes=block)


def _split(plan: LaunchPlan, H: int, b: int, dtype: str, room: Room) -> Regime | None:
    lanes, size = 2 * plan.group, np.dtype(dtype).itemsize
    pad = max(plan.pad, QUAD * lanes)
    width = pad * math.ceil(H / pad)
    half, threads = width // 2, 2 * width  # numbers of W_hh for each thread
    if threads > MAX_THREADS:
        return None
    # As many weights of a thread in registers as it has to spare, the others in shared memory: fewer with more rows,
    # whose sums take registers too. As many rows as fit
    unit, rows = QUAD * plan.group, plan.block_rows(b, None)
    spare = (plan.thread_registers(threads) - plan.beside) * 4 // size // unit * unit
    while True:
        kept = min(half, spare - unit * (rows.bit_length() - 1), plan.unrolled)
        block = Lanes(width, lanes, plan.group, kept, rows)
        static = (2 * rows * width + math.prod(block.partial)) * size
        shared = max(1, block.pooled) * threads * size  # never none: the simulator makes no empty array
        if kept >= unit and static <= STATIC_BYTES and shared + static <= room.block_bytes:
            return Regime(RegimeKind.SPLIT, math.ceil(b / rows), threads, rows, width, kept, shared, lanes=block)
        if rows == 1:
            return None
        rows //= 2


def _shape(plan: LaunchPlan, H: int, b: int, columns: int, dtype: str) -> Shape | None:
    """With as many rows at a time as there are and static shared memory holds; None where a thread would have too many
    weights.
    """
    depth, rows = PAIR * math.ceil(H / plan.lanes / PAIR), min(plan.rows, 1 << (b - 1).bit_length())
    if depth > plan.deepest:
        return None
    while True:
        shape = Shape(columns, plan.lanes, plan.per, depth, rows)
        numbers = math.prod(shape.staged) + math.prod(shape.sums)
        if numbers * np.dtype(dtype).itemsize <= STATIC_BYTES:
            return shape
        if rows == 1:
            return None
        rows //= 2


def _spread(plan: LaunchPlan, H: int, b: int, dtype: str, room: Room) -> Regime | None:
    # Every block reads all rows at each step: worth it for few of them, and possible where all blocks are resident
    if b > plan.few or not room.together:
        return None
    for columns in plan.columns:
        grid, shape = math.ceil(H / columns), _shape(plan, H, b, columns, dtype)
        if shape and grid <= room.multiprocessors:  # one block of this size always fits
            return Regime(RegimeKind.SPREAD, grid, shape.threads, shape.rows, shape.width, spread=shape)
    return None


def _steps(plan: LaunchPlan, H: int, b: int, dtype: str, room: Room) -> Regime | None:
    # The blocks of `_spread`, of the smallest size, as there may be any number of them
    shape = _shape(plan, H, b, plan.columns[0], dtype)
    if b > plan.few or shape is None:
        return None
    grid = math.ceil(H / shape.columns)
    return Regime(RegimeKind.STEPS, grid, shape.threads, shape.rows, shape.width, spread=shape)


def _tiles(plan: LaunchPlan, H: int, b: int, dtype: str, room: Room) -> Regime | None:
    # A launch for each step takes longer than a step of a narrow state
    if plan.wide > H:
        return None
    edge = plan.side * plan.step_micro
    return Regime(RegimeKind.TILES, math.ceil(b / edge) * math.ceil(H / edge), plan.side**2)


def _general(plan: LaunchPlan, H: int, b: int, dtype: str, room: Room) -> Regime | None:
    rows = plan.block_rows(b, None)
    return Regime(RegimeKind.GENERAL, math.ceil(b / rows), plan.threads, rows)


_TABLE: dict[RegimeKind, Callable[[LaunchPlan, int, int, str, Room], Regime | None]] = {
    RegimeKind.REGISTERS: _registers,
    RegimeKind.SPLIT: _split,
    RegimeKind.SPREAD: _spread,
    RegimeKind.STEPS: _steps,
    RegimeKind.TILES: _tiles,
    RegimeKind.GENERAL: _general,
}
