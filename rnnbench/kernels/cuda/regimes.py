"""Which recurrence for which problem on which device. One table, in the order in which `LaunchPlan.kinds` is tried.

registers   as many threads as columns of W_hh, which is kept in registers         one launch, no block waits
split       twice as many, registers and what they do not hold in                 one launch, no block waits
            dynamic shared memory
spread      few rows: columns over all multiprocessors, a barrier at each step    one launch
steps       the same blocks where they cannot be resident together                a launch per step
tiles       any H: W_hh read from memory, a product per step                      a launch per step

Of cells with gates `registers` and `split` have a few threads for each unit, `spread` has units for columns, and there
is no `steps`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from rnnbench.cells import cell_of
from rnnbench.kernels.cuda.device import Room
from rnnbench.kernels.cuda.plan import PAIR, QUAD, Lanes, LaunchPlan, RegimeKind, Shape

MAX_THREADS = 1024  # of a block
STATIC_BYTES = 48 << 10  # of shared memory, with nothing asked for
# Instructions of a thread in `gated_spread` beside its multiply-adds, for a row and for as many as are staged together
BESIDE_PRODUCT, BESIDE_ROWS = 30, 250


@dataclass(frozen=True)
class Regime:
    """A kind with its sizes; what a kind does not have is 0. `shared`: bytes of dynamic shared memory.

    `back`, `spread_back`: of a cell with gates the sizes of the way back; of the tanh cell they are those of forward.
    """

    kind: RegimeKind
    grid: int
    threads: int
    rows: int = 0
    width: int = 0
    kept: int = 0
    shared: int = 0
    spread: Shape | None = None
    lanes: Lanes | None = None
    back: Lanes | None = None
    spread_back: Shape | None = None

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


def fitting(plan: LaunchPlan, H: int, b: int, dtype: str, room: Room, cell: str = "rnn") -> Iterator[Regime]:
    """The regimes that this problem fits, the best first."""
    gates = len(cell_of(cell).gates)
    for kind in plan.kinds:
        sizes = plan, H, b, dtype, room
        if gates > 1:
            yield from _of_gates(kind, gates, *sizes)
        elif found := _TABLE[kind](*sizes):
            yield found


def choose(plan: LaunchPlan, H: int, b: int, dtype: str, room: Room, cell: str = "rnn") -> Regime:
    """The first regime that this problem fits. ValueError where none of the plan's kinds takes it."""
    for regime in fitting(plan, H, b, dtype, room, cell):
        return regime
    raise ValueError(
        f"no kernel for {cell} of H = {H}, B = {b} in {dtype} among {', '.join(plan.kinds)}; add {RegimeKind.TILES}"
    )


def describe(regime: Regime) -> str:
    """What a contract says of W_hh."""
    if regime.back is not None:
        where = "in registers" + (" and shared memory" if regime.kind is RegimeKind.SPLIT else "")
        return f"{where} ({regime.kept} numbers a thread in registers), {regime.block.turns} threads a unit"
    return {
        RegimeKind.REGISTERS: "in registers, as many threads as columns",
        RegimeKind.SPLIT: f"in registers ({regime.kept} numbers a thread) and shared memory, two threads a column",
        RegimeKind.SPREAD: f"spread over {regime.grid} blocks that wait for each other at each step",
        RegimeKind.STEPS: f"spread over {regime.grid} blocks, a launch per step",
        RegimeKind.TILES: "in memory, a product and a launch per step",
    }[regime.kind]


def _registers(plan: LaunchPlan, H: int, b: int, dtype: str, room: Room) -> Regime | None:
    width = plan.width(H, dtype)
    if width is None:
        return None
    # A block has all columns, so that no other needs its states
    rows = plan.block_rows(b, width)
    # Threads that share columns read fewer states, and meet once more: worth it where columns are long
    group = plan.group if width >= plan.grouped and width % (QUAD * plan.group) == 0 else 1
    block = Lanes(width, group, group, width, rows, full=width == H)
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
        block = Lanes(width, lanes, plan.group, kept, rows, full=width == H)
        static, shared = block.static_bytes(dtype), block.pool_bytes(dtype)
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
    if b > plan.few_steps or shape is None:
        return None
    grid = math.ceil(H / shape.columns)
    return Regime(RegimeKind.STEPS, grid, shape.threads, shape.rows, shape.width, spread=shape)


def _tiles(plan: LaunchPlan, H: int, b: int, dtype: str, room: Room) -> Regime | None:
    edge = plan.side * plan.step_micro
    return Regime(RegimeKind.TILES, math.ceil(b / edge) * math.ceil(H / edge), plan.side**2)


_TABLE: dict[RegimeKind, Callable[[LaunchPlan, int, int, str, Room], Regime | None]] = {
    RegimeKind.REGISTERS: _registers,
    RegimeKind.SPLIT: _split,
    RegimeKind.SPREAD: _spread,
    RegimeKind.STEPS: _steps,
    RegimeKind.TILES: _tiles,
}


def _of_gates(
    kind: RegimeKind, gates: int, plan: LaunchPlan, H: int, b: int, dtype: str, room: Room
) -> Iterator[Regime]:
    """As the table has it for the tanh cell, for a cell with so many gates."""
    found: list[Regime | None] = []
    match kind:
        case RegimeKind.REGISTERS | RegimeKind.SPLIT:
            found = [_gates_in_lanes(plan, gates, H, b, dtype, room)]
        case RegimeKind.SPREAD:
            found = [_gates_spread(plan, gates, H, b, dtype, room)]
        case RegimeKind.TILES:
            found = [_tiles(plan, H, b, dtype, room)]
    yield from (regime for regime in found if regime and regime.kind is kind)


def _gates_in_lanes(plan: LaunchPlan, gates: int, H: int, b: int, dtype: str, room: Room) -> Regime | None:
    pad = math.lcm(plan.pad, QUAD * plan.turns)
    width = pad * math.ceil(H / pad)
    # Enough threads for all schedulers, and no more, as each of them is the cell besides its products
    turns = plan.turns if width < plan.halved else max(2, plan.turns // 2)
    threads, weights = turns * width, gates * width // turns  # of each thread
    if threads > MAX_THREADS:
        return None
    # Forward a thread has a unit, whose gates share a state that is read; back as many units do as k is divided by
    per = plan.group
    while gates * width % (QUAD * turns * per):
        per //= 2
    rows = plan.block_rows(b, None)
    while True:
        # Sums of more rows take registers that weights then have not; and a loop over too many would not be unrolled
        spare = (plan.thread_registers(threads) - plan.beside_gates) * 4 // np.dtype(dtype).itemsize
        spare = min(weights, spare - gates * QUAD * (rows - 1), plan.unrolled_gates // rows)
        ahead, back = (
            Lanes(width, turns * units, units, spare // unit * unit, rows, *shape, width == H)
            for units, shape, unit in ((1, (gates, 1), QUAD * gates), (per, (1, gates), QUAD * per))
        )
        shared = max(ahead.pool_bytes(dtype), back.pool_bytes(dtype))
        static = max(ahead.static_bytes(dtype), back.static_bytes(dtype))
        if min(ahead.kept, back.kept) > 0 and static <= STATIC_BYTES and shared + static <= room.block_bytes:
            kind = RegimeKind.SPLIT if ahead.pooled or back.pooled else RegimeKind.REGISTERS
            grid, kept = math.ceil(b / rows), min(ahead.kept, back.kept)
            return Regime(kind, grid, threads, rows, width, kept, shared, lanes=ahead, back=back)
        if rows == 1:
            return None
        rows //= 2


def _gates_spread(plan: LaunchPlan, gates: int, H: int, b: int, dtype: str, room: Room) -> Regime | None:
    if b > plan.few_gates or not room.together:
        return None
    for units in plan.columns:
        grid = math.ceil(H / units)
        ahead = _gates_shape(plan, units * gates, H, b, dtype)
        back = _gates_shape(plan, units, gates * H, b, dtype)
        if ahead and back and grid <= room.multiprocessors:
            return Regime(
                RegimeKind.SPREAD, grid, ahead.threads, ahead.rows, ahead.width, spread=ahead, spread_back=back
            )
    return None


def _gates_shape(plan: LaunchPlan, columns: int, K: int, b: int, dtype: str) -> Shape | None:
    """Of the shapes that a block has registers and shared memory for, the one with the fewest instructions a step."""
    size, found = np.dtype(dtype).itemsize, list[Shape]()
    for lanes, per in product((plan.lanes // 2, plan.lanes, 2 * plan.lanes), (plan.per, 2 * plan.per)):
        depth, rows = PAIR * math.ceil(K / lanes / PAIR), min(plan.rows, 1 << (b - 1).bit_length())
        while rows:
            shape = Shape(columns, lanes, per, depth, rows)
            numbers = math.prod(shape.staged) + math.prod(shape.sums)
            fits = columns % per == 0 and lanes % (per * rows) == 0 and shape.threads <= MAX_THREADS
            if fits and numbers * size <= STATIC_BYTES:
                held = depth * per * size // 4
                if held <= plan.unrolled_spread and held + plan.beside_spread <= plan.thread_registers(shape.threads):
                    found.append(shape)
            rows //= 2

    # Four warps at least, or a scheduler has none; a row takes so many instructions of a thread
    def instructions(shape: Shape) -> int:
        row = shape.depth * shape.per + BESIDE_PRODUCT
        return math.ceil(b / shape.rows) * max(128, shape.threads) * (shape.rows * row + BESIDE_ROWS)

    return min(found, key=instructions, default=None)
