"""What this processor can do at most: multiply-adds that wait for nothing, and passes over more than any cache holds.

`multiply_adds` is the register tile of `tile` without its loads: as many sums in flight, each its own chain.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import DTypeLike

from rnnbench.kernels.cpu.compiling import cpu_kernel
from rnnbench.kernels.cpu.simd import EXPLICIT, INDEX, TILE_ROWS, Vectors, lanes, panel_vectors, pointer

# Plain loops are no peak: without vectors written by hand, NumPy is asked.
MEASURES_PEAK = EXPLICIT


def numbers(dtype: DTypeLike) -> int:
    """How many sums are in flight, which is how many numbers `multiply_adds` writes."""
    return TILE_ROWS * panel_vectors() * lanes(dtype)


@intrinsic
def _multiply_adds(typingctx: Any, out: Any, n: Any) -> Any:
    """out[i] = out[i] / 2 + 1/2, n >= 1 times, in registers."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        base, count = args
        write = Vectors(builder, out.dtype)
        half, chains = write.constant(0.5), range(TILE_ROWS * panel_vectors())
        # All sums are loaded once, stay in registers for n rounds, each in a phi of its own, and are stored once
        first = [write.load(base, INDEX(0), v) for v in chains]
        before, loop, after = builder.block, builder.append_basic_block("n"), builder.append_basic_block("n.end")
        builder.branch(loop)
        builder.position_at_end(loop)
        i = builder.phi(INDEX)
        sums = [builder.phi(write.vector) for _ in chains]
        new = [write.multiply_add(x, half, half) for x in sums]
        following = builder.add(i, INDEX(1))
        i.add_incoming(INDEX(0), before)
        i.add_incoming(following, loop)
        for phi, begin, value in zip(sums, first, new, strict=True):
            phi.add_incoming(begin, before)
            phi.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
        builder.position_at_end(after)
        for v, value in enumerate(new):
            write.store(value, base, INDEX(0), v)
        return context.get_dummy_value()

    return types.void(out, types.intp), codegen


@cpu_kernel()
def multiply_adds(out, n):
    """n multiply-adds, at least one, on each of the `numbers` of out: x = x / 2 + 1/2."""
    _multiply_adds(pointer(out, 0), n)


# Loops over memory, for the bandwidth: x is larger than any cache, and LLVM vectorises them.


@cpu_kernel()
def fill(x, value):
    """x[i] = value, so that the thread that will use them has touched all pages first."""
    for i in range(x.size):
        x[i] = value


@cpu_kernel()
def read_all(x):
    """The sum of x (N,)."""
    total = x.dtype.type(0)
    for i in range(x.size):
        total += x[i]
    return total


@cpu_kernel()
def triad(out, a, b, factor):
    """out = a + factor b, all (N,): the fourth loop of STREAM (McCalpin, 1995)."""
    for i in range(out.size):
        out[i] = a[i] + factor * b[i]


def trial(dtype: DTypeLike, n: int) -> int:
    """Do `n` multiply-adds on fresh sums of this type; the number of floating-point operations, two in each."""
    out = np.zeros(numbers(dtype), dtype)
    multiply_adds(out, n)
    return 2 * n * out.size
