"""Subnormal numbers as zero, in the calling thread, from `start_flushing` to `restore`.

x86-64: flush-to-zero and denormals-are-zero, bits 15 and 6 of MXCSR. AArch64: FZ, bit 24 of FPCR. On anything else
nothing happens, and `CAN_FLUSH` says so.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from rnnbench.kernels.cpu.simd import ARM, X86

CAN_FLUSH = X86 or ARM

# The bits that are set while kernels run; all others, rounding among them, stay as the caller has them.
FLUSH_BITS = (1 << 15 | 1 << 6) if X86 else (1 << 24 if ARM else 0)


# The control word moves through memory on x86, through a register on AArch64.


def _mxcsr(builder: Any, name: str, slot: Any) -> None:
    """Store to or load from the slot, an i32 on the stack."""
    byte = ir.IntType(8).as_pointer()
    function = builder.module.declare_intrinsic(f"llvm.x86.sse.{name}", fnty=ir.FunctionType(ir.VoidType(), [byte]))
    builder.call(function, [builder.bitcast(slot, byte)])


def _fpcr(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    kinds = [argument.type for argument in arguments]
    function = builder.module.declare_intrinsic(f"llvm.aarch64.{name}.fpcr", fnty=ir.FunctionType(result, kinds))
    return builder.call(function, arguments)


def _read(builder: Any) -> Any:
    if X86:
        slot = builder.alloca(ir.IntType(32))
        _mxcsr(builder, "stmxcsr", slot)
        return builder.zext(builder.load(slot), ir.IntType(64))
    if ARM:
        return _fpcr(builder, "get", ir.IntType(64), [])
    return ir.IntType(64)(0)


def _write(builder: Any, value: Any) -> None:
    if X86:
        slot = builder.alloca(ir.IntType(32))
        builder.store(builder.trunc(value, ir.IntType(32)), slot)
        _mxcsr(builder, "ldmxcsr", slot)
    elif ARM:
        _fpcr(builder, "set", ir.VoidType(), [value])


@intrinsic
def read_mode(typingctx: Any) -> Any:
    """The floating-point control word of this thread."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _read(builder)

    return types.uint64(), codegen


@intrinsic
def start_flushing(typingctx: Any, flush: Any) -> Any:
    """Flush subnormals in this thread from here on, if `flush`; returns the mode to give to `restore`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # Added to what is there: a caller that flushes already still does afterwards
        before = _read(builder)
        bits = builder.select(args[0], ir.IntType(64)(FLUSH_BITS), ir.IntType(64)(0))
        _write(builder, builder.or_(before, bits))
        return before

    return types.uint64(types.boolean), codegen


@intrinsic
def restore(typingctx: Any, mode: Any) -> Any:
    """Put back what `start_flushing` returned."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _write(builder, args[0])
        return context.get_dummy_value()

    return types.void(types.uint64), codegen
