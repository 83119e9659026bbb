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


@dataclass(frozen=True)
class Entry:
    """A kernel, its signature, and the most registers it may take."""

    name: str
    kernel: Any
    signature: Any
    most_registers: int


def catalogue(dtype: str, plan: Plan) -> list[Entry]:
    """All kernels for one number type: each width in registers, each number of rows, each loss."""
    x = getattr(numba, dtype)
    a1, a2, a3 = (types.Array(x, n, "C") for n in (1, 2, 3))
    tile = (plan.side, plan.micro, plan.depth)
    found = []

    def add(name: str, kernel: Any, most: int, *arguments: Any) -> None:
        found.append(Entry(name, kernel, types.void(*arguments), most))

    for has_words in (True, False):
        source, of = (WORDS, "words") if has_words else (a3, "dense")
        add(f"project {of}", products.project(dtype, has_words, *tile), 128,
            a2, INT, source, a2, ORDER, INT, INT, a2, a1, INT, INT, INT)  # fmt: skip
        add(f"outer_sums {of}", products.outer_sums(dtype, has_words, *tile), 128,
            a2, INT, source, a2, ORDER, INT, INT, a2, INT, a2, INT, INT, INT, INT, INT, INT)  # fmt: skip
    add("times_transposed", products.times_transposed(dtype, *tile), 128, a2, INT, a2, a2, INT, INT, INT)
    add("add_parts", products.add_parts(dtype), 64, a1, a2, INT, INT, INT)
    widths = [H for H in range(plan.pad, 1024, plan.pad) if plan.width(H, dtype)]
    steps_forward, steps_back = (a2, a2, a2, INT, INT, INT), (a2, a2, a2, a2, a2, BLOCKS, INT, INT, INT, INT)
    for rows in (1, 2, 4):
        for width in (width for width in widths if plan.block_rows(1 << 20, width) >= rows):
            shape, most = f"H{width} rows{rows}", width * (2 if dtype == "float64" else 1) + 64
            add(f"forward {shape}", forward.in_registers(dtype, width, rows), most, *steps_forward)
            add(f"backward {shape}", backward.in_registers(dtype, width, rows), most, *steps_back)
        add(f"forward general rows{rows}", forward.general(dtype, plan.threads, rows), 128, *steps_forward)
        add(f"backward general rows{rows}", backward.general(dtype, plan.threads, rows), 128, *steps_back)
    for code in range(losses.SIGMOID_SQUARED_ERROR + 1):
        add(f"read_out {code}", head.read_out(dtype, code, plan.threads, plan.outputs), 96,
            a2, a2, a2, WORDS, INT, a2, INT, a2, a1, WORDS, a3, ORDER, INT, INT, INT, INT, INT, x)  # fmt: skip
    add("sum_by_word", words.sum_by_word(dtype, plan.threads, plan.words), 64,
        a2, a2, WORDS, ORDER, INT, INT, INT, INT, INT, INT)  # fmt: skip
    add("norm_parts", optimizer.norm_parts(dtype, plan.threads), 64, a2, a1)
    add("clip_scale", optimizer.clip_scale(dtype), 64, a1, a2, x)
    add("sgd", optimizer.sgd(dtype), 64, a1, a1, a1, x, x)
    add("adam", optimizer.adam(dtype), 64, a1, a1, a1, a1, a1, *[x] * 8)
    return found
