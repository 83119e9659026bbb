"""One time step of a stream: the door for inference whose rows arrive step by step, and whose states stay here.

The layers have a record each, the head one more, and the model one that lists them. All are of `PassRecord`, with the
names that a pass gives the same things, and these of their own:

    W_hh_panels    W_xh above W_hh, a panel for each vector of units (`step_tile`)
    projected      where the sums of a step start: b_h, or what each token of the vocabulary gives them; by units
    slots          the rows of it: the token of each row, else 0
    x              what a layer reads: the step's input, or h of the layer below
    last           h after the step, until every unit has read what it was

Parameters never change, so weights are packed and tokens projected when the stream is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import DTypeLike

from rnnbench.kernels.cpu.atomics import atomic_write, compare_exchange
from rnnbench.kernels.cpu.compiling import NONE, ONE, cpu_kernel, native
from rnnbench.kernels.cpu.flush import restore, start_flushing
from rnnbench.kernels.cpu.model import layer_at
from rnnbench.kernels.cpu.pass_record import GRU, LAYOUT, LSTM, RNN, Array, PassRecordType, address_of, aligned
from rnnbench.kernels.cpu.passes import COMPILING
from rnnbench.kernels.cpu.pointwise import plain_sigmoid, set_row
from rnnbench.kernels.cpu.products import next_rows
from rnnbench.kernels.cpu.simd import EXPLICIT, INDEX, INT32, lanes, lanes_of, padded, pointer
from rnnbench.kernels.cpu.step_tile import HEAD, STEP_ROWS, step_tile

# What a call gives in place of 0 where another one is in the stream.
IN_USE = np.int64(-1)
assert LAYOUT.fields is not None
_IN_USE_AT, _STEP_AT = (np.int64(LAYOUT.fields[name][1]) for name in ("in_use", "do_share"))

RNN_CODE, GRU_CODE, LSTM_CODE, HEAD_CODE = (np.int64(code) for code in (RNN, GRU, LSTM, HEAD))
PLAIN_ROWS, GATED_ROWS = np.int64(STEP_ROWS[RNN]), np.int64(STEP_ROWS[LSTM])


@intrinsic
def number_at(typingctx: Any, c: Any, address: Any) -> Any:
    """The number at an address, of the type of the record."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.get_data_type(c.number)
        return builder.load(builder.inttoptr(args[1], kind.as_pointer()), align=1)

    return c.number(c, types.int64), codegen


@intrinsic
def put_number(typingctx: Any, c: Any, address: Any, value: Any) -> Any:
    """Write a number of the type of the record to an address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.get_data_type(c.number)
        builder.store(args[2], builder.inttoptr(args[1], kind.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(c, types.int64, c.number), codegen


@intrinsic
def token_at(typingctx: Any, address: Any) -> Any:
    """The int32 at an address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.sext(builder.load(builder.inttoptr(args[0], INT32.as_pointer()), align=1), INDEX)

    return types.int64(types.int64), codegen


@intrinsic
def call_step(typingctx: Any, record_at: Any, x: Any, out: Any) -> Any:
    """What the function gives whose address the record has in `do_share`; x and out go as address and strides."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        given = [args[0], *(builder.extract_value(place, i) for place in args[1:] for i in range(3))]
        kind = ir.FunctionType(INDEX, [INDEX] * len(given)).as_pointer()
        place = builder.inttoptr(builder.add(args[0], INDEX(_STEP_AT)), INDEX.as_pointer())
        return builder.call(builder.inttoptr(builder.load(place), kind), given)

    place = types.UniTuple(types.int64, 3)
    return types.int64(types.int64, place, place), codegen


def _layer_step(c, turn):
    """h and c of all rows of a layer after a step; of the head, the logits in `last`."""
    G, n = c.G, lanes_of(c.zeros.dtype.type(0))
    panel, most = (c.E + c.H) * G * n, GATED_ROWS if G > 1 else PLAIN_ROWS
    for v in range(0, c.Hp, n):
        # To and fro from step to step: of weights that a cache does not hold it has those that were read last
        u = c.Hp - n - v if turn & 1 else v
        i = 0
        while i < c.B:
            rows = next_rows(c.B - i, most)
            at = i * c.Hs
            step_tile(
                c.recurrence, rows, pointer(c.projected, G * u), pointer(c.slots, i), pointer(c.b_hn_padded, u),
                pointer(c.x, i * c.Es), pointer(c.W_hh_panels, u // n * panel), pointer(c.h, at), pointer(c.h, at + u),
                pointer(c.cell_state, at + u), pointer(c.last, at + u), c.GHs, c.Es, c.Hs, c.Hs, c.E, c.H,
            )  # fmt: skip
            i += rows


def _plain_layer_step(c, turn):
    """What `_layer_step` computes, in plain loops: for a machine whose vectors are not known here."""
    G, n = c.G, lanes_of(c.zeros.dtype.type(0))
    wide, K = G * n, c.E + c.H
    for i in range(c.B):
        x, h, last, cell = c.x[i], c.h[i], c.last[i], c.cell_state[i]
        for u in range(0, c.Hp, n):
            first, sums, m = c.projected[c.slots[i]][G * u : G * u + wide], c.gates[0][:wide], c.gates[1][:n]
            for v in range(wide):
                sums[v] = first[v]
            for v in range(n):
                m[v] = c.b_hn_padded[u + v]
            for k in range(K):
                row, a = c.W_hh_panels[u // n * K + k], x[k] if k < c.E else h[k - c.E]
                # The recurrent part of n has a factor, so it is summed apart from the input's
                summed = 2 * n if c.recurrence == GRU_CODE and k >= c.E else wide
                for v in range(summed):
                    sums[v] += a * row[v]
                for v in range(wide - summed):
                    m[v] += a * row[summed + v]
            for v in range(n):
                if c.recurrence == RNN_CODE:
                    last[u + v] = math.tanh(sums[v])
                elif c.recurrence == GRU_CODE:
                    r, z = plain_sigmoid(sums[v]), plain_sigmoid(sums[n + v])
                    new = math.tanh(sums[2 * n + v] + r * m[v])
                    last[u + v] = new + z * (h[u + v] - new)
                elif c.recurrence == LSTM_CODE:
                    kept = plain_sigmoid(sums[n + v]) * cell[u + v]
                    cell[u + v] = kept + plain_sigmoid(sums[v]) * math.tanh(sums[2 * n + v])
                    last[u + v] = plain_sigmoid(sums[3 * n + v]) * math.tanh(cell[u + v])
                else:
                    last[u + v] = sums[v]


layer_step = cpu_kernel()(_layer_step if EXPLICIT else _plain_layer_step)


def _inputs(c, first, x_at, x_row, x_item):
    """The inputs of a step where the first layer reads them: 0, or 1 + i where the token of row i is no token.

    They are the caller's memory, which another thread may write to: what is checked is a copy, and is what is read.
    """
    if not c.has_tokens:
        for i in range(c.B):
            for e in range(c.E):
                first.x[i, e] = number_at(c, x_at + i * x_row + e * x_item)
        return 0
    for i in range(c.B):
        token = token_at(x_at + i * x_row)
        if token < 0 or token >= c.V:
            return i + 1
        c.tokens[i, 0] = token
    for i in range(c.B):
        token = c.tokens[i, 0]
        if c.gathers:
            first.slots[i] = token
        else:
            for e in range(c.E):
                first.x[i, e] = c.embedding[token, e]
    return 0


read_inputs = cpu_kernel()(_inputs)


def _stream_step(c, x_at, x_row, x_item, out_at, out_row, out_item):
    """A step of all rows, from inputs and to outputs at these addresses, with these strides in bytes.

    Gives 0, and where nothing was done and no state has changed IN_USE, or 1 + i where the token of row i is outside
    the vocabulary.
    """
    # One call at a time is in a stream: long ones let go of the interpreter's lock
    if compare_exchange(address_of(c) + _IN_USE_AT, NONE, ONE) != 0:
        return IN_USE
    first = layer_at(c, NONE)
    wrong = read_inputs(c, first, x_at, x_row, x_item)
    if wrong == 0:
        mode = start_flushing(c.flush != 0)
        for n in range(c.layers_n):
            layer = layer_at(c, n)
            layer_step(layer, c.step)
            if layer.recurrence != HEAD_CODE:
                for i in range(c.B):
                    set_row(layer.h, i, layer.last, i, layer.Hp)
        restore(mode)
        c.step += 1
        above = layer_at(c, c.layers_n - 1)
        for i in range(c.B):
            for o in range(c.O):
                put_number(c, out_at + i * out_row + o * out_item, above.last[i, o])
    atomic_write(address_of(c) + _IN_USE_AT, NONE)
    return wrong


def _enter_rows(record_at, x, out):
    """A step from inputs (B, E) to outputs (B, O)."""
    return call_step(
        record_at, (x.ctypes.data, x.strides[0], x.strides[1]), (out.ctypes.data, out.strides[0], out.strides[1])
    )


def _enter_tokens(record_at, x, out):
    """A step from tokens (B,) to outputs (B, O)."""
    return call_step(record_at, (x.ctypes.data, x.strides[0], 0), (out.ctypes.data, out.strides[0], out.strides[1]))


@cpu_kernel(nogil=False)
def move_states(record_at, states, rows, values, to_stream):
    """states[:, rows, :H] = values (states, n, H), or the other way round: 0, or IN_USE where nothing was done.

    rows are numbers of rows that are there, which the caller has seen to.
    """
    if compare_exchange(record_at + _IN_USE_AT, NONE, ONE) != 0:
        return IN_USE
    for s in range(states.shape[0]):
        for i in range(rows.size):
            for u in range(values.shape[2]):
                if to_stream:
                    states[s, rows[i], u] = values[s, i, u]
                else:
                    values[s, i, u] = states[s, rows[i], u]
    atomic_write(record_at + _IN_USE_AT, NONE)
    return NONE


# Where a step takes longer than some 20 us, other Python threads may run meanwhile. Giving the interpreter's lock up
# and taking it again is 0.1 us of a step that may take 1.
LONG_STEP = 1 << 19  # multiply-adds

_enter = {
    (tokens, long): cpu_kernel(nogil=long)(_enter_tokens if tokens else _enter_rows)
    for tokens in (False, True)
    for long in (False, True)
}
_STEPS: dict[np.dtype, int] = {}


def entry(dtype: DTypeLike, tokens: bool, long: bool) -> tuple[int, Callable[..., int]]:
    """The address of `_stream_step`, and what calls it with a record, inputs and outputs; compiled, or from disk.

    x is int32 (B,) or of this type (B, E), out of this type (B, O), in any strides. That they are so nothing looks at:
    it is the function inside Numba's dispatcher, which would take 0.5 us for it, and Stream has seen to it.
    """
    kind = np.dtype(dtype)
    number = numba.from_dtype(kind)
    with COMPILING:
        if kind not in _STEPS:
            states = types.Array(number, 3, "C")
            move_states.compile((types.int64, states, types.Array(types.int64, 1, "C"), states, types.boolean))
            _STEPS[kind] = native(types.int64(PassRecordType(number), *[types.int64] * 6), _stream_step)
        x = types.Array(types.int32, 1, "A") if tokens else types.Array(number, 2, "A")
        signature = (types.int64, x, types.Array(number, 2, "A"))
        function = _enter[tokens, long]
        function.compile(signature)
        return _STEPS[kind], function.overloads[signature].entry_point


def compile_streams(dtype: DTypeLike) -> Iterator[tuple[int, int, str]]:
    """Compile all that streams of this type need, or load it from disk: parts done, of how many, and what is next."""
    for done, (tokens, long) in enumerate(_enter):
        yield done, len(_enter), "single steps"
        entry(dtype, tokens, long)


def by_units(W: Array, gates: int, dtype: DTypeLike) -> Array:
    """(k, G H) as (units, k, G, lanes): a vector of units of each gate after the other; zeros where H ends."""
    k, H, n = len(W), W.shape[1] // gates, lanes(dtype)
    wide = np.zeros((k, gates, padded(H, dtype)), dtype)
    wide[:, :, :H] = W.reshape(k, gates, H)
    return wide.reshape(k, gates, -1, n).transpose(2, 0, 1, 3)


def panels_of(weights: Array, gates: int, dtype: DTypeLike) -> Array:
    """Weights (k, G H) as `step_tile` reads them, (units k, G lanes)."""
    units = by_units(weights, gates, dtype)
    out = aligned((units.shape[0] * units.shape[1], gates * units.shape[3]), dtype)
    out.reshape(units.shape)[:] = units
    return out


def starts_of(sums: Array, gates: int, dtype: DTypeLike) -> Array:
    """Where sums start (n, G H), as `step_tile` reads them, (n, G Hp)."""
    units = by_units(sums, gates, dtype)
    out = aligned((len(sums), units.shape[0] * gates * units.shape[3]), dtype)
    out.reshape(len(sums), units.shape[0], gates, -1)[:] = units.swapaxes(0, 1)
    return out
