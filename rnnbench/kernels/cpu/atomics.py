"""Integers that threads share: read, written and added to without tearing, in one order that all threads see."""

from __future__ import annotations

import ctypes
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from rnnbench.kernels.cpu.simd import ARM, INDEX, INT32, X86

# seq_cst throughout: what a thread wrote before it opened a stage or finished a share is seen by whoever reads that,
# and these are so few that a weaker order would gain nothing that can be measured.
_INT64_POINTER = INDEX.as_pointer()
_BYTES = 8


@intrinsic
def atomic_read(typingctx: Any, address: Any) -> Any:
    """The int64 at an address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(builder.inttoptr(args[0], _INT64_POINTER), "seq_cst", _BYTES)

    return types.int64(types.intp), codegen


@intrinsic
def atomic_write(typingctx: Any, address: Any, value: Any) -> Any:
    """Put an int64 at an address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store_atomic(args[1], builder.inttoptr(args[0], _INT64_POINTER), "seq_cst", _BYTES)
        return context.get_dummy_value()

    return types.void(types.intp, types.int64), codegen


@intrinsic
def fetch_add(typingctx: Any, address: Any, amount: Any) -> Any:
    """Add to the int64 at an address; what was there before."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", builder.inttoptr(args[0], _INT64_POINTER), args[1], "seq_cst")

    return types.int64(types.intp, types.int64), codegen


@intrinsic
def compare_exchange(typingctx: Any, address: Any, expected: Any, value: Any) -> Any:
    """Put an int64 at an address if the expected one is there; what was there before."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.inttoptr(args[0], _INT64_POINTER)
        return builder.extract_value(builder.cmpxchg(place, args[1], args[2], "seq_cst", "seq_cst"), 0)

    return types.int64(types.intp, types.int64, types.int64), codegen


def _call(builder: Any, name: str, result: Any, arguments: list[Any]) -> None:
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


@intrinsic
def pause(typingctx: Any) -> Any:
    """A moment in which the other thread of this core goes first."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if X86:
            _call(builder, "llvm.x86.sse2.pause", ir.VoidType(), [])
        elif ARM:
            _call(builder, "llvm.aarch64.hint", ir.VoidType(), [INT32(1)])
        return context.get_dummy_value()

    return types.void(), codegen


# The C library's sched_yield, by its address under a name of our own: kernels are linked against nothing.
_YIELD = "rnnbench_sched_yield"
try:
    _address = ctypes.cast(ctypes.CDLL(None).sched_yield, ctypes.c_void_p).value
except (AttributeError, OSError, TypeError):  # Windows has no such call
    _address = None
if _address is not None:
    llvmlite.binding.add_symbol(_YIELD, _address)
CAN_YIELD = _address is not None


@intrinsic
def yield_core(typingctx: Any) -> Any:
    """Let another thread have this core, where the system has a call for that."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if CAN_YIELD:
            _call(builder, _YIELD, INT32, [])
        return context.get_dummy_value()

    return types.void(), codegen
