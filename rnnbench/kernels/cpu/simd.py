"""Vectors by hand: what this processor's registers hold, raw pointers, and a writer of LLVM's vector instructions.

`tile`, `pointwise`, `atomics` and `flush` are the other files that write LLVM IR.
"""

from __future__ import annotations

import platform
from functools import cache
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core.codegen import get_host_cpu_features
from numba.core.errors import TypingError
from numba.extending import intrinsic
from numpy.typing import DTypeLike

from rnnbench.kernels.cpu.compiling import FORCED_BYTES, PLAIN_LOOPS

INDEX, INT32 = ir.IntType(64), ir.IntType(32)

_MACHINE = platform.machine().lower()
X86 = _MACHINE in ("x86_64", "amd64")
ARM = _MACHINE in ("aarch64", "arm64")
# Elsewhere, or where the environment asks for it, plain loops stand in for the tile and the vectors of `pointwise`.
EXPLICIT = (X86 or ARM) and not PLAIN_LOOPS

# Rows of a register tile. With the vectors of a panel: 24 sums of 32 registers, or 12 of 16.
TILE_ROWS = 6
# Bytes: a cache line, and the distance of rows, or a multiple of it, at which they share places of the first cache.
CACHE_LINE, ROWS_MEET = 64, 512


def _features() -> set[str]:
    chosen = numba.config.CPU_FEATURES
    return set((get_host_cpu_features() if chosen is None else chosen).split(","))


@cache
def register_bytes() -> int:
    """The width of a vector register in bytes: 64 (AVX-512), 32 (AVX) or 16; as restricted by NUMBA_CPU_FEATURES."""
    # What LLVM may use is what Numba was given, which need not be all that this processor has
    if FORCED_BYTES:
        return FORCED_BYTES
    features = _features()
    if "+avx512f" in features:
        return 64
    return 32 if "+avx" in features else 16


def panel_vectors() -> int:
    """Vectors side by side in a tile: 4 where there are 32 registers (AVX-512, AArch64), else 2."""
    return 4 if ARM or register_bytes() == 64 else 2


def lanes(dtype: DTypeLike) -> int:
    """Numbers of this type in one vector register."""
    return register_bytes() // np.dtype(dtype).itemsize


def panel_width(dtype: DTypeLike) -> int:
    """Numbers of this type in one row of a panel."""
    return panel_vectors() * lanes(dtype)


def padded(n: int, dtype: DTypeLike) -> int:
    """The least multiple of the lane width that is at least n."""
    width = lanes(dtype)
    return -(-n // width) * width


def row_step(n: int, dtype: DTypeLike) -> int:
    """Numbers from one row of n to the next: whole vectors, and no multiple of ROWS_MEET bytes.

    Rows that lie so far apart share a few places of a cache and drive each other out of it.
    """
    step, size = padded(n, dtype), np.dtype(dtype).itemsize
    return step if step * size % ROWS_MEET else step + CACHE_LINE // size


def panels(n: int, dtype: DTypeLike) -> int:
    """How many panels n columns fill."""
    return -(-n // panel_width(dtype))


def lanes_in(number: types.Float) -> int:
    """`lanes` for a Numba type."""
    return 8 * register_bytes() // int(number.bitwidth)


# What kernels call. Widths are known when they are compiled, so a loop over lanes has a constant step.


@intrinsic
def lanes_of(typingctx: Any, number: Any) -> Any:
    """The lane width for the type of a number, a constant of the compiled code."""
    width = lanes_in(number)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.get_constant(types.intp, width)

    return types.intp(number), codegen


@intrinsic
def pointer(typingctx: Any, array: Any, index: Any) -> Any:
    """The address of element `index`, counted in elements from the start, of a C-contiguous array."""
    if array.layout != "C":
        raise TypingError(f"the array has layout {array.layout}; a pointer needs layout C: pass a contiguous array")

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(array)(context, builder, args[0]).data
        return builder.gep(data, [args[1]])

    return types.CPointer(array.dtype)(array, types.intp), codegen


@intrinsic
def shifted(typingctx: Any, address: Any, count: Any) -> Any:
    """The address `count` elements further."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.gep(args[0], [args[1]])

    return address(address, types.intp), codegen


@intrinsic
def fetch(typingctx: Any, address: Any) -> Any:
    """Have the cache line of this address brought to the second cache, and wait for nothing."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, INT32, INT32, INT32])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        builder.call(prefetch, [builder.bitcast(args[0], byte), INT32(0), INT32(2), INT32(1)])  # to read; second; data
        return context.get_dummy_value()

    return types.void(address), codegen


class Vectors:
    """Writes vector instructions for one number type into a block of LLVM IR."""

    def __init__(self, builder: Any, number: types.Float) -> None:
        self.builder, self.bits, self.width = builder, int(number.bitwidth), lanes_in(number)
        self.scalar = ir.FloatType() if self.bits == 32 else ir.DoubleType()
        self.vector = ir.VectorType(self.scalar, self.width)
        self.integers = ir.VectorType(ir.IntType(self.bits), self.width)
        self.align = self.bits // 8

    def place(self, base: Any, offset: Any, vector: int = 0) -> Any:
        """base + offset + vector * width, as a pointer to a vector."""
        start = self.builder.gep(base, [offset])
        start = self.builder.gep(start, [INDEX(vector * self.width)]) if vector else start
        return self.builder.bitcast(start, self.vector.as_pointer())

    def load(self, base: Any, offset: Any, vector: int = 0) -> Any:
        """The vector at `place`."""
        return self.builder.load(self.place(base, offset, vector), align=self.align)

    def store(self, value: Any, base: Any, offset: Any, vector: int = 0) -> None:
        """Put a vector at `place`."""
        self.builder.store(value, self.place(base, offset, vector), align=self.align)

    def broadcast(self, value: Any) -> Any:
        """One number in every lane."""
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, value, INT32(0))
        return self.builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(INT32, self.width), None))

    def constant(self, value: float) -> Any:
        """A number known now in every lane."""
        return ir.Constant(self.vector, [ir.Constant(self.scalar, float(value))] * self.width)

    def integer(self, value: int) -> Any:
        """An integer known now, as wide as the numbers, in every lane."""
        return ir.Constant(self.integers, [ir.Constant(self.integers.element, value)] * self.width)

    # Arithmetic: `contract` lets LLVM fuse, and no flag lets it drop NaN or infinity or change the order of a sum.

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """a * b + c, left for LLVM to fuse where the machine can."""
        return self.builder.fadd(self.multiply(a, b), c, flags=("contract",))

    def multiply(self, a: Any, b: Any) -> Any:
        """a * b."""
        return self.builder.fmul(a, b, flags=("contract",))

    def add(self, a: Any, b: Any) -> Any:
        """a + b."""
        return self.builder.fadd(a, b, flags=("contract",))

    def subtract(self, a: Any, b: Any) -> Any:
        """a - b."""
        return self.builder.fsub(a, b, flags=("contract",))
