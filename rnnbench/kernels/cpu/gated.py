"""Cells with gates, gru and lstm: a step forward, and the part of a step back that is no product.

    gates, tape     what a step leaves for the way back, written by `cell_tile`: gates as activated; beside them m of
                    gru, the recurrent part of n, or tanh(c) of lstm
    recurrent       the derivatives by h' W_hh, and of gru by the input part of n beside them; `delta` is the part of
                    the same rows that is by the input: x W_xh + b_h

Orders of columns. Where tiles write gates (`projected`, `gates`, panels of W_xh and W_hh): a vector of units of the
first gate, the same units of the next, and so on. Where products read deltas: gate after gate, each Hp wide, with zeros
in their padding, as products run over it:

    gru     n r | r z n: `recurrent` is n (times r), r, z, and `delta`, which begins Hp later, is r, z, n
    lstm    i f g o, for both
"""

from __future__ import annotations

import math

import numpy as np
from numba import types
from numba.extending import intrinsic

from rnnbench.kernels.cpu.calls import symbol_kernel
from rnnbench.kernels.cpu.cell_tile import ROWS, cell_tile
from rnnbench.kernels.cpu.compiling import cpu_kernel, inlined
from rnnbench.kernels.cpu.layout import rows_taking, slot_row, state_row, step_row
from rnnbench.kernels.cpu.pass_record import GRU, LSTM, RNN
from rnnbench.kernels.cpu.pointwise import plain_sigmoid, zero_row
from rnnbench.kernels.cpu.products import next_rows
from rnnbench.kernels.cpu.simd import EXPLICIT, Vectors, lanes_of, pointer
from rnnbench.kernels.cpu.tile import own_rows

RNN_CODE, GRU_CODE, LSTM_CODE = np.int64(RNN), np.int64(GRU), np.int64(LSTM)
GRU_ROWS, LSTM_ROWS = np.int64(ROWS[GRU]), np.int64(ROWS[LSTM])


@inlined
def _places(c, lo, b, t, origin):
    """Rows of the states before and after step t, of its gates, and its slots; how many rows take it."""
    before, after = state_row(c, lo, b, t, origin), state_row(c, lo, b, t + 1, origin)
    return before, after, step_row(c, lo, b, t, origin), slot_row(c, lo, b, t), rows_taking(c, lo, b, t)


def _step(c, lo, b, t, origin, j, n):
    """States after step t of units j to j + n, with gates and tape. Inputs must be projected."""
    G, lanes = c.G, lanes_of(c.zeros.dtype.type(0))
    before, after, at, slots, taking = _places(c, lo, b, t, origin)
    gates_row, state_row_, panel = c.GHs, c.Hs, c.H * G * lanes
    # Without a way back nobody reads the tape, nor gates but those that stand here: the same few rows, in cache
    tape_at = at if c.keeps_tape else lo * c.kept
    gates_at = tape_at if c.gathers else at
    most = LSTM_ROWS if c.recurrence == LSTM_CODE else GRU_ROWS
    # A panel at a time, which stays in the first or second cache while the rows pass by
    # To and fro from step to step: of weights that a cache does not hold it has those that were read last
    for v in range(0, n, lanes):
        u = j + (n - lanes - v if t & 1 else v)
        weights, inner = pointer(c.W_hh_panels, u // lanes * panel), pointer(c.b_hn_padded, u)
        i = 0
        while i < taking:
            rows = next_rows(taking - i, most)
            gates = pointer(c.gates, (gates_at + i) * gates_row + G * u)
            a, x = (before + i) * state_row_, (after + i) * state_row_ + u
            if c.gathers:
                start, index = pointer(c.projected, G * u), pointer(c.slots, slots + i)
            else:
                start, index = gates, own_rows(pointer(c.slots, 0))
            cell_tile(
                c.recurrence, rows, gates, start, index, pointer(c.h, a), weights, pointer(c.h, a + u),
                pointer(c.h, x), inner, pointer(c.cell_state, a + u), pointer(c.cell_state, x),
                pointer(c.tape, (tape_at + i) * state_row_ + u), gates_row, gates_row, state_row_, c.H,
            )  # fmt: skip
            i += rows


def _plain_step(c, lo, b, t, origin, j, n):
    """What `_step` computes, in plain loops: for a machine whose vectors are not known here."""
    G, lanes = c.G, lanes_of(c.zeros.dtype.type(0))
    before, after, at, slots, taking = _places(c, lo, b, t, origin)
    wide, lstm = G * lanes, c.recurrence == LSTM_CODE
    summed = wide if lstm else 2 * lanes  # the recurrent part of n is summed in the tape
    for i in range(taking):
        h, new, tape = c.h[before + i], c.h[after + i], c.tape[at + i]
        for u in range(j, j + n, lanes):
            gates, first = c.gates[at + i][u * G : u * G + wide], c.gates[at + i][u * G : u * G + wide]
            if c.gathers:
                first = c.projected[c.slots[slots + i]][u * G : u * G + wide]
            inner, bias = tape[u : u + lanes], c.b_hn_padded[u : u + lanes]
            for v in range(wide):
                gates[v] = first[v]
            for v in range(lanes):
                inner[v] = bias[v]
            for k in range(c.H):
                x, row = h[k], c.W_hh_panels[u // lanes * c.H + k]
                for v in range(summed):
                    gates[v] += x * row[v]
                for v in range(wide - summed):
                    inner[v] += x * row[summed + v]
            for v in range(lanes):
                if lstm:
                    gate_i, f = plain_sigmoid(gates[v]), plain_sigmoid(gates[lanes + v])
                    g, o = math.tanh(gates[2 * lanes + v]), plain_sigmoid(gates[3 * lanes + v])
                    cell = f * c.cell_state[before + i, u + v] + gate_i * g
                    inner[v] = math.tanh(cell)
                    gates[v], gates[lanes + v], gates[2 * lanes + v], gates[3 * lanes + v] = gate_i, f, g, o
                    c.cell_state[after + i, u + v], new[u + v] = cell, o * inner[v]
                else:
                    r, z = plain_sigmoid(gates[v]), plain_sigmoid(gates[lanes + v])
                    n_gate = math.tanh(gates[2 * lanes + v] + r * inner[v])
                    gates[v], gates[lanes + v], gates[2 * lanes + v] = r, z, n_gate
                    new[u + v] = n_gate + z * (h[u + v] - n_gate)


gated_step = symbol_kernel(_step if EXPLICIT else _plain_step)


@intrinsic
def _gru_back(typingctx, gates, tape, before, dh, to, strip):
    """A vector of units of one row: dh becomes the part of dh' by way of z; the deltas go to `to`, `strip` apart."""

    def codegen(context, builder, signature, args):
        write, (gates_at, tape_at, before_at, dh_at, to_at, step) = Vectors(builder, gates.dtype), args
        zero, one = step.type(0), write.constant(1.0)
        mul, sub = write.multiply, write.subtract
        r, z, n = (write.load(gates_at, zero, v) for v in range(3))
        m, h, dh_ = write.load(tape_at, zero), write.load(before_at, zero), write.load(dh_at, zero)
        dn = mul(mul(dh_, sub(one, z)), sub(one, mul(n, n)))
        dz = mul(mul(dh_, sub(h, n)), mul(z, sub(one, z)))
        dr = mul(mul(dn, m), mul(r, sub(one, r)))
        write.store(mul(dh_, z), dh_at, zero)
        for place, value in enumerate((mul(dn, r), dr, dz, dn)):
            write.store(value, to_at, builder.mul(step, step.type(place)))
        return context.get_dummy_value()

    return types.void(gates, tape, before, dh, to, types.intp), codegen


@intrinsic
def _lstm_back(typingctx, gates, tape, before, dh, dc, to, strip):
    """A vector of units of one row: dc becomes the derivative by c'; the deltas go to `to`, `strip` apart."""

    def codegen(context, builder, signature, args):
        write, (gates_at, tape_at, before_at, dh_at, dc_at, to_at, step) = Vectors(builder, gates.dtype), args
        zero, one = step.type(0), write.constant(1.0)
        mul, sub, add = write.multiply, write.subtract, write.multiply_add
        i, f, g, o = (write.load(gates_at, zero, v) for v in range(4))
        tanh_c, c = write.load(tape_at, zero), write.load(before_at, zero)
        dh_, dc_ = write.load(dh_at, zero), write.load(dc_at, zero)
        dc_ = add(mul(dh_, o), sub(one, mul(tanh_c, tanh_c)), dc_)
        di = mul(mul(dc_, g), mul(i, sub(one, i)))
        df = mul(mul(dc_, c), mul(f, sub(one, f)))
        dg = mul(mul(dc_, i), sub(one, mul(g, g)))
        do = mul(mul(dh_, tanh_c), mul(o, sub(one, o)))
        write.store(mul(dc_, f), dc_at, zero)
        for place, value in enumerate((di, df, dg, do)):
            write.store(value, to_at, builder.mul(step, step.type(place)))
        return context.get_dummy_value()

    return types.void(gates, tape, before, dh, dc, to, types.intp), codegen


@inlined
def _vector_back(c, lstm, at, before, dh_at, to, to_at, u, lanes):
    """A vector of units from u on, of one row."""
    gates, tape, target = (
        pointer(c.gates, at * c.GHs + c.G * u),
        pointer(c.tape, at * c.Hs + u),
        pointer(to, to_at * to.shape[1] + u),
    )
    dh = pointer(c.dh, dh_at * c.Hs + u)
    if lstm:
        cell, dc = pointer(c.cell_state, before * c.Hs + u), pointer(c.dc, dh_at * c.Hs + u)
        _lstm_back(gates, tape, cell, dh, dc, target, c.Hp)
    else:
        _gru_back(gates, tape, pointer(c.h, before * c.Hs + u), dh, target, c.Hp)


@inlined
def _plain_back(c, lstm, at, before, dh_at, to, to_at, u, lanes):
    """What `_vector_back` computes, in a plain loop."""
    gates, tape, out, Hp = c.gates[at][c.G * u : c.G * (u + lanes)], c.tape[at], to[to_at], c.Hp
    for v in range(lanes):
        dh = c.dh[dh_at, u + v]
        if lstm:
            i, f, g, o = gates[v], gates[lanes + v], gates[2 * lanes + v], gates[3 * lanes + v]
            tanh_c = tape[u + v]
            dc = c.dc[dh_at, u + v] + dh * o * (1 - tanh_c * tanh_c)
            out[u + v] = dc * g * i * (1 - i)
            out[Hp + u + v] = dc * c.cell_state[before, u + v] * f * (1 - f)
            out[2 * Hp + u + v] = dc * i * (1 - g * g)
            out[3 * Hp + u + v] = dh * tanh_c * o * (1 - o)
            c.dc[dh_at, u + v] = dc * f
        else:
            r, z, n = gates[v], gates[lanes + v], gates[2 * lanes + v]
            dn = dh * (1 - z) * (1 - n * n)
            out[u + v] = dn * r
            out[Hp + u + v] = dn * tape[u + v] * r * (1 - r)
            out[2 * Hp + u + v] = dh * (c.h[before, u + v] - n) * z * (1 - z)
            out[3 * Hp + u + v] = dn
            c.dh[dh_at, u + v] = dh * z


_back = _vector_back if EXPLICIT else _plain_back


@cpu_kernel()
def gates_backward(c, lo, b, at, before, to, to_at, j, n):
    """The deltas of units j to j + n of one step, to rows of `to` from to_at on, from dh and, of lstm, dc.

    Step and state rows `at` and `before` are those of the step and of the states before it. It leaves in dh (gru) or dc
    (lstm) what comes to the states before the step by another way than the recurrent product.
    """
    lanes, lstm = lanes_of(c.zeros.dtype.type(0)), c.recurrence == LSTM_CODE
    for i in range(b):
        for u in range(j, j + n, lanes):
            _back(c, lstm, at + i, before + i, lo + i, to, to_at + i, u, lanes)
        # Products run over the padding: zero, whatever was computed there
        if j + n == c.Hp and c.Hp > c.H:
            row = to[to_at + i]
            for strip in range(4):
                zero_row(row[strip * c.Hp + c.H : (strip + 1) * c.Hp])
