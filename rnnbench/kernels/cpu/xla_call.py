"""A layer as XLA calls it: the handler of a custom call (XLA's typed FFI), compiled code that takes neither the GIL nor
memory of its own.

A call has no state. XLA gives the arguments, the results, and as the last result room for the record and for all that
the kernels work in; the attributes `words` and `bases`, made by `layer_call` where the call is traced, say what stands
in the record: a number or, where a base is named, so many bytes behind the start of that argument or result. The tape
is a result like any other. So calls of one place in a program may run side by side, in any order and any number of
times, and none waits for another.

What is read of XLA's structs, by their offsets, is in its header `xla/ffi/api/c_api.h`; sizes are of 64-bit machines.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import DTypeLike, NDArray

from rnnbench.kernels.cpu.calls import call_whole
from rnnbench.kernels.cpu.compiling import cpu_kernel, native
from rnnbench.kernels.cpu.layer_pass import ROWS_BACK, compile_layer, layer_addresses, sizes_of, steps_kept, tape_parts
from rnnbench.kernels.cpu.pass_record import (
    ARRAYS,
    FORWARD,
    GRADIENT,
    INTEGERS,
    LAYOUT,
    PassRecordType,
    address_of,
    layer_buffers,
    model_buffers,
    record_at,
)
from rnnbench.kernels.cpu.passes import COMPILING
from rnnbench.kernels.cpu.pointwise import zero_row
from rnnbench.kernels.cpu.simd import CACHE_LINE, INDEX, padded

# Version of the interface that this was written for; XLA refuses to call what is of one that it does not know.
_MAJOR, _MINOR = 0, 3
_METADATA, _EXECUTE = 1, 3  # a kind of extension; a stage
# Offsets: of the frame, of lists of arguments, results and attributes in it, of a buffer, an array and an extension
_EXTENSION, _STAGE = 8, 32
_ARGS_N, _ARGS, _RETS_N, _RETS, _ATTRS = 56, 72, 96, 112, 160
_BUFFER_DATA, _ARRAY_SIZE, _ARRAY_DATA = 24, 8, 16
_KIND, _METADATA_AT, _VERSION = 8, 24, 24
_INT32 = (1 << 32) - 1
_WORD = 8

_FIELDS = (*INTEGERS, *ARRAYS)
_DO_SHARE = _FIELDS.index("do_share")


@intrinsic
def _read(typingctx: Any, address: Any) -> Any:
    """The int64 at an address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.inttoptr(args[0], INDEX.as_pointer()))

    return types.int64(types.int64), codegen


@intrinsic
def _write(typingctx: Any, address: Any, value: Any) -> Any:
    """Put an int64 at an address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[1], builder.inttoptr(args[0], INDEX.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


def _symbol(name: str, number: types.Float) -> str:
    return f"rnnbench_layer_{name}_{number}"


def _address_of_symbol(name: str) -> Any:
    """An intrinsic: the address of a function of `layer_pass`, for the number type of a record."""

    def typing(typingctx: Any, c: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = ir.FunctionType(ir.VoidType(), [])
            symbol = cgutils.get_or_insert_function(builder.module, kind, _symbol(name, c.number))
            return builder.ptrtoint(symbol, INDEX)

        return types.int64(c), codegen

    return intrinsic(typing)


_call_address, _share_address = _address_of_symbol("call"), _address_of_symbol("share")


@cpu_kernel()
def _fill(c, record):
    """What of the record's arrays no call brings along: their own address, rows and steps in order, a 1 and zeros."""
    c.layers[0] = record
    c.unit[0] = 1
    zero_row(c.zeros[: max(c.GHp, c.Ep)])
    for i in range(c.B):
        c.order[i] = c.seats[i] = i
    step = c.B if c.row_apart == 1 else 1  # time first, or the steps of a row one after the other
    for t in range(c.T):
        c.steps_at[t] = t * step


@cpu_kernel()
def _clear_padding(c):
    """Zeros to what no step of a row writes: outputs behind its end, on the way back gradients of such inputs."""
    for row in range(c.B):
        for t in range(c.lengths[row], c.T):
            at = c.steps_at[t] + row * c.row_apart
            if c.goal == FORWARD:
                zero_row(c.outputs[at])
            elif c.learns_inputs:
                zero_row(c.d_inputs[at])


def _handle(typed):
    """One call by XLA: 0 where all is well. `typed` is the address of the frame, and says of which numbers it is."""
    frame = address_of(typed)
    extension = _read(frame + _EXTENSION)
    if extension != 0 and _read(extension + _KIND) & _INT32 == _METADATA:
        _write(_read(extension + _METADATA_AT) + _VERSION, _MINOR << 32 | _MAJOR)
        return 0
    if _read(frame + _STAGE) & _INT32 != _EXECUTE:
        return 0
    # Attributes stand in the order of their names: bases, words
    attributes = _read(frame + _ATTRS)
    bases, words = _read(attributes), _read(attributes + _WORD)
    count, bases, words = _read(words + _ARRAY_SIZE), _read(bases + _ARRAY_DATA), _read(words + _ARRAY_DATA)
    args_n, args, rets = _read(frame + _ARGS_N), _read(frame + _ARGS), _read(frame + _RETS)
    record = _read(_read(rets + _WORD * (_read(frame + _RETS_N) - 1)) + _BUFFER_DATA)
    for at in range(0, count * _WORD, _WORD):
        value, base = _read(words + at), _read(bases + at) - 1
        if base >= 0:
            buffer = _read(args + _WORD * base) if base < args_n else _read(rets + _WORD * (base - args_n))
            value += _read(buffer + _BUFFER_DATA)
        _write(record + at, value)
    _write(record + _WORD * _DO_SHARE, _share_address(typed))
    c = record_at(typed, record)
    _fill(c, record)
    if c.has_lengths:
        _clear_padding(c)
    call_whole(_call_address(typed), record)
    return 0


_HANDLERS: dict[np.dtype, int] = {}


def compile_call(dtype: DTypeLike) -> Iterator[tuple[int, int, str]]:
    """Compile all that calls of this type need, or load it from disk: parts done, of how many, and what is next."""
    kind = np.dtype(dtype)
    if kind in _HANDLERS:
        return
    parts = 1
    for done, of, name in compile_layer(kind):
        parts = of + 1
        yield done, parts, name
    yield parts - 1, parts, "handler"
    number = numba.from_dtype(kind)
    call, share, _ = layer_addresses(kind)
    for name, address in (("call", call), ("share", share)):
        llvmlite.binding.add_symbol(_symbol(name, number), address)
    _HANDLERS[kind] = native(types.int64(PassRecordType(number)), _handle)


def handler(dtype: DTypeLike) -> int:
    """The address of the handler for calls of this type, compiled."""
    with COMPILING:
        for _ in compile_call(dtype):
            pass
    return _HANDLERS[np.dtype(dtype)]


@dataclass(frozen=True)
class LayerCall:
    """What a call hands to the handler, and the sizes of results that its caller cannot know.

    `words` and `bases`: the record, and the argument or result, counted from 1, that each word of it lies behind, or 0.
    """

    words: NDArray[np.int64]
    bases: NDArray[np.int64]
    room: int  # bytes of the last result
    tape: int  # numbers


# What the kernels write before they read it, by direction in time.
_WORK_FORWARD = ("W_xh_panels", "W_hh_panels", "b_h_padded", "b_hn_padded", "recurrent", "last", "last_cell")
_WORK_BACK = (
    "W_xh_T_panels", "W_hh_T_panels", "recurrent", "dc", "part_W_xh", "part_W_hh", "part_b_h", "part_b_hn",
)  # fmt: skip
_WORK_LENGTHS = ("rows_of_steps", "sorted_rows", "by_length", "firsts")


@cache
def layer_call(
    recurrence: int, E: int, H: int, dtype: str, B: int, T: int, arrays: tuple[str, ...], *, gradient: bool,
    keeps: bool, turns: bool, time_major: bool, emits: bool,
) -> LayerCall:  # fmt: skip
    """A call of one layer in one direction over B rows of T steps, at least one of either.

    `arrays`: the record's names of arguments and results in their order, without the room; what is among them is read
    or written. `keeps` a tape, which is then among them; `turns`: from the last step of a row to its first;
    `time_major`: inputs (T, B, E), else (B, T, E); `emits`: outputs have gradients, not only the last states.
    """
    size, kept = np.dtype(dtype).itemsize, T if keeps else steps_kept(T)
    lengths = "lengths" in arrays
    s = replace(sizes_of(recurrence, E, H), B=B, T=T, kept=kept, rows=B, has_lengths=lengths)
    width = s.widths(dtype)
    # Made to be measured: pages that nobody touches cost nothing
    made = layer_buffers(s, dtype) | model_buffers(s, dtype)
    work = (_WORK_BACK if gradient else _WORK_FORWARD) + _WORK_LENGTHS * lengths
    room = {"layers": _WORD, "order": B * _WORD, "seats": B * _WORD, "steps_at": T * _WORD, "unit": size}
    room |= {"zeros": size * max(width["GHp"], padded(E, dtype)), "b_h": size * width["GH"]}
    room |= {name: made[name].nbytes for name in work}
    later = made["delta"].ctypes.data - made["recurrent"].ctypes.data  # both are of one run
    room["recurrent"] += later
    if gradient:
        rows = {"dh": (B, "Hs"), "above": (B * T, "Hs"), "d_x": (B + int(ROWS_BACK), "Es")}
        room |= {name: n * width[step] * size for name, (n, step) in rows.items()}
    values = {
        **width, "E": E, "H": H, "R": H, "G": s.G, "B": B, "b": B, "order_n": B, "T": T, "kept": kept,
        "recurrence": recurrence, "workers": 1, "layers_n": 1, "directions": 1, "under_rows": 1,
        "has_last_gradients": 1, "has_bias": 1, "above_row": width["Hs"], "goal": GRADIENT if gradient else FORWARD,
        "keeps_tape": keeps, "turns": turns, "row_apart": 1 if time_major else T, "emits": emits,
        "has_lengths": lengths, "learns_inputs": "d_inputs" in arrays, "learns_states": "d_initial" in arrays,
    }  # fmt: skip
    base = {name: place for place, name in enumerate(arrays, 1)}
    last = len(arrays) + 1
    at = LAYOUT.itemsize
    for name, taken in room.items():
        at += -at % CACHE_LINE
        if name not in base:
            values[name], base[name] = at, last
            at += taken
    values["delta"], base["delta"] = values["recurrent"] + later, last
    tape, at_tape = tape_parts(recurrence, E, H, dtype, B, kept), 0
    if not keeps:
        base["tape"], at_tape = last, at + -at % CACHE_LINE
    of_tape = base["tape"]
    for name, count in tape.items():
        values[name], base[name] = at_tape, of_tape
        at_tape += count * size
    values["root"], base["root"] = 0, last
    words, bases = (np.array([int(given.get(name, 0)) for name in _FIELDS], np.int64) for given in (values, base))
    return LayerCall(words, bases, at if keeps else at_tape, sum(tape.values()))
