"""Every kernel that a problem launches, with the types it is launched with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
from numba import types

from rnnbench.kernels.cuda import backward, forward, head, losses, optimizer, products, words
from rnnbench.kernels.cuda.plan import Plan

INT = types.int64
WORDS = types.Array(types.int32, 2, "C")
ORDER = types.Array(types.int64, 1, "C")
BLOCKS = types.Array(types.int64, 2, "C")
# Caps are what a kernel took when it was last looked at, in float32 for sm_80 and sm_90a, up to the next multiple of 8,
# the unit in which a GPU hands registers out: one that takes more is to be looked at before its cap is raised.
IN_REGISTERS = {(32, 1): 64, (32, 2): 96, (32, 4): 96, (64, 1): 96, (64, 2): 128, (96, 1): 160, (128, 1): 184}
GENERAL = {1: 48, 2: 64, 4: 96}  # by rows of a block


@dataclass(frozen=True)
class Entry:
    """A kernel, its signature, the most registers it may take in float32, and what must move 128 bits at a time."""

    name: str
    kernel: Any
    signature: Any
    most_registers: int
    wide: tuple[str, ...] = ()


def catalogue(dtype: str, plan: Plan) -> list[Entry]:
    """All kernels for one number type: each width in registers, each number of rows, each loss.

    A recurrence in registers reads the states of its rows 4 at a time (`LDS`). No other kernel has 128-bit loads: in a
    product the numbers of a thread lie `side` apart, and rows of global arrays need not begin at 16 bytes.
    """
    x = getattr(numba, dtype)
    a1, a2, a3 = (types.Array(x, n, "C") for n in (1, 2, 3))
    tile = (plan.side, plan.micro, plan.depth)
    found = []

    def add(name: str, kernel: Any, most: int, *arguments: Any, wide: tuple[str, ...] = ()) -> None:
        found.append(Entry(name, kernel, types.void(*arguments), most, wide))

    for has_words in (True, False):
        source, of = (WORDS, "words") if has_words else (a3, "dense")
        add(f"project {of}", products.project(dtype, has_words, *tile), 120,
            a2, INT, source, a2, ORDER, INT, INT, a2, a1, INT, INT, INT)  # fmt: skip
        add(f"outer_sums {of}", products.outer_sums(dtype, has_words, *tile), 96,
            a2, INT, source, a2, ORDER, INT, INT, a2, INT, a2, INT, INT, INT, INT, INT, INT)  # fmt: skip
    add("times_transposed", products.times_transposed(dtype, *tile), 72, a2, INT, a2, a2, INT, INT, INT)
    add("add_parts", products.add_parts(dtype), 32, a1, a2, INT, INT, INT)
    widths = [H for H in range(plan.pad, 1024, plan.pad) if plan.width(H, dtype)]
    steps_forward, steps_back = (a2, a2, a2, INT, INT, INT), (a2, a2, a2, a2, a2, BLOCKS, INT, INT, INT, INT)
    for rows in (1, 2, 4):
        for width in (width for width in widths if plan.block_rows(1 << 20, width) >= rows):
            shape, most = f"H{width} rows{rows}", IN_REGISTERS.get((width, rows), 255)
            add(f"forward {shape}", forward.in_registers(dtype, width, rows), most, *steps_forward, wide=("LDS",))
            add(f"backward {shape}", backward.in_registers(dtype, width, rows), most, *steps_back, wide=("LDS",))
        add(f"forward general rows{rows}", forward.general(dtype, plan.threads, rows), GENERAL[rows], *steps_forward)
        add(f"backward general rows{rows}", backward.general(dtype, plan.threads, rows), GENERAL[rows], *steps_back)
    for code in range(losses.SIGMOID_SQUARED_ERROR + 1):
        add(f"read_out {code}", head.read_out(dtype, code, plan.threads, plan.outputs), 48,
            a2, a2, a2, WORDS, INT, a2, INT, a2, a1, WORDS, a3, ORDER, INT, INT, INT, INT, INT, x)  # fmt: skip
    add("sum_by_word", words.sum_by_word(dtype, plan.threads, plan.words), 64,
        a2, a2, WORDS, ORDER, INT, INT, INT, INT, INT, INT)  # fmt: skip
    add("norm_parts", optimizer.norm_parts(dtype, plan.threads), 32, a2, a1)
    add("clip_scale", optimizer.clip_scale(dtype), 32, a1, a2, x)
    add("sgd", optimizer.sgd(dtype), 16, a1, a1, a1, x, x)
    add("adam", optimizer.adam(dtype), 24, a1, a1, a1, a1, a1, *[x] * 8)
    return found
