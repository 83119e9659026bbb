"""Element by element: tanh and sigmoid with stated bounds, and moving rows about.

Both come from exp(y) for y = n ln 2 + r, |r| <= ln(2) / 2: exp(y) - 1 = 2^n (exp(r) - 1) + (2^n - 1), and
exp(r) - 1 = r + r^2 (1/2! + r/3! + ...). No branch, so a whole vector goes through at once.

    tanh(x) = sign(x) e / (e + 2),   e = exp(2|x|) - 1, which keeps its digits near zero
    sigmoid(x) = (1 or e) / (1 + e), e = exp(-|x|), 1 where x >= 0

NaN stays NaN, infinity gives 1, -1 or 0. The bounds are in units in the last place of the exact value, over all numbers
of the type; a sigmoid below the least normal number comes out as 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from rnnbench.kernels.cpu.compiling import cpu_kernel
from rnnbench.kernels.cpu.simd import EXPLICIT, INDEX, Vectors, lanes_of, pointer

TANH_ULP, SIGMOID_ULP = 3.0, 3.0

# By width in bits. Beyond the first limit tanh rounds to 1; beyond the second sigmoid is below the least normal number.
_TANH_LIMIT = {32: 9.02, 64: 19.1}
_SIGMOID_LIMIT = {32: 87.33654, 64: 708.396418532264}
# 1/2!, 1/3!, ...: the first term left out is below 2^-25 and 2^-55 of the sum.
_SERIES = {32: [1 / math.factorial(n) for n in range(2, 8)], 64: [1 / math.factorial(n) for n in range(2, 14)]}
_MANTISSA_BITS, _BIAS = {32: 23, 64: 52}, {32: 127, 64: 1023}


def _split_ln2(bits: int) -> tuple[float, float]:
    """ln 2 as high + low; the high part has so few bits that n times it is exact, fused or not."""
    high = round(math.log(2.0) * 2**bits) / 2**bits
    return high, _LN2_REST[bits] + (math.log(2.0) - high)


_LN2_REST = {15: 0.0, 40: 2.3190468138462996e-17}  # ln 2 less its float64, where that counts
_LN2 = {32: _split_ln2(15), 64: _split_ln2(40)}


def _polynomial(write: Vectors, x: Any, coefficients: list[Any]) -> Any:
    """c0 + c1 x + c2 x^2 + ..., in pairs, then pairs of pairs (Estrin): a short chain of dependent steps."""
    while len(coefficients) > 1:
        pairs = [
            write.multiply_add(x, coefficients[i + 1], coefficients[i])
            if i + 1 < len(coefficients)
            else coefficients[i]
            for i in range(0, len(coefficients), 2)
        ]
        coefficients, x = pairs, write.multiply(x, x)
    return coefficients[0]


def _exponential(write: Vectors, y: Any) -> tuple[Any, Any]:
    """(2^n, exp(r) - 1) with exp(y) = 2^n exp(r)."""
    builder, bits = write.builder, write.bits
    # Adding 1.5 * 2^(mantissa bits) rounds to an integer and leaves that integer in the low bits.
    rounder = write.constant(1.5 * 2.0 ** _MANTISSA_BITS[bits])
    shifted = write.multiply_add(y, write.constant(1 / math.log(2)), rounder)
    n = write.subtract(shifted, rounder)
    # r = y - n ln 2, with ln 2 in two parts, so that the digits that cancel are exact
    high, low = _LN2[bits]
    r = write.multiply_add(n, write.constant(-low), write.multiply_add(n, write.constant(-high), y))
    # 2^n from the integer in the low bits: moved up to where a float has its exponent
    low_bits = builder.shl(builder.bitcast(shifted, write.integers), write.integer(_MANTISSA_BITS[bits]))
    power = builder.bitcast(builder.add(low_bits, write.integer(_BIAS[bits] << _MANTISSA_BITS[bits])), write.vector)
    tail = _polynomial(write, r, [write.constant(c) for c in _SERIES[bits]])
    return power, write.multiply_add(write.multiply(r, r), tail, r)


def _absolute(write: Vectors, x: Any) -> tuple[Any, Any]:
    """(|x|, the sign bit of x as an integer)."""
    builder, sign = write.builder, write.integer(-(1 << (write.bits - 1)))
    bits = builder.bitcast(x, write.integers)
    return builder.bitcast(builder.and_(bits, builder.not_(sign)), write.vector), builder.and_(bits, sign)


def _at_most(write: Vectors, x: Any, limit: float) -> Any:
    """The lesser of x and the limit; NaN stays NaN."""
    bound = write.constant(limit)
    return write.builder.select(write.builder.fcmp_ordered(">", x, bound), bound, x)


def tanh_parts(write: Vectors, x: Any) -> tuple[Any, Any, Any]:
    """|tanh(x)| as a numerator, at most 7e7 or 4e16, and a denominator not less; the sign bit of x as an integer."""
    size, sign = _absolute(write, x)
    # Of |x|, with the sign put back at the end; beyond the limit the result is 1 in this type
    size = _at_most(write, size, _TANH_LIMIT[write.bits])
    power, part = _exponential(write, write.add(size, size))
    e = write.multiply_add(power, part, write.subtract(power, write.constant(1.0)))
    return e, write.add(e, write.constant(2.0)), sign


def signed(write: Vectors, size: Any, sign: Any) -> Any:
    """A size, not negative, with a sign bit."""
    builder = write.builder
    return builder.bitcast(builder.or_(builder.bitcast(size, write.integers), sign), write.vector)


def tanh_vector(write: Vectors, x: Any) -> Any:
    """tanh(x)."""
    above, below, sign = tanh_parts(write, x)
    return signed(write, write.builder.fdiv(above, below), sign)


def sigmoid_parts(write: Vectors, x: Any) -> tuple[Any, Any]:
    """sigmoid(x) as a numerator, 0 to 1, and a denominator, 1 to 2."""
    builder, one, zero = write.builder, write.constant(1.0), write.constant(0.0)
    size, _ = _absolute(write, x)
    # exp(-|x|) never overflows; below the least normal number it is taken as 0
    limit = _SIGMOID_LIMIT[write.bits]
    power, part = _exponential(write, builder.fsub(zero, _at_most(write, size, limit)))
    e = write.multiply_add(power, part, power)
    e = builder.select(builder.fcmp_ordered(">", size, write.constant(limit)), zero, e)
    upper = builder.select(builder.fcmp_ordered(">=", x, zero), one, e)
    return upper, write.add(one, e)


def _sigmoid(write: Vectors, x: Any) -> Any:
    return write.builder.fdiv(*sigmoid_parts(write, x))


def _over_vectors(function: Callable[[Vectors, Any], Any]) -> Any:
    """An intrinsic: the function on the vector at `address` + i, in place."""

    def typing(typingctx: Any, address: Any, i: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            write = Vectors(builder, address.dtype)
            write.store(function(write, write.load(*args)), *args)
            return context.get_dummy_value()

        return types.void(address, types.intp), codegen

    return intrinsic(typing)


def _of_vectors(function: Callable[[Vectors, Any, Any], Any]) -> Any:
    """An intrinsic: the vector at `to` + i becomes the function of itself and the one at `of` + i."""

    def typing(typingctx: Any, to: Any, of: Any, i: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            write, (target, source, at) = Vectors(builder, to.dtype), args
            write.store(function(write, write.load(target, at), write.load(source, at)), target, at)
            return context.get_dummy_value()

        return types.void(to, of, types.intp), codegen

    return intrinsic(typing)


_tanh_here, _sigmoid_here = _over_vectors(tanh_vector), _over_vectors(_sigmoid)
_add_here, _set_here = _of_vectors(lambda write, a, b: write.add(a, b)), _of_vectors(lambda write, a, b: b)


@cpu_kernel()
def plain_sigmoid(x):
    """sigmoid(x) of a number."""
    e = math.exp(-abs(x))
    return (e if x < 0 else 1) / (1 + e)


@intrinsic
def flat_rows(typingctx: Any, x: Any, start: Any, rows: Any) -> Any:
    """x[start : start + rows] as one run of numbers, a view; x (., N) C-contiguous.

    A loop from 0 over its size is one that LLVM vectorises: an index that could be negative is not.
    """
    run = types.Array(x.dtype, 1, "C")

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(x)(context, builder, args[0])
        width, item = builder.extract_value(array.shape, 1), context.get_abi_sizeof(context.get_data_type(x.dtype))
        made = context.make_array(run)(context, builder)
        first = builder.gep(array.data, [builder.mul(args[1], width)])
        populate_array(made, first, [builder.mul(args[2], width)], [INDEX(item)], INDEX(item), None)
        return made._getvalue()

    return run(x, types.intp, types.intp), codegen


@cpu_kernel()
def tanh_rows(h, start, rows, j, n):
    """Columns j to j + n of h[start : start + rows] = tanh of themselves; h's width, j, n multiples of lanes."""
    N = h.shape[1]
    if EXPLICIT:
        # Whole rows are one run of numbers; of some columns each row is a run of its own
        if n == N:
            rows, n = 1, rows * n
        for i in range(rows):
            first = pointer(h, (start + i) * N + j)
            for v in range(0, n, lanes_of(h.dtype.type(0))):
                _tanh_here(first, v)
    else:
        for i in range(start, start + rows):
            row = h[i, j : j + n]
            for v in range(n):
                row[v] = math.tanh(row[v])


@cpu_kernel()
def sigmoid_rows(x, start, rows, j, n):
    """Columns j to j + n of x[start : start + rows] = sigmoid of themselves. As `tanh_rows`."""
    N = x.shape[1]
    if EXPLICIT:
        if n == N:
            rows, n = 1, rows * n
        for i in range(rows):
            first = pointer(x, (start + i) * N + j)
            for v in range(0, n, lanes_of(x.dtype.type(0))):
                _sigmoid_here(first, v)
    else:
        for i in range(start, start + rows):
            row = x[i, j : j + n]
            for v in range(n):
                row[v] = plain_sigmoid(row[v])


@intrinsic
def copy(typingctx: Any, to: Any, of: Any) -> Any:
    """to = of; both of one dimension. They may overlap; where one is longer the rest of it is left alone."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        made = [context.make_array(kind)(context, builder, value) for kind, value in zip((to, of), args, strict=True)]
        n, m = (builder.extract_value(array.shape, 0) for array in made)
        count = builder.select(builder.icmp_signed("<", n, m), n, m)
        size = context.get_abi_sizeof(context.get_data_type(to.dtype))
        cgutils.raw_memmove(builder, made[0].data, made[1].data, count, size)
        return context.get_dummy_value()

    return types.void(to, of), codegen


@intrinsic
def zero_row(typingctx: Any, to: Any) -> Any:
    """to = 0; of one dimension."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        made = context.make_array(to)(context, builder, args[0])
        size = context.get_abi_sizeof(context.get_data_type(to.dtype))
        cgutils.memset(builder, made.data, builder.mul(builder.extract_value(made.shape, 0), INDEX(size)), 0)
        return context.get_dummy_value()

    return types.void(to), codegen


@cpu_kernel()
def add_rows(out, out_row, x, x_row, rows, j, n):
    """Columns j to j + n of: out += x over `rows` rows, from the given row of each on; j, n multiples of the lanes."""
    if EXPLICIT:
        if out.shape[1] == n and x.shape[1] == n:
            rows, n = 1, rows * n
        for i in range(rows):
            to = pointer(out, (out_row + i) * out.shape[1] + j)
            of = pointer(x, (x_row + i) * x.shape[1] + j)
            for v in range(0, n, lanes_of(out.dtype.type(0))):
                _add_here(to, of, v)
    else:
        for i in range(rows):
            to, of = out[out_row + i, j : j + n], x[x_row + i, j : j + n]
            for v in range(n):
                to[v] += of[v]


@cpu_kernel()
def set_row(out, out_row, x, x_row, n):
    """n columns of: out[out_row] = x[x_row]; n a multiple of the lanes. They may not overlap."""
    if EXPLICIT:
        to, of = pointer(out, out_row * out.shape[1]), pointer(x, x_row * x.shape[1])
        for v in range(0, n, lanes_of(out.dtype.type(0))):
            _set_here(to, of, v)
    else:
        copy(out[out_row, :n], x[x_row])
