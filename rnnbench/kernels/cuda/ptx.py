"""What CUDA Python has no name for, as inline PTX: the only file with any. Each has a stand-in for the simulator.

coherent    array[i, j] as other blocks wrote it: from the second cache, never an old line of the first
acquired    a counter, and after it all that was written before the counter was raised
raised      a counter, after all that this thread and, before a barrier, its block have written
power       2 ** x of a float32 within 2 units in the last place, infinity and 0 where it leaves the range
inverse     1 / x of a float32 within 1, 0 of an infinite one
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import cuda

from rnnbench.kernels.cuda.device import simulated
from rnnbench.kernels.cuda.plan import compiled_once


@compiled_once
def coherent(dtype: str) -> Any:
    """array[i, j] of a two-dimensional device array, where another block may have written it in the same launch."""
    if simulated():
        return lambda array, i, j: array[i, j]
    from llvmlite import ir
    from numba.cuda.cgutils import get_item_pointer
    from numba.cuda.extending import intrinsic

    # relaxed.gpu: not from the first cache, whose lines other blocks do not change, and with no order of its own
    kind = getattr(numba, dtype)
    code, letter = ("f32", "f") if dtype == "float32" else ("f64", "d")

    @intrinsic
    def load(typingctx, array, i, j):
        def codegen(context, builder, sig, args):
            at = context.make_array(sig.args[0])(context, builder, value=args[0])
            indices = [context.cast(builder, x, t, numba.int64) for x, t in zip(args[1:], sig.args[1:], strict=True)]
            pointer = get_item_pointer(context, builder, sig.args[0], at, indices, wraparound=False)
            return _asm(builder, ir, f"ld.relaxed.gpu.global.{code} $0, [$1];", f"={letter}", pointer)

        return kind(array, i, j), codegen

    return load


@compiled_once
def acquired() -> Any:
    """counter[0] of an int32 array."""

    # acquire: no later read of this thread comes before it
    def of_simulator(counter):
        cuda.threadfence()  # where the simulator of the tests lets other blocks run
        return counter[0]

    if simulated():
        return cuda.jit(device=True)(of_simulator)
    from llvmlite import ir
    from numba.cuda.extending import intrinsic

    @intrinsic
    def load(typingctx, counter):
        def codegen(context, builder, sig, args):
            pointer = context.make_array(sig.args[0])(context, builder, value=args[0]).data
            return _asm(builder, ir, "ld.acquire.gpu.global.b32 $0, [$1];", "=r", pointer)

        return numba.int32(counter), codegen

    return load


@compiled_once
def raised() -> Any:
    """counter[0] += 1 of an int32 array, by one thread of a block."""

    # release: all that was written before is seen by whoever acquires the counter; cheaper than a fence for all
    def of_simulator(counter):
        counter[0] += 1  # one thread runs at a time

    if simulated():
        return of_simulator
    from llvmlite import ir
    from numba.cuda.extending import intrinsic

    @intrinsic
    def add(typingctx, counter):
        def codegen(context, builder, sig, args):
            pointer = context.make_array(sig.args[0])(context, builder, value=args[0]).data
            kind = ir.FunctionType(ir.VoidType(), [pointer.type])
            text = "red.release.gpu.global.add.s32 [$0], 1;"
            builder.call(ir.InlineAsm(kind, text, "l,~{memory}", side_effect=True), [pointer])
            return context.get_dummy_value()

        return numba.void(counter), codegen

    return add


@compiled_once
def power() -> Any:
    """2 ** x, float32."""

    def of_simulator(x):
        return np.float32(np.inf if x >= 128 else 2.0 ** float(x))

    return of_simulator if simulated() else _of_a_number("ex2.approx.ftz.f32")


@compiled_once
def inverse() -> Any:
    """1 / x, float32."""

    def of_simulator(x):
        return np.float32(1) / x

    return of_simulator if simulated() else _of_a_number("rcp.approx.ftz.f32")


def _of_a_number(name: str) -> Any:
    """An instruction of one float32 that gives another."""
    from llvmlite import ir
    from numba.cuda.extending import intrinsic

    @intrinsic
    def instruction(typingctx, x):
        def codegen(context, builder, sig, args):
            kind = ir.FunctionType(ir.FloatType(), [ir.FloatType()])
            return builder.call(ir.InlineAsm(kind, f"{name} $0, $1;", "=f,f"), args)

        return numba.float32(numba.float32), codegen

    return instruction


def _asm(builder: Any, ir: Any, text: str, result: str, pointer: Any) -> Any:
    """A load that LLVM neither moves over other accesses nor leaves out."""
    # Memory is named as written and the effect as real, or LLVM might move the load or use one twice
    kind = ir.FunctionType(pointer.type.pointee, [pointer.type])
    return builder.call(ir.InlineAsm(kind, text, f"{result},l,~{{memory}}", side_effect=True), [pointer])
