"""Every kernel that a problem launches, with the types it is launched with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numba
from numba import types

from rnnbench.kernels.cuda import (
    cursor,
    embedding,
    gated_lanes,
    gated_spread,
    gated_tiles,
    join,
    lanes,
    losses,
    optimizer,
    products,
    spread,
    tiles,
)
from rnnbench.kernels.cuda.device import Room
from rnnbench.kernels.cuda.plan import LaunchPlan, RegimeKind
from rnnbench.kernels.cuda.regimes import Regime, choose

INT = types.int64
TOKENS = types.Array(types.int32, 2, "C")
LENGTHS = types.Array(types.int32, 1, "C")
COUNTER = types.Array(types.int32, 1, "C")
ORDER = types.Array(types.int64, 1, "C")
BLOCKS = types.Array(types.int64, 2, "C")
# Caps are what a kernel took when it was last looked at, in float32 for sm_80 and sm_90a, up to the next multiple of 8,
# the unit in which a GPU hands registers out: one that takes more is to be looked at before its cap is raised.
IN_REGISTERS = {(32, 1): 64, (32, 2): 96, (32, 4): 96, (64, 1): 112, (64, 2): 128, (96, 1): 160, (128, 1): 184}
GATED_LANES = {(64, 1): 120, (64, 4): 128, (128, 2): 224, (128, 4): 160}  # by H and rows
IN_LANES = (RegimeKind.REGISTERS, RegimeKind.SPLIT)


# Multiply-adds of a thread in a step of a recurrence, or for one k of a product, and the most instructions for each of
# them: what was counted for sm_80 and sm_90a, tanh, addresses, loads, stores and the barrier among them.
BUDGETS = {
    "forward H128 rows1": (128, 1.36),
    "backward H128 rows1": (128, 1.44),
    "forward split H256 rows1": (128, 1.48),
    "backward split H256 rows1": (128, 1.58),
    "forward split H256 rows4": (512, 1.38),
    "backward split H256 rows4": (512, 1.41),
    "forward spread H1024 columns8 rows4": (32, 1.48),  # the product of the rows, as those of gates below
    "backward spread H1024 columns8 rows4": (32, 1.38),
    # With gates, a row a block: some 75 to 115 instructions of a step are no multiply-adds
    "forward gates3 H128 rows1": (192, 1.42),
    "backward gates3 H128 rows1": (192, 1.55),
    "forward gates4 H128 rows1": (256, 1.48),
    "backward gates4 H128 rows1": (256, 1.56),
    "forward gates3 spread H1024 rows4": (64, 1.36),
    "forward gates4 spread H1024 rows2": (64, 1.35),
    "backward gates4 spread H512 rows2": (64, 1.4),
    **dict.fromkeys(("project tokens", "project dense", "outer_sums tokens", "outer_sums dense", "times_transposed",
                     "project states", "outer_sums states"),
                    (64, 1.25)),
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A kernel, its signature, the most registers it may take in float32, and what must move 128 bits at a time.

    `multiply_adds`: those of a thread in a turn of the loop that matters, a step of a recurrence or one k of a product;
    `budget`: the most instructions for each of them.
    """

    name: str
    kernel: Any
    signature: Any
    max_registers: int
    wide: tuple[str, ...] = ()
    multiply_adds: int = 0
    budget: float = 0.0


def catalogue(dtype: str, plan: LaunchPlan) -> list[Entry]:
    """All kernels for one number type: each width in registers, each number of rows, each loss.

    A recurrence in registers reads the states of its rows 4 at a time (`LDS`). No other kernel has 128-bit loads: in a
    product the numbers of a thread lie `side` apart, and rows of global arrays need not begin at 16 bytes.
    """
    x = getattr(numba, dtype)
    a1, a2, a3 = (types.Array(x, n, "C") for n in (1, 2, 3))
    tile = (plan.side, plan.micro(1 << 20, 1 << 10, dtype, split=False), plan.depth)
    found = []

    def add(name: str, kernel: Any, most: int, *arguments: Any, wide: tuple[str, ...] = ()) -> None:
        found.append(Entry(name, kernel, types.void(*arguments), most, wide, *BUDGETS.get(name, (0, 0.0))))

    of_rows = ORDER, INT, LENGTHS, INT
    for of, source, short in (("tokens", TOKENS, False), ("dense", a3, False), ("states", a2, True)):
        add(f"project {of}", products.project_inputs(dtype, of, short, short, *tile), 128,
            a2, INT, source, INT, a2, *of_rows, INT, a2, a1, INT, INT, INT)  # fmt: skip
        add(f"outer_sums {of}", products.outer_sums(dtype, of, short, short, *tile), 144,
            a2, source, INT, a2, *of_rows, INT, a2, INT, a2, *[INT] * 7)  # fmt: skip
    for short in (False, True):
        add("times_transposed" + " ends" * short, products.times_transposed(dtype, short, *tile), 128,
            a2, INT, a2, a2, INT, INT, INT, *of_rows, INT, INT)  # fmt: skip
    add("join_states", join.join_states(both=True, ends=True), 32, a2, a2, a2, *of_rows, INT, INT, INT)
    add("place_at_ends", join.place_at_ends(dtype), 32, a2, a2, INT, *of_rows, INT, INT)
    if dtype == "float32":
        add("count_emitted", join.count_emitted(), 32, COUNTER, *of_rows)
    add("add_parts", products.add_parts(dtype), 32, a1, a2, a2, INT, INT, INT)
    widths = [H for H in range(plan.pad, 1024, plan.pad) if plan.width(H, dtype)]
    steps_forward, steps_back = (a2, a2, a2, INT, INT, INT), (a2, a2, a2, a2, a2, BLOCKS, INT, INT, INT, INT)
    for rows in (1, 2, 4):
        for width in (width for width in widths if plan.block_rows(1 << 20, width) >= rows):
            shape, most = f"H{width} rows{rows}", IN_REGISTERS.get((width, rows), 255)
            block = choose(plan, width, rows * plan.spread, dtype, ROOMS["H100"]).block
            assert block.rows == rows
            ahead, back = lanes.forward_in_lanes(dtype, block, False), lanes.backward_in_lanes(dtype, block, False)
            add(f"forward {shape}", ahead, most, *ends(steps_forward, 3), wide=("LDS",))
            add(f"backward {shape}", back, most, *ends(steps_back, 5), wide=("LDS",))
    for name, kernel, most, arguments in (*recurrences(dtype, plan, a2), *gated(dtype, plan, a1, a2)):
        add(name, kernel, most, *arguments)
    for code in range(losses.SIGMOID_SQUARED_ERROR + 1):
        short = code == losses.BINARY_CROSS_ENTROPY
        add(f"read_out {code}", losses.read_out(dtype, code, plan.threads, plan.outputs, short, short), 56,
            a2, a2, a2, TOKENS, INT, a2, INT, a2, a1, TOKENS, a3, ORDER, INT, LENGTHS, COUNTER, INT, INT, INT, INT,
            x)  # fmt: skip
    owned = plan.tokens_owned(dtype)
    add("sum_by_token", embedding.sum_by_token(dtype, plan.threads, plan.token_columns, owned), 64,
        a2, a2, TOKENS, ORDER, INT, INT, INT, INT, INT, INT)  # fmt: skip
    add("norm_parts", optimizer.norm_parts(dtype, plan.threads), 32, a2, a1)
    add("clip_scale", optimizer.clip_scale(dtype, plan.threads), 32, a1, a2, x)
    add("sgd", optimizer.sgd(dtype), 16, a1, a1, a1, x, x)
    add("adam", optimizer.adam(dtype), 24, a1, a1, a1, a1, a1, *[x] * 8)
    counted = (a1, a1, a1, a1, a1, x, a2, ORDER, *[x] * 5)
    add("adam_counted", optimizer.adam_counted(dtype), 32, *counted)
    if dtype == "float32":  # the rest computes with integers
        add("take", cursor.take_rows(), 16, ORDER, ORDER, ORDER)
        add("keep", cursor.keep_losses(), 24, a2, TOKENS, a2, TOKENS, ORDER, INT)
        add("advance cursor", cursor.advance_cursor(), 16, ORDER, INT)
    return found


def ends(types: tuple[Any, ...], at: int) -> tuple[Any, ...]:
    """A signature with what tells where rows end, from place `at` on: order, offset, lengths."""
    return *types[:at], ORDER, INT, LENGTHS, *types[at:]


# Of an H100 and of an A100: multiprocessors, shared memory of a block.
ROOMS = {"H100": Room(132, 227 << 10, together=True), "A100": Room(108, 163 << 10, together=True)}


def recurrences(dtype: str, plan: LaunchPlan, a2: Any) -> Iterator[tuple[str, Any, int, tuple[Any, ...]]]:
    """The recurrences that keep W_hh elsewhere than in the registers of a thread a column: name, kernel, cap, types."""
    ahead, back = (a2, a2, a2, INT, INT, INT), (a2, a2, a2, a2, a2, BLOCKS, INT, INT, INT, INT)
    step_back = (a2, a2, a2, a2, a2, *[INT] * 8)
    for r in split_regimes(dtype, plan):
        name, most = f"split H{r.width} rows{r.rows}", plan.thread_registers(r.threads)
        yield f"forward {name}", lanes.forward_in_lanes(dtype, r.block, False), most, ends(ahead, 3)
        yield f"backward {name}", lanes.backward_in_lanes(dtype, r.block, False), most, ends(back, 5)
    for H, room, b in product((300, 512, 768, 1024), ROOMS, (1, plan.few)):
        r = choose(replace(plan, kinds=(RegimeKind.SPREAD,)), H, b, dtype, ROOMS[room])
        shape, most = r.shape, plan.thread_registers(r.threads)
        name = f"spread H{H} columns{shape.columns} rows{shape.rows}"
        if room == "H100" or shape.columns > plan.columns[0]:
            yield f"forward {name}", spread.forward_spread(dtype, shape), most, (*ahead, COUNTER)
            yield f"backward {name}", spread.backward_spread(dtype, shape), most, (*back, COUNTER)
    shape = choose(replace(plan, kinds=(RegimeKind.STEPS,)), 1024, plan.few_steps, dtype, ROOMS["H100"]).shape
    yield "forward step H1024", spread.forward_spread_step(dtype, shape), 255, ahead
    yield "backward step H1024", spread.backward_spread_step(dtype, shape), 255, step_back
    tile = plan.side, plan.step_micro, plan.depth
    yield "advance", tiles.forward_tile_step(dtype, *tile), 128, ahead
    yield "retreat", tiles.backward_tile_step(dtype, *tile), 128, step_back


def gated(dtype: str, plan: LaunchPlan, a1: Any, a2: Any) -> Iterator[tuple[str, Any, int, tuple[Any, ...]]]:
    """The recurrences of cells with gates, named by how many those are: name, kernel, cap, types."""
    ahead, back = (*[a2] * 4, a1, a2, a2, INT, INT, INT), (*[a2] * 8, BLOCKS, INT, INT, INT, INT)
    tile = plan.side, plan.step_micro, plan.depth
    for cell, G in (("gru", 3), ("lstm", 4)):
        for H, b in product((64, 128), (1 << 20, 1)):
            with suppress(ValueError):
                r = choose(replace(plan, kinds=IN_LANES), H, b, dtype, ROOMS["H100"], cell)
                name, most, short = f"gates{G} H{H} rows{r.rows}", GATED_LANES.get((H, r.rows), 255), G == 3
                made = gated_lanes.forward_gated_in_lanes(dtype, cell, r.block, short)
                yield f"forward {name}", made, most, ends(ahead, 7)
                made = gated_lanes.backward_gated_in_lanes(dtype, cell, r.back, short)
                yield f"backward {name}", made, most, ends(back, 8)
        for H, b in product((256, 512, 1024), (1, plan.few_gates)):
            with suppress(ValueError):
                r = choose(replace(plan, kinds=(RegimeKind.SPREAD,)), H, b, dtype, ROOMS["H100"], cell)
                made = gated_spread.forward_gated_spread(dtype, cell, r.shape)
                name = f"gates{G} spread H{H} rows"
                yield f"forward {name}{r.shape.rows}", made, plan.thread_registers(r.threads), (*ahead, COUNTER)
                made = gated_spread.backward_gated_spread(dtype, cell, r.spread_back)
                most = plan.thread_registers(r.spread_back.threads)
                yield f"backward {name}{r.spread_back.rows}", made, most, (*back, COUNTER)
        back_step = (*[a2] * 8, *[INT] * 8)
        yield f"advance gates{G}", gated_tiles.forward_gated_tile_step(dtype, cell, *tile), 72, ahead
        yield f"retreat gates{G}", gated_tiles.backward_gated_tile_step(dtype, cell, *tile), 48, back_step


def split_regimes(dtype: str, plan: LaunchPlan) -> list[Regime]:
    """Every width of two threads a column that fits a block of some device, one row and as many as there are."""
    found = []
    for H, b in product(range(plan.pad, 512, plan.pad), (1, 1 << 20)):
        with suppress(ValueError):
            r = choose(replace(plan, kinds=(RegimeKind.SPLIT,)), H, b, dtype, ROOMS["H100"])
            if plan.width(H, dtype) is None and (b == 1 or r.rows > 1):
                found.append(r)
    return found
