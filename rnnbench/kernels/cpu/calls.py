"""Calls through a symbol or an address, where Numba would copy the callee.

Numba copies a callee into each of its callers and optimises it again there, all the way up, and gives a parallel loop
every array of every tuple as an argument of its own. For the two large kernels, the product and the work of a pass,
that was three quarters of the time to compile. Their callers hold a symbol (`symbol_call`) or an address
(`work_call`) instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import impl_ret_borrowed
from numba.extending import intrinsic

from rnnbench.kernels.cpu.compiling import native

_WORD = ir.IntType(64)


def symbol_call(name: str, function: Callable[..., Any], signatures: dict[types.Type, Any]) -> Any:
    """Compile `function` now for each signature; returns what kernels call in its place.

    `signatures`: by the type of the first argument; all return nothing. A process that loads a caller from the disk
    cache has the symbol, for it has imported the module that called this.
    """
    symbols: dict[types.Type, str] = {}
    for first, signature in signatures.items():
        symbols[first] = f"rnnbench_{name}_{len(symbols)}"
        llvmlite.binding.add_symbol(symbols[first], native(signature, function))

    def typing(typingctx: Any, *arguments: Any) -> Any:
        given = arguments[0] if len(arguments) == 1 else arguments
        signature, symbol = signatures[given[0]], symbols[given[0]]

        def codegen(context: Any, builder: Any, called: Any, args: Any) -> Any:
            values = [
                context.cast(builder, builder.extract_value(args[0], i), called.args[0][i], wanted)
                for i, wanted in enumerate(signature.args)
            ]
            kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, symbol), values)
            return context.get_dummy_value()

        return types.void(types.StarArgTuple(tuple(given))), codegen

    return intrinsic(typing)


@intrinsic
def on_stack(typingctx: Any, value: Any) -> Any:
    """The address of a copy of `value`, good until the calling kernel returns. Arrays in it are not kept alive."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ptrtoint(cgutils.alloca_once_value(builder, args[0]), _WORD)

    return types.intp(value), codegen


@intrinsic
def value_at(typingctx: Any, address: Any) -> Any:
    """What `on_stack` has put at the address; `address` is a CPointer to its type."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.get_value_type(address.dtype)
        value = builder.load(builder.bitcast(args[0], kind.as_pointer()))
        return impl_ret_borrowed(context, builder, address.dtype, value)

    return address.dtype(address), codegen


@intrinsic
def work_call(typingctx: Any, function: Any, worker: Any, workers: Any, context_at: Any) -> Any:
    """Call the function at an address, as `native` gives it: void(int64 worker, int64 workers, address of context)."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [_WORD, _WORD, byte]).as_pointer()
        where = builder.inttoptr(args[3], byte)
        builder.call(builder.inttoptr(args[0], kind), [args[1], args[2], where])
        return context.get_dummy_value()

    return types.void(types.intp, types.int64, types.int64, types.intp), codegen
