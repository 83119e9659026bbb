"""Calls through a symbol or an address, where Numba would copy the callee.

Numba copies a callee into each of its callers and optimises it again there, all the way up. For the large kernels, the
product and the work of a stage, that was three quarters of the time to compile. They are compiled apart, once for each
type, and their callers hold a symbol.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import DTypeLike

from rnnbench.kernels.cpu.compiling import native
from rnnbench.kernels.cpu.pass_record import PassRecordType

Signature = Callable[[types.Float], Any]


class SymbolKernel:
    """A function compiled apart for each number type, for kernels to call by a symbol; it returns nothing."""

    def __init__(self, function: Callable[..., Any], signature: Signature) -> None:
        self.function, self.signature = function, signature
        self.addresses: dict[types.Float, int] = {}

    def ready(self, number: types.Float) -> int:
        """Compile for this type, or load from the disk cache, and make the symbol known; the function's address."""
        if number not in self.addresses:
            address = native(self.signature(number), self.function)
            llvmlite.binding.add_symbol(self._symbol(number), address)
            self.addresses[number] = address
        return self.addresses[number]

    def emit(self, builder: Any, number: types.Float, arguments: Sequence[Any]) -> None:
        """Write the call; `arguments` are LLVM values of the types that the signature asks for."""
        # Declared in the caller's module and defined nowhere: the symbol of `ready` stands for it when it is linked
        kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, self._symbol(number)), arguments)

    def _symbol(self, number: types.Float) -> str:
        return f"rnnbench_{self.function.__name__}_{number}"


# All of them, callees first: what a function calls is defined before it.
SYMBOL_KERNELS: dict[str, SymbolKernel] = {}


def make_ready(dtype: DTypeLike) -> Iterator[str]:
    """Compile all of `SYMBOL_KERNELS` for this type, or load it from disk: before any kernel that calls one of them.

    Yields the name of each before it is begun.
    """
    number = numba.from_dtype(np.dtype(dtype))
    for name, function in SYMBOL_KERNELS.items():
        yield name
        function.ready(number)


def symbol_kernel(function: Callable[..., Any]) -> Any:
    """A kernel of a record and integers that is compiled apart; kernels call it by its name."""
    count = len(inspect.signature(function).parameters) - 1
    made = SYMBOL_KERNELS[function.__name__] = SymbolKernel(
        function, lambda number: types.void(PassRecordType(number), *[types.int64] * count)
    )

    # To Numba the kernel is an intrinsic whose code is the call alone; all arguments but the record become int64
    def typing(typingctx: Any, *arguments: Any) -> Any:
        given = (
            tuple(arguments[0]) if len(arguments) == 1 and not isinstance(arguments[0], PassRecordType) else arguments
        )
        kinds = (given[0], *[types.int64] * count)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            values = [builder.extract_value(args[0], i) for i in range(len(given))]
            values = [context.cast(builder, *one) for one in zip(values, signature.args[0], kinds, strict=True)]
            made.emit(builder, given[0].number, values)
            return context.get_dummy_value()

        return types.void(types.StarArgTuple(given)), codegen

    typing.__doc__ = function.__doc__
    return intrinsic(typing)


# Calls by address: what is called was compiled after its caller, which has the address from the record.


def _call_at(builder: Any, address: Any, arguments: Sequence[Any]) -> None:
    kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments]).as_pointer()
    builder.call(builder.inttoptr(address, kind), arguments)


@intrinsic
def call_share(typingctx: Any, function: Any, record_at: Any, thread: Any, share: Any) -> Any:
    """Call the function at an address: void(address of a record, int64 thread, int64 share)."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _call_at(builder, args[0], args[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), codegen


@intrinsic
def call_whole(typingctx: Any, function: Any, record_at: Any) -> Any:
    """Call the function at an address: void(address of a record)."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _call_at(builder, args[0], args[1:])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def call_team(typingctx: Any, function: Any, work: Any, record_at: Any, threads: Any) -> Any:
    """Call what OpenMP begins a parallel region with: void(function, its argument, uint32 threads, uint32 flags).

    The function at address `work` is called with the record's address by so many threads, and all are waited for.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        threads, flags = builder.trunc(args[3], ir.IntType(32)), ir.IntType(32)(0)
        _call_at(builder, args[0], [args[1], args[2], threads, flags])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), codegen


@intrinsic
def call_number(typingctx: Any, function: Any) -> Any:
    """The int32 that the function at an address gives."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), []).as_pointer()
        return builder.sext(builder.call(builder.inttoptr(args[0], kind), []), ir.IntType(64))

    return types.int64(types.int64), codegen
