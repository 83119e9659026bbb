"""Vectors by hand: the lane width of this processor, raw pointers, and the register tile of the matrix product.

The only CPU file that writes LLVM IR, with `flush`.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core.codegen import get_host_cpu_features
from numba.core.errors import TypingError
from numba.extending import intrinsic
from numpy.typing import DTypeLike

INDEX = ir.IntType(64)


def register_bytes() -> int:
    """The width of a vector register in bytes: 64 (AVX-512), 32 (AVX) or 16; as restricted by NUMBA_CPU_FEATURES."""
    chosen = numba.config.CPU_FEATURES
    features = set((get_host_cpu_features() if chosen is None else chosen).split(","))
    if "+avx512f" in features:
        return 64
    return 32 if "+avx" in features else 16


def lanes(dtype: DTypeLike) -> int:
    """Numbers of this type in one vector register."""
    return register_bytes() // np.dtype(dtype).itemsize


def padded(n: int, dtype: DTypeLike) -> int:
    """The least multiple of the lane width that is at least n."""
    width = lanes(dtype)
    return -(-n // width) * width


def _lanes_of(number: types.Float) -> int:
    return 8 * register_bytes() // int(number.bitwidth)


@intrinsic
def lanes_of(typingctx: Any, array: Any) -> Any:
    """The lane width for the type of an array, a constant of the compiled code."""
    width = _lanes_of(array.dtype)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.get_constant(types.intp, width)

    return types.intp(array), codegen


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
def power_of_two(typingctx: Any, rounded: Any) -> Any:
    """2^n, where the lowest bits of the number `rounded` hold the integer n: they are moved into the exponent."""
    width, mantissa, bias = (32, 23, 127) if rounded == types.float32 else (64, 52, 1023)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(width)
        exponent = builder.shl(builder.bitcast(args[0], word), word(mantissa))
        return builder.bitcast(builder.add(exponent, word(bias << mantissa)), args[0].type)

    return rounded(rounded), codegen


class _Tile:
    """Writes the IR of one tile: `rows` x `vectors` accumulators that stay in registers while k runs."""

    def __init__(self, builder: Any, number: types.Float, rows: int, vectors: int) -> None:
        self.builder, self.rows, self.vectors = builder, rows, vectors
        self.scalar = ir.FloatType() if number.bitwidth == 32 else ir.DoubleType()
        self.width = _lanes_of(number)
        self.vector = ir.VectorType(self.scalar, self.width)
        self.align = number.bitwidth // 8
        self.zero = ir.Constant(ir.VectorType(ir.IntType(32), self.width), [0] * self.width)
        self.undefined = ir.Constant(self.vector, ir.Undefined)

    def address(self, base: Any, offset: Any, vector: int = 0) -> Any:
        """base + offset + vector * width, as a pointer to a vector."""
        where = self.builder.gep(base, [self.builder.add(offset, INDEX(vector * self.width))])
        return self.builder.bitcast(where, self.vector.as_pointer())

    def broadcast(self, base: Any, offset: Any) -> Any:
        """One number in every lane."""
        value = self.builder.load(self.builder.gep(base, [offset]))
        first = self.builder.insert_element(self.undefined, value, ir.IntType(32)(0))
        return self.builder.shuffle_vector(first, self.undefined, self.zero)

    def load(self, c: Any, row_offsets: list[Any]) -> list[Any]:
        """The accumulators, row by row."""
        return [
            self.builder.load(self.address(c, offset, v), align=self.align)
            for offset in row_offsets
            for v in range(self.vectors)
        ]

    def store(self, c: Any, row_offsets: list[Any], values: list[Any]) -> None:
        """The accumulators back to where `load` found them."""
        places = [self.address(c, offset, v) for offset in row_offsets for v in range(self.vectors)]
        for place, value in zip(places, values, strict=True):
            self.builder.store(value, place, align=self.align)

    def step(self, sums: list[Any], a: Any, a_offsets: list[Any], b: Any, b_offset: Any) -> list[Any]:
        """sums[i, v] + A[i, k] B[k, v] for one k. Multiply and add are left for LLVM to fuse where the machine can."""
        b_vectors = [self.builder.load(self.address(b, b_offset, v), align=self.align) for v in range(self.vectors)]
        done = []
        for i, offset in enumerate(a_offsets):
            a_value = self.broadcast(a, offset)
            for v, b_vector in enumerate(b_vectors):
                product = self.builder.fmul(a_value, b_vector, flags=("contract",))
                done.append(self.builder.fadd(sums[i * self.vectors + v], product, flags=("contract",)))
        return done


@intrinsic(prefer_literal=True)
def tile(
    typingctx: Any, rows: Any, vectors: Any, c: Any, ldc: Any, a: Any, a_row: Any, a_step: Any, b: Any, ldb: Any, k: Any
) -> Any:
    """C[i, j] += sum over k of A[i, k] B[k, j], for i < `rows` and j < `vectors` * lanes; k >= 1.

    C[i, j] is at c + i ldc + j, A[i, k] at a + i a_row + k a_step, B[k, j] at b + k ldb + j: pointers from `pointer`,
    steps in elements. `rows` and `vectors` are literals. Each sum runs over k in order, starting from C.
    """
    if not (isinstance(rows, types.IntegerLiteral) and isinstance(vectors, types.IntegerLiteral)):
        raise TypingError(f"a tile of {rows} rows and {vectors} vectors; both must be literals")
    n_rows, n_vectors, number = rows.literal_value, vectors.literal_value, c.dtype

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, _, c, ldc, a, a_row, a_step, b, ldb, k = args
        write = _Tile(builder, number, n_rows, n_vectors)
        c_offsets = [builder.mul(INDEX(i), ldc) for i in range(n_rows)]
        a_starts = [builder.mul(INDEX(i), a_row) for i in range(n_rows)]
        start = write.load(c, c_offsets)
        before = builder.block
        loop, after = builder.append_basic_block("tile.k"), builder.append_basic_block("tile.end")
        builder.branch(loop)
        builder.position_at_end(loop)
        step, a_at, b_at = (builder.phi(INDEX) for _ in range(3))
        sums = [builder.phi(write.vector) for _ in start]
        done = write.step(sums, a, [builder.add(s, a_at) for s in a_starts], b, b_at)
        following = [builder.add(step, INDEX(1)), builder.add(a_at, a_step), builder.add(b_at, ldb)]
        first = [INDEX(0)] * 3 + start
        for phi, begin, then in zip([step, a_at, b_at, *sums], first, following + done, strict=True):
            phi.add_incoming(begin, before)
            phi.add_incoming(then, loop)
        builder.cbranch(builder.icmp_signed("<", following[0], k), loop, after)
        builder.position_at_end(after)
        write.store(c, c_offsets, done)
        return context.get_dummy_value()

    steps = [types.intp] * 2
    return (
        types.void(rows, vectors, c, types.intp, a, *steps, b, types.intp, types.intp),
        codegen,
    )


__all__ = ["lanes", "lanes_of", "padded", "pointer", "power_of_two", "register_bytes", "shifted", "tile"]
