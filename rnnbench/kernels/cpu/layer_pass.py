"""A layer by itself, in one direction, for whoever has a model of their own: the states of all steps come out of one
call, and gradients of all of them and of the last states go into another.

    forward     inputs, initial states             ->  outputs, last states; the tape, where there is a way back
    back        d outputs, d last states, the tape  ->  d inputs, d initial states, d parameters

Parameters lie as PyTorch has them, weights (G H, E) and (G H, H) and two biases, or, without `unit_rows`, as those of a
model, (E, G H) and (H, G H). Step t of row r is row steps_at[t] + r row_apart of `inputs` and `outputs`: time first,
batch first or packed. All between is what the
model's pass calls: `layer_forward`, `layer_backward`, stages and shares. Rows are copied into the layout of workers,
where each has its own together, a few steps before they are needed, and out of it while they are near. The tape is x,
h, the cell's state, gates and what `gated` keeps, one after the other in one run of numbers, so that calls forward may
outnumber those back.

Inputs may come with the token that each of them is the embedding of. Then `unique_tokens` does as in the model's pass:
each unique token is projected once, and gives back the gradient of its row of the embedding. In the place of x the tape
has the rows of the unique tokens, and at its end the slots and the tokens.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache

import numba
import numpy as np
from numba import types
from numpy.typing import DTypeLike

from rnnbench.kernels.cpu.calls import SYMBOL_KERNELS, make_ready, symbol_kernel
from rnnbench.kernels.cpu.compiling import NONE, ONE, cpu_kernel, native
from rnnbench.kernels.cpu.flush import restore, start_flushing
from rnnbench.kernels.cpu.gated import GRU_CODE, LSTM_CODE
from rnnbench.kernels.cpu.layer_backward import reverse_step, step_gradients
from rnnbench.kernels.cpu.layer_forward import (
    forward_steps,
    keep_last_states,
    move_to_front,
    project_inputs,
    start_states,
    write_state,
)
from rnnbench.kernels.cpu.layout import FIRST, rows_before, rows_taking, slot_row, state_row, step_row
from rnnbench.kernels.cpu.model import FORWARD_STEPS, gate_turn, pack_layer, steps_at_once
from rnnbench.kernels.cpu.pass_record import (
    ARRAYS,
    FORWARD,
    GRADIENT,
    GRU,
    INTEGERS,
    LSTM,
    RNN,
    BufferSizes,
    PassRecord,
    PassRecordType,
    aligned,
    layer_buffers,
    model_buffers,
)
from rnnbench.kernels.cpu.passes import (
    COMPILING,
    MIN_WEIGHTS,
    MIN_WORK,
    TANH_WORK,
    WAKING_WORK,
    cut_rows,
    enter,
    rows_are_better,
    share_within_rows,
)
from rnnbench.kernels.cpu.pointwise import copy
from rnnbench.kernels.cpu.products import (
    add_gate_parts,
    add_product,
    add_unit_parts,
    affine,
    pack_gates,
    pack_gates_transposed,
    pack_units,
    pack_units_transposed,
)
from rnnbench.kernels.cpu.row_order import count_rows_of_steps, count_steps, sort_rows
from rnnbench.kernels.cpu.shares import (
    INPUTS,
    INPUTS_BACK,
    PARTS,
    PREPARE,
    PROJECT,
    ROWS,
    TOKENS,
    share_range,
    stage,
    take_all,
    workers_for,
)
from rnnbench.kernels.cpu.thread_pool import shared_fields, thread_pool
from rnnbench.kernels.cpu.unique_tokens import ALL, embedding_gradients, list_places

# Rows whose inputs' gradients are computed together, while their deltas are near.
ROWS_BACK = np.int64(64)


@cpu_kernel()
def _place(c, row, t):
    """Row of `inputs` and `outputs` that is step t of a row, in the order of this direction: back from its own end."""
    step = (c.lengths[row] if c.has_lengths else c.T) - 1 - t if c.turns else t
    return c.steps_at[step] + row * c.row_apart


@symbol_kernel
def _pack(c, part, parts):
    """A part of the weights as products read them, on the way back the transposed ones. Biases are added first."""
    if c.goal == GRADIENT:
        step = c.delta_width // c.G
        if not c.unit_rows:
            pack_gates_transposed(c.W_hh_T_panels, c.W_hh, c.G, gate_turn(c), step, part, parts)
            if c.learns_inputs:
                pack_gates_transposed(c.W_xh_T_panels, c.W_xh, c.G, NONE, step, part, parts)
            return
        pack_units_transposed(c.W_hh_T_panels, c.weight_hh, c.G, gate_turn(c), step, part, parts)
        if c.learns_inputs or c.learns_tokens:
            pack_units_transposed(c.W_xh_T_panels, c.weight_ih, c.G, NONE, step, part, parts)
        return
    if not c.unit_rows:
        pack_layer(c, False, part, parts)
        return
    pack_units(c.W_xh_panels, c.weight_ih, c.G, part, parts)
    pack_units(c.W_hh_panels, c.weight_hh, c.G, part, parts)
    if part == 0 and c.has_bias:
        # The recurrent bias of n, which r multiplies, stays by itself
        inner = c.GH - c.H if c.recurrence == GRU_CODE else c.GH
        for j in range(c.GH):
            c.b_h[0, j] = c.bias_ih[j, 0] + (c.bias_hh[j, 0] if j < inner else 0)
        for j in range(c.GH - inner):
            c.b_hn_padded[j] = c.bias_hh[inner + j, 0]
        pack_gates(c.b_h_padded, c.b_h, c.G, NONE, ONE)


@symbol_kernel
def _find_unique_tokens(c):
    """List the unique tokens and their rows of `inputs`, and the slot of each token where `delta` has it.

    slot_of_token must be -1 everywhere, and is so again afterwards. Stops at a token that is none, with its place,
    counted from 1, in `unknown_at`: the caller's array may change at any time, so each is looked at once. Stops, too,
    with -1 there, at a row that is not the one of its token.
    """
    slots, unique, slot_of_token, V = c.slots, c.unique, c.slot_of_token, c.V
    count, c.unknown_at = NONE, NONE
    for worker in range(c.row_shares):
        lo, hi = share_range(c.b, worker, c.row_shares)
        for t in range(c.T):
            slot = slot_row(c, lo, hi - lo, t)
            for i in range(rows_taking(c, lo, hi - lo, t)):
                place = _place(c, c.rows[lo + i], t)
                token = c.token_ids[place]
                if token < 0 or token >= V:
                    c.unknown_at = place + 1
                    break
                if slot_of_token[token] < 0:
                    slot_of_token[token] = count
                    unique[count] = token
                    copy(c.unique_embedding[count], c.inputs[place])
                    count += 1
                else:
                    first, again, differ = c.unique_embedding[slot_of_token[token]], c.inputs[place], 0
                    for e in range(c.E):
                        differ += first[e] != again[e]
                    if differ:
                        c.unknown_at = NONE - 1
                        break
                slots[slot + i] = slot_of_token[token]
            if c.unknown_at != 0:
                break
        if c.unknown_at != 0:
            break
    for u in range(count):
        slot_of_token[unique[u]] = -1
    unique[c.b * c.T] = count  # for the way back
    c.unique_n = count


@symbol_kernel
def _read_inputs(c, lo, b, begin, end, origin):
    """x of steps [begin, end) from `inputs`."""
    for t in range(begin, end):
        at = step_row(c, lo, b, t, origin)
        for i in range(rows_taking(c, lo, b, t)):
            copy(c.x[at + i], c.inputs[_place(c, c.rows[lo + i], t)])


@symbol_kernel
def _project_inputs(c, lo, b, begin, end, origin):
    """What of the gates is by x of steps [begin, end)."""
    if c.column_shares > 1:
        c.stage_layer, c.stage_lo, c.stage_b = 0, lo, b
        c.stage_begin, c.stage_end, c.stage_origin = begin, end, origin
        stage(c, INPUTS, c.column_shares)
    else:
        project_inputs(c, lo, b, begin, end, origin, NONE, c.GHp)


@symbol_kernel
def _write_outputs(c, lo, b, begin, end, origin):
    """States after steps [begin, end) to this direction's columns of `outputs`."""
    for t in range(begin, end):
        at = state_row(c, lo, b, t + 1, origin)
        for i in range(rows_taking(c, lo, b, t)):
            copy(c.outputs[_place(c, c.rows[lo + i], t)][c.out_at : c.out_at + c.H], c.h[at + i])


@symbol_kernel
def _rows_forward(c, worker):
    """All steps of one worker's rows, in segments of as many as are kept: all, where there is a way back."""
    lo, hi = share_range(c.b, worker, c.row_shares)
    b, begin, origin = hi - lo, 0, 0
    start_states(c, lo, b, lo)
    together = steps_at_once(c, b)
    while begin < c.T:
        end = min(c.T, begin + c.kept)
        for first in range(begin, end, together):
            last = min(end, first + together)
            if not c.gathers:
                _read_inputs(c, lo, b, first, last, origin)
                _project_inputs(c, lo, b, first, last, origin)
            forward_steps(c, lo, b, first, last, origin)
            _write_outputs(c, lo, b, first, last, origin)
        if c.has_lengths:
            keep_last_states(c, lo, b, begin, end, origin)
        if end < c.T:
            move_to_front(c, lo, b, end, end, origin)
            origin = end
        begin = end
    write_state(c, lo, b, lo, origin)


@symbol_kernel
def _read_gradients(c, lo, b, t):
    """What comes to the states after step t from outside, to `above`: of outputs, and of last states of rows that end.

    Without `emits` outputs have no gradient, and only rows that end have one.
    """
    at, rows, going = step_row(c, lo, b, t, FIRST), rows_taking(c, lo, b, t), rows_taking(c, lo, b, t + 1)
    for i in range(rows if c.emits else 0):
        copy(c.above[at + i], c.d_outputs[_place(c, c.rows[lo + i], t)][c.out_at : c.out_at + c.H])
    for i in range(going, rows):
        to, last = c.above[at + i], c.d_last[c.seats[lo + i]]
        if c.emits:
            for j in range(c.H):
                to[j] += last[j]
        else:
            copy(to, last)


@symbol_kernel
def _inputs_back(c, number, lo, b, begin, end):
    """Gradients of the inputs of steps [begin, end) to `d_inputs`, or added to what is there; room `number` of d_x."""
    room, together = number * (c.B + ROWS_BACK), max(ONE, ROWS_BACK // b)
    for first in range(begin, end, together):
        last = min(end, first + together)
        at = step_row(c, lo, b, first, FIRST)
        rows = rows_before(c, lo, b, last) - rows_before(c, lo, b, first)
        affine(c.d_x, room, c.zeros, c.delta, at, c.W_xh_T_panels, rows, 0, c.Ep, c.delta_width)
        for t in range(first, last):
            of = room + step_row(c, lo, b, t, FIRST) - at
            for i in range(rows_taking(c, lo, b, t)):
                to, dx = c.d_inputs[_place(c, c.rows[lo + i], t)], c.d_x[of + i]
                if c.adds_inputs:
                    for j in range(c.E):
                        to[j] += dx[j]
                else:
                    copy(to, dx)


@symbol_kernel
def _states_back(c, lo, b):
    """Gradients of the initial states, from delta of the first step and what comes by another way than h W_hh.

    Those of rows without a step are those of their last states.
    """
    at, dh, taking = step_row(c, lo, b, FIRST, FIRST), c.dh, rows_taking(c, lo, b, FIRST)
    if c.recurrence == GRU_CODE:
        add_product(dh, lo, c.recurrent, at, c.W_hh_T_panels, taking, 0, c.Hp, c.delta_width)
    else:
        affine(dh, lo, c.zeros, c.recurrent, at, c.W_hh_T_panels, taking, 0, c.Hp, c.delta_width)
    for i in range(b):
        seat = c.seats[lo + i]
        if i < taking:
            copy(c.d_initial[seat], dh[lo + i])
        else:
            copy(c.d_initial[seat], c.d_last[seat])
        if c.recurrence == LSTM_CODE:
            copy(c.d_initial_cell[seat], c.dc[lo + i])


@symbol_kernel
def _rows_back(c, worker):
    """All steps of one worker's rows back, and its part of the gradients."""
    lo, hi = share_range(c.b, worker, c.row_shares)
    b = hi - lo
    if c.recurrence == LSTM_CODE:
        for i in range(b):
            copy(c.dc[lo + i], c.d_last_cell[c.seats[lo + i]])
    for t in range(c.T - 1, -1, -1):
        _read_gradients(c, lo, b, t)
        reverse_step(c, lo, b, t, NONE, c.T, NONE, NONE, NONE)
    step_gradients(c, worker, lo, b, NONE, c.T, NONE, ONE)
    if c.learns_states:
        _states_back(c, lo, b)
    if c.learns_inputs and c.column_shares == 1:
        _inputs_back(c, worker, lo, b, NONE, c.T)


@symbol_kernel
def _add_parts(c, share, shares):
    """Some of the gradients of the parameters: the parts of the workers, added in their order."""
    workers, Hp = c.row_shares, c.Hp
    if not c.unit_rows:
        add_gate_parts(c.d_W_xh, c.part_W_xh, workers, c.G, Hp, NONE, share, shares)
        add_gate_parts(c.d_W_hh, c.part_W_hh, workers, c.G, Hp, gate_turn(c), share, shares)
        add_gate_parts(c.d_b_h, c.part_b_h, workers, c.G, Hp, NONE, share, shares)
        if c.recurrence == GRU_CODE:
            add_gate_parts(c.d_b_hn, c.part_b_hn, workers, ONE, NONE, NONE, share, shares)
        return
    of_inputs = c.token_shares if c.has_tokens else workers
    add_unit_parts(c.d_weight_ih, c.part_W_xh, of_inputs, c.G, Hp, NONE, share, shares)
    add_unit_parts(c.d_weight_hh, c.part_W_hh, workers, c.G, Hp, gate_turn(c), share, shares)
    if share == 0 and c.has_bias:
        add_unit_parts(c.d_bias_ih, c.part_b_h, workers, c.G, Hp, NONE, NONE, ONE)
        copy(c.d_bias_hh[:, 0], c.d_bias_ih[:, 0])
        if c.recurrence == GRU_CODE:
            add_unit_parts(c.d_bias_hh[c.GH - c.H :], c.part_b_hn, workers, ONE, NONE, NONE, NONE, ONE)


def _do_layer_share(c, thread, number):
    """One share of the stage at hand."""
    mode = start_flushing(True)
    if c.stage == INPUTS_BACK:
        _inputs_back(c, number, NONE, c.b, *share_range(c.T, number, c.shares))
    elif c.stage >= INPUTS:
        share_within_rows(c, number)
    elif c.stage == PREPARE:
        _pack(c, number, c.shares)
    elif c.stage == PROJECT:
        lo, hi = share_range(c.unique_n, number, c.shares)
        bias, rows = c.b_h_padded[0], c.unique_embedding
        affine(c.projected, lo, bias, rows, lo, c.W_xh_panels, hi - lo, 0, c.GHp, c.E)
    elif c.stage == TOKENS:
        embedding_gradients(c, NONE, c.adds_inputs, number, *share_range(c.unique_n, number, c.shares))
    elif c.stage == PARTS:
        _add_parts(c, number, c.shares)
    elif c.goal == GRADIENT:
        _rows_back(c, number)
    else:
        _rows_forward(c, number)
    restore(mode)


def _layer_call(c):
    """One layer, forward or, of GRADIENT, back. Both cut rows alike, from the same sizes."""
    mode = start_flushing(True)
    c.rows = c.order
    count_steps(c)
    work = c.steps * c.GH * ((c.H + c.E) * (3 if c.keeps_tape else 1) + TANH_WORK)
    cut_rows(c, work)
    if c.has_lengths:
        sort_rows(c, c.row_shares)
        for worker in range(c.row_shares):
            lo, hi = share_range(c.b, worker, c.row_shares)
            count_rows_of_steps(c, lo, hi - lo, lo)
    weights = c.GH * (c.E + c.H)
    stage(c, PREPARE, workers_for(weights, MIN_WEIGHTS, c.GHp // c.panel, c.workers))
    c.gathers = NONE
    if c.has_tokens and c.goal == FORWARD:
        _find_unique_tokens(c)
        if c.unknown_at != 0:
            restore(mode)
            return
        if not rows_are_better(c, c.steps):
            c.gathers = ONE
            stage(c, PROJECT, workers_for(c.unique_n * (c.E + TANH_WORK) * c.GH, MIN_WORK, c.unique_n, c.workers))
    stage(c, ROWS, c.row_shares)
    if c.goal == GRADIENT:
        if c.has_tokens:
            c.unique_n = c.unique[c.b * c.T]
            list_places(c, NONE, ALL)
            work = 2 * c.unique_n * (c.E + TANH_WORK) * c.GH + c.steps * c.GH
            c.token_shares = workers_for(work, MIN_WORK, c.unique_n, c.workers)
            stage(c, TOKENS, c.token_shares)
        if c.learns_inputs and c.column_shares > 1:
            stage(c, INPUTS_BACK, c.column_shares)
        stage(c, PARTS, workers_for(weights, MIN_WEIGHTS, c.H, c.workers))
    restore(mode)


_ADDRESSES: dict[np.dtype, tuple[int, int, int]] = {}


def layer_addresses(dtype: DTypeLike) -> tuple[int, int, int]:
    """The addresses of `_layer_call`, `_do_layer_share` and `take_all`, once `compile_layer` is through."""
    return _ADDRESSES[np.dtype(dtype)]


def compile_layer(dtype: DTypeLike) -> Iterator[tuple[int, int, str]]:
    """Compile all that calls of this type need, or load it from disk: parts done, of how many, and what is next."""
    kind = np.dtype(dtype)
    if kind in _ADDRESSES:
        return
    parts = len(SYMBOL_KERNELS) + 3
    for done, name in enumerate(make_ready(kind)):
        yield done, parts, name
    record = PassRecordType(numba.from_dtype(kind))
    yield parts - 3, parts, "share"
    share = native(types.void(record, types.int64, types.int64), _do_layer_share)
    taker = native(types.void(record), take_all)
    yield parts - 2, parts, "call"
    call = native(types.void(record), _layer_call)
    yield parts - 1, parts, "enter"
    enter.compile((types.int64, types.int64))
    _ADDRESSES[kind] = call, share, taker


_FIELD = {name: place for place, name in enumerate((*INTEGERS, *ARRAYS))}  # in words of 8 bytes


def sizes_of(recurrence: int, E: int, H: int, workers: int = 1) -> BufferSizes:
    """The sizes of a recurrence over inputs of width E, with no room for rows yet."""
    return BufferSizes(
        B=0, T=0, V=0, E=E, H=H, G={RNN: 1, GRU: 3, LSTM: 4}[recurrence], O=0, emits=True, recurrence=recurrence,
        workers=workers, kept=0, rows=0, has_lengths=True, directions=1, whole_table=False, own_tokens=False,
        token_rows=False,
    )  # fmt: skip


@cache
def _tape_rows(recurrence: int, E: int, H: int, dtype: str) -> dict[str, tuple[int, int]]:
    """Of each array of a tape how wide its rows are, and whether it has those of one step more, as states do."""
    width, gated = sizes_of(recurrence, E, H).widths(dtype), int(recurrence != RNN)
    Hs = width["Hs"]
    return {
        "x": (width["Es"], 0), "h": (Hs, 1), "cell_state": (Hs * (recurrence == LSTM), 1),
        "gates": (width["GHs"] * gated, 0), "tape": (Hs * gated, 0),
    }  # fmt: skip


def tape_parts(
    recurrence: int, E: int, H: int, dtype: str, B: int, kept: int, tokens: int | None = None
) -> dict[str, int]:
    """How many numbers each array of a tape has, B rows and `kept` steps, in the order in which they stand there.

    `tokens`: of so many steps, where inputs have such.
    """
    rows = _tape_rows(recurrence, E, H, dtype)
    parts = {name: B * (kept + more) * width for name, (width, more) in rows.items()}
    if tokens is None:
        return parts
    places, each = B * tokens, np.dtype(dtype).itemsize // 4  # of int32 in a number
    found = {
        "unique_embedding": places * rows["x"][0],
        **parts,
        "slots": -(-places // each),
        "unique": places // each + 1,
    }
    del found["x"]
    return found


def steps_kept(T: int) -> int:
    """Steps on a tape that nobody goes back over."""
    return min(T, int(FORWARD_STEPS))


@cache
def openmp() -> tuple[int, int] | None:
    """The addresses of what begins a parallel region and of what numbers its threads, in the OpenMP that is loaded, so
    that its threads are ours too: two pools would wait for each other's cores. None where there is no such library.
    """
    try:
        here = ctypes.CDLL(None)
        found = here.GOMP_parallel, here.omp_get_thread_num
    except (AttributeError, OSError, TypeError):
        return None
    begin, number = (ctypes.cast(function, ctypes.c_void_p).value or 0 for function in found)
    return begin, number


class LayerRunner:
    """Calls of one recurrence, inputs of width E, in buffers that grow with the largest call. One call at a time."""

    def __init__(self, recurrence: int, E: int, H: int, bias: bool, dtype: DTypeLike, workers: int) -> None:
        self.sizes = s = sizes_of(recurrence, E, H, workers)
        self.dtype, self.widths = np.dtype(dtype), s.widths(dtype)
        self.bias, self.steps, self.shared = bias, 0, shared_fields()
        self.slot_of_token = np.full(0, -1, np.int32)
        with COMPILING:
            for _ in compile_layer(dtype):
                pass
        self.layer_call, self.do_share, self.take_all = layer_addresses(dtype)
        self.work = s.G * H * ((E + H) * 3 + int(TANH_WORK))

    def _make_room(self, B: int, T: int) -> None:
        """New buffers where those at hand are too small: for the most rows, the most rows of steps, the most steps."""
        old = self.sizes
        if B <= old.B and B * T <= old.B * old.T and self.steps >= T:
            return
        most = max(B, old.B)
        steps, self.steps = -(-max(B * T, old.B * old.T) // most), max(T, self.steps)
        self.sizes = s = replace(old, B=most, T=steps, kept=steps, rows=most)
        width, dtype = self.widths, self.dtype
        # What stands on a tape has addresses of each call; pages of the others that nobody touches cost nothing
        buffers = model_buffers(s, dtype) | layer_buffers(s, dtype)
        buffers |= {
            "order": np.arange(most), "sorted_seats": np.arange(most), "firsts": np.zeros(self.steps + 1, np.int64),
            "zero_state": aligned((most, s.H), dtype), "b_h": aligned((1, width["GH"]), dtype),
            "dh": aligned((most, width["Hs"]), dtype), "above": aligned((most * steps, width["Hs"]), dtype),
            "projected": aligned((most * steps, width["GHs"]), dtype), "places": aligned((most * steps,), np.int32),
            "starts": aligned((most * steps + 1,), np.int32), "slot_of_token": self.slot_of_token,
            "d_x": aligned((s.workers * (most + int(ROWS_BACK)), width["Es"]), dtype),
        }  # fmt: skip
        self.buffers = buffers
        values = {
            "E": s.E, "H": s.H, "G": s.G, "workers": s.workers, "recurrence": s.recurrence, **width,
            "layers_n": 1, "directions": 1, "under_rows": 1, "has_last_gradients": 1, "has_bias": self.bias,
            "unit_rows": 1, "above_row": width["Hs"], "do_share": self.do_share,
        }  # fmt: skip
        self.record = PassRecord(values, {name: buffers[name] for name in buffers if name in ARRAYS})
        self.record.point({"layers": np.array([self.record.address])})
        self.words = self.record.record.view(np.int64).data
        self.words[_FIELD["root"]] = self.record.address
        if self.sizes.workers > 1 and (team := openmp()):
            for name, value in zip(("team", "team_thread"), team, strict=True):
                self.words[_FIELD[name]] = value
            self.words[_FIELD["take_all"]], self.words[_FIELD["pool"]] = self.take_all, self.shared.ctypes.data

    def zero_state(self, B: int, T: int) -> int:
        """The address of a state (B, H) of zeros."""
        self._make_room(B, T)
        return int(self.buffers["zero_state"].ctypes.data)

    def _make_room_for_tokens(self, V: int) -> None:
        if self.slot_of_token.size < V:
            self.slot_of_token = self.buffers["slot_of_token"] = np.full(V, -1, np.int32)
            self.record.point({"slot_of_token": self.slot_of_token})

    def run(
        self, back: bool, B: int, T: int, steps: int, tape: int, keeps: bool, values: Mapping[str, int], V: int = 0
    ) -> int:
        """One call over B rows and T steps at most, `steps` all together; `values` are fields and addresses by name.

        `tape` is the address of as many numbers as `tape_parts` says, of T steps if `keeps`, else of FORWARD_STEPS.
        With `token_ids`, of a vocabulary of V, it returns the place of one that is not in it, counted from 1, or -1
        where `inputs` of one token differ, and has then computed nothing; else 0.
        """
        self._make_room(B, T)
        self._make_room_for_tokens(V)
        s, words, kept = self.sizes, self.words, T if keeps else steps_kept(T)
        own = {"B": B, "b": B, "order_n": B, "T": T, "kept": kept, "keeps_tape": keeps, "V": V, "has_tokens": V > 0}
        own["goal"] = GRADIENT if back else FORWARD
        own["seats"] = self.buffers["sorted_seats" if values["has_lengths"] else "seats"].ctypes.data
        if V:
            own["x"] = self.buffers["x"].ctypes.data
        for name, count in tape_parts(s.recurrence, s.E, s.H, self.dtype.name, B, kept, T if V else None).items():
            own[name], tape = tape, tape + count * self.dtype.itemsize
        for name, value in (*own.items(), *values.items()):
            words[_FIELD[name]] = value
        if words[_FIELD["team"]] or self.sizes.workers == 1:
            enter(self.layer_call, self.record.address)
        else:
            self._run_in_pool(steps)
        return int(words[_FIELD["unknown_at"]]) if V and not back else 0

    def _run_in_pool(self, steps: int) -> None:
        """The call where there is no OpenMP: by threads of our own, unless another call has them."""
        pool, size = thread_pool(), self.sizes.workers
        if not pool.in_use.acquire(blocking=False):
            self.words[_FIELD["pool"]] = 0
            enter(self.layer_call, self.record.address)
            return
        try:
            pool.grow(size)
            self.words[_FIELD["pool"]] = pool.address
            pool.begin_call(size, self.record.address, self.do_share, steps * self.work >= WAKING_WORK)
            enter(self.layer_call, self.record.address)
        finally:
            pool.end_call()
            pool.in_use.release()
