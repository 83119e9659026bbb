"""Which recurrence for which problem on which device. One table, in the order in which `LaunchPlan.kinds` is tried.

registers   a thread a column of W_hh, kept in its registers                      one launch, no block waits
split       two threads a column, registers and what they do not hold in          one launch, no block waits
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
from rnnbench.kernels.cuda.forward import SUMS
from rnnbench.kernels.cuda.plan import LaunchPlan, RegimeKind, Shape

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
        RegimeKind.REGISTERS: "in registers, a thread a column",
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
    return Regime(RegimeKind.REGISTERS, math.ceil(b / rows), width, rows, width)


def _split(plan: LaunchPlan, H: int, b: int, dtype: str, room: Room) -> Regime | None:
    pad, size = max(plan.pad, 2 * SUMS), np.dtype(dtype).itemsize
    width = pad * math.ceil(H / pad)
    half, threads = width // 2, 2 * width
    if threads > MAX_THREADS:
        return None
    # As many weights of a thread in registers as it has to spare, the others in shared memory
    registers = plan.thread_registers(threads) - plan.beside
    kept = min(half, registers * 4 // size // SUMS * SUMS, plan.unrolled)
    rows = plan.block_rows(b, width)
    shared = max(1, half - kept) * threads * size  # never none: the simulator makes no empty array
    if kept < SUMS or shared + 2 * rows * width * size > room.block_bytes:
        return None
    return Regime(RegimeKind.SPLIT, math.ceil(b / rows), threads, rows, width, kept, shared)


def _shape(plan: LaunchPlan, H: int, columns: int, dtype: str) -> Shape | None:
    """With as many rows at a time as static shared memory holds; None where a thread would have too many weights."""
    depth, rows = math.ceil(H / plan.lanes), plan.rows
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
        grid, shape = math.ceil(H / columns), _shape(plan, H, columns, dtype)
        if shape and grid <= room.multiprocessors:  # one block of this size always fits
            return Regime(RegimeKind.SPREAD, grid, shape.threads, shape.rows, shape.width, spread=shape)
    return None


def _steps(plan: LaunchPlan, H: int, b: int, dtype: str, room: Room) -> Regime | None:
    # The blocks of `_spread`, of the smallest size, as there may be any number of them
    shape = _shape(plan, H, plan.columns[0], dtype)
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
