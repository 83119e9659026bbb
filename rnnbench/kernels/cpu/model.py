"""A worker's rows through the whole model: inputs, the stack of layers, head and loss, and back.

    z = h W_hy + b_y        dz, the gradient of the mean loss by z        dW_hy = sum of h^T dz        db_y = sum of dz

The stack is a loop over records, one a layer, and `layer_forward` and `layer_backward` read of one what `pass_record`
lists as a layer's: the states of a layer are the x of the next, and the delta of the next, with its W_xh, is what comes
from above. The record of the model is that of its only layer, or one more, of which those two read the stages alone.
Back, each step goes through all layers before the step before it, so that nothing is kept for the layer below. Where
rows lie is said in `layout`; `r` is the number of a worker's first row among those of the batch.
"""

from __future__ import annotations

import numpy as np

from rnnbench.kernels.cpu.calls import symbol_kernel
from rnnbench.kernels.cpu.compiling import NONE, ONE, cpu_kernel, inlined
from rnnbench.kernels.cpu.gated import GRU_CODE, LSTM_CODE, RNN_CODE
from rnnbench.kernels.cpu.layer_backward import reverse_step, step_gradients
from rnnbench.kernels.cpu.layer_forward import (
    forward_steps,
    keep_last_states,
    move_to_front,
    project_inputs,
    start_states,
    write_state,
)
from rnnbench.kernels.cpu.layout import FIRST, output_row, rows_before, rows_taking, slot_row, state_row, step_row
from rnnbench.kernels.cpu.losses import NO_LOSS, loss_and_gradient
from rnnbench.kernels.cpu.pass_record import GRADIENT, PREDICT, record_at
from rnnbench.kernels.cpu.pointwise import add_rows, copy, set_row, zero_row
from rnnbench.kernels.cpu.products import (
    add_gate_parts,
    affine,
    outer_products,
    pack,
    pack_gates,
    pack_gates_transposed,
    sum_rows,
)
from rnnbench.kernels.cpu.row_order import count_rows_of_steps
from rnnbench.kernels.cpu.shares import INPUTS, share_range, stage
from rnnbench.kernels.cpu.unique_tokens import (
    embedding_gradients,
    find_unique_tokens,
    first_slot,
    list_places,
    project_unique_tokens,
    turn_slots,
)

# Rows that are predicted together, and steps that are kept where nothing needs the states later.
PREDICT_ROWS, FORWARD_STEPS = np.int64(24), np.int64(16)
# Numbers of projected inputs, half a MiB in float32, that wait for their steps in a near cache.
PROJECTED = np.int64(1 << 17)


@inlined
def gate_turn(c):
    """By how many places gates stand later in `recurrent` than in their own order: n of gru is first there."""
    return ONE if c.recurrence == GRU_CODE else NONE


@cpu_kernel()
def layer_at(c, n):
    """The record of layer n, counted from the inputs up."""
    return record_at(c, c.layers[n])


@symbol_kernel
def pack_layer(c, learns, part, parts):
    """A part of the weights of one layer as products read them; the transposed ones only if `learns`."""
    if c.recurrence == RNN_CODE:
        pack(c.W_xh_panels, c.W_xh, part, parts)
        pack(c.W_hh_panels, c.W_hh, part, parts)
    else:
        pack_gates(c.W_xh_panels, c.W_xh, c.G, part, parts)
        pack_gates(c.W_hh_panels, c.W_hh, c.G, part, parts)
    if part == 0:
        pack_gates(c.b_h_padded, c.b_h, c.G, NONE, ONE)
        if c.recurrence == GRU_CODE:
            copy(c.b_hn_padded, c.b_hn[0])
    if learns:
        # Rows as columns of `recurrent` and `delta` are, where a gate is so far from the next
        step = c.delta_width // c.G
        pack_gates_transposed(c.W_hh_T_panels, c.W_hh, c.G, gate_turn(c), step, part, parts)
        if c.learns_inputs:  # dense inputs need no gradient; those of two directions have one for each
            forth = c.H if c.directions == 2 and not c.has_tokens else c.E
            pack_gates_transposed(c.W_xh_T_panels, c.W_xh[:forth], c.G, NONE, step, part, parts)
            pack_gates_transposed(c.W_xh_back_T_panels, c.W_xh[forth:], c.G, NONE, step, part, parts)


@symbol_kernel
def pack_weights(c, learns, part, parts):
    """A part of all weights as products read them; the transposed ones only if the backward pass will need them."""
    for n in range(c.layers_n):
        pack_layer(layer_at(c, n), learns, part, parts)
    pack(c.W_hy_panels, c.W_hy, part, parts)
    if part == 0:
        copy(c.b_y_padded, c.b_y[0])
    if learns:
        for d in range(c.directions):
            top = layer_at(c, c.layers_n - c.directions + d)
            rows = c.W_hy[d * c.H : (d + 1) * c.H]
            pack_gates_transposed(top.W_above_T_panels, rows, ONE, NONE, c.O, part, parts)


@cpu_kernel()
def _turned(c, row, t):
    """Step t of a row of the pass, in the order of the other direction: back from its own end."""
    return (c.lengths[c.rows[row]] if c.has_lengths else c.T) - 1 - t


@symbol_kernel
def layer_inputs(c, n, lo, b, r, begin, end, origin):
    """What layer n reads in steps [begin, end), in the order of its direction, to its x, time first.

    Embeddings of tokens; dense inputs, from the data; or the states of the layer below, both directions side by side.
    """
    layer, back, x = layer_at(c, n), n % c.directions, layer_at(c, n).x
    for t in range(begin, end):
        at, slots = step_row(layer, lo, b, t, origin), slot_row(c, lo, b, t)
        for i in range(rows_taking(c, lo, b, t)):
            if layer.has_tokens:
                set_row(x, at + i, c.unique_embedding, np.int64(layer.slots[slots + i]), c.Ep)
            elif n < c.directions:
                copy(x[at + i], c.inputs[c.rows[r + i] * c.T + (_turned(c, r + i, t) if back else t)])
            for d in range(c.directions if n >= c.directions else 0):
                below = layer_at(c, n - back - c.directions + d)
                step = t if d == back else _turned(c, r + i, t)
                state = below.h[state_row(below, lo, b, step + 1, origin) + i]
                copy(x[at + i][d * c.H : (d + 1) * c.H], state)


@cpu_kernel()
def steps_at_once(c, b):
    """How many steps of inputs of b rows a layer projects together: those whose gates stay in a near cache, but so many
    rows that reading W_xh is worth it.
    """
    return max(ONE, PROJECTED // (b * c.GHs), c.E // (2 * b))


@symbol_kernel
def stack_forward(c, lo, b, r, begin, end, origin):
    """Steps [begin, end) of the inputs and of all layers. Unique tokens must be projected."""
    for n in range(c.layers_n):
        layer = layer_at(c, n)
        if layer.gathers:
            forward_steps(layer, lo, b, begin, end, origin)
        else:
            together = steps_at_once(layer, b)
            for first in range(begin, end, together):
                last = min(end, first + together)
                layer_inputs(c, n, lo, b, r, first, last, origin)
                if c.column_shares > 1:
                    c.stage_layer, c.stage_lo, c.stage_b = n, lo, b
                    c.stage_begin, c.stage_end, c.stage_origin = first, last, origin
                    stage(c, INPUTS, c.column_shares)
                else:
                    project_inputs(layer, lo, b, first, last, origin, NONE, layer.GHp)
                forward_steps(layer, lo, b, first, last, origin)
        if c.has_lengths:
            keep_last_states(layer, lo, b, begin, end, origin)


@symbol_kernel
def directions_back(c, n, lo, b):
    """Gradients of the states of layer n, one direction of two, from the deltas of both directions above it."""
    layer, back = layer_at(c, n), n % 2
    at, rows = step_row(layer, lo, b, FIRST, FIRST), rows_before(c, lo, b, c.T)
    for d in (back, 1 - back):  # the one in the same order first
        above = layer_at(c, n - back + 2 + d)
        out = layer.above if d == back else c.turned
        panels = above.W_xh_back_T_panels if back else above.W_xh_T_panels
        affine(out, at, c.zeros, above.delta, at, panels, rows, 0, c.Hp, c.delta_width)
    for t in range(c.T):
        at = step_row(layer, lo, b, t, FIRST)
        for i in range(rows_taking(c, lo, b, t)):
            of = step_row(layer, lo, b, _turned(c, lo + i, t), FIRST) + i
            add_rows(layer.above, at + i, c.turned, of, ONE, NONE, c.Hp)


@symbol_kernel
def stack_back(c, lo, b, start, emit, end, seen, begin, origin):
    """One block: losses of steps [emit, end) flow back to `start`, each step through all layers from the head down.

    Of two directions, each through all steps before the layer below: that needs both.
    """
    last = c.layers_n - c.directions
    if c.directions == 2:
        for n in range(c.layers_n - 1, -1, -1):
            if n < last:
                directions_back(c, n, lo, b)
            for t in range(end - 1, start - 1, -1):
                reverse_step(layer_at(c, n), lo, b, t, emit, end, seen, begin, origin)
        return
    for t in range(end - 1, start - 1, -1):
        # To a layer below comes something from all steps that the one above it has done
        for n in range(last, -1, -1):
            reverse_step(layer_at(c, n), lo, b, t, emit if n == last else start, end, seen, begin, origin)


@symbol_kernel
def read_both(c, lo, b, r, begin, end):
    """What the head reads of two directions, their states side by side, to rows of `read` as they are in z."""
    for d in range(2):
        top = layer_at(c, c.layers_n - 2 + d)
        for t in range(begin, end if c.emits else begin + 1):
            at = output_row(c, lo, b, t, begin)
            for i in range(rows_taking(c, lo, b, t) if c.emits else b):
                to = c.read[at + i][d * c.H : (d + 1) * c.H]
                if c.emits:
                    copy(to, top.h[state_row(top, lo, b, (_turned(c, r + i, t) if d else t) + 1, FIRST) + i])
                elif c.has_lengths:
                    copy(to, top.last[lo + i])
                else:
                    copy(to, top.h[state_row(top, lo, b, c.T, FIRST) + i])


@symbol_kernel
def read_outputs(c, lo, b, r, begin, end, origin):
    """The head: z of steps [begin, end), or of the last if only that emits; the same to `logits`, row by row."""
    z, logits, seats, S, top = c.z, c.logits, c.seats, c.S, layer_at(c, c.layers_n - 1)
    z_at, outputs, h, row = output_row(c, lo, b, begin, begin), b, top.h, state_row(top, lo, b, end, origin)
    if c.emits:
        outputs, row = (
            rows_before(c, lo, b, end) - rows_before(c, lo, b, begin),
            state_row(top, lo, b, begin + 1, origin),
        )
    elif c.has_lengths:
        h, row = top.last, lo
    if c.directions == 2:
        read_both(c, lo, b, r, begin, end)
        affine(z, z_at, c.b_y_padded, c.read, z_at, c.W_hy_panels, outputs, 0, c.Op, c.R)
    else:
        affine(z, z_at, c.b_y_padded, h, row, c.W_hy_panels, outputs, 0, c.Op, c.H)
    for t in range(begin, end if c.emits else begin + 1):
        at = output_row(c, lo, b, t, begin)
        for i in range(rows_taking(c, lo, b, t) if c.emits else b):
            copy(logits[seats[r + i] * S + (t if c.emits else 0)], z[at + i])


@symbol_kernel
def loss_rows(c, worker, lo, b, r, begin, end):
    """Losses of the outputs that `read_outputs` left in z, added to this worker's loss and correct ones; writes dz."""
    if c.loss == NO_LOSS:
        return
    z, dz, rows, classes, targets, code, O = c.z, c.dz, c.rows, c.classes, c.targets, c.loss, c.O
    # The gradient of one loss in that of the mean over the batch
    total, correct, scale = 0.0, 0, c.step_weight / c.b
    for t in range(begin, end if c.emits else begin + 1):
        step = t if c.emits else 0
        for i in range(rows_taking(c, lo, b, t) if c.emits else b):
            at, row = output_row(c, lo, b, t, begin) + i, rows[r + i]
            loss, right = loss_and_gradient(
                code, z[at], classes[row], targets, row * c.S + step, step, dz[at], scale, O
            )
            total += loss
            correct += right
    c.part_loss[worker, 0] += total
    c.part_correct[worker, 0] += correct


@symbol_kernel
def head_gradients(c, worker, lo, b, begin, end, origin, fresh):
    """This worker's part of dW_hy and db_y, from the outputs of steps [begin, end), or of the last; anew if `fresh`."""
    top = layer_at(c, c.layers_n - 1)
    h, h_at, dz_at, outputs = top.h, state_row(top, lo, b, end, origin), output_row(c, lo, b, begin, begin), b
    if c.emits:
        outputs = rows_before(c, lo, b, end) - rows_before(c, lo, b, begin)
        h_at = state_row(top, lo, b, begin + 1, origin)
    elif c.has_lengths:
        h, h_at = top.last, lo
    if c.directions == 2:
        outer_products(c.part_W_hy, worker * c.R, fresh, c.zeros, c.read, dz_at, c.dz, dz_at, c.R, 0, c.Op, outputs)
        if c.emits:  # to the direction back they come in its own order
            top_dz = top.above
            for t in range(begin, end):
                for i in range(rows_taking(c, lo, b, t)):
                    of = output_row(c, lo, b, _turned(c, lo + i, t), begin) + i
                    copy(top_dz[output_row(c, lo, b, t, begin) + i][: c.O], c.dz[of])
    else:
        outer_products(c.part_W_hy, worker * c.R, fresh, c.zeros, h, h_at, c.dz, dz_at, c.R, 0, c.Op, outputs)
    sum_rows(c.part_b_y, worker, fresh, c.zeros, c.unit, c.dz, dz_at, 0, c.Op, outputs)


@symbol_kernel
def _forward_rows(c, worker, lo, b, r):
    """Forward and loss of b rows of the batch from r on, in segments of so few steps that they stay in cache."""
    T, begin, origin = c.T, 0, 0
    # Of one layer no more than it projects together; of several each has its weights in a near cache for so long
    steps = FORWARD_STEPS if c.layers_n > 1 else min(FORWARD_STEPS, steps_at_once(layer_at(c, 0), b))
    while begin < T:
        end = T if c.directions == 2 else min(T, begin + min(c.kept, steps))
        stack_forward(c, lo, b, r, begin, end, origin)
        if c.emits or end == T:
            read_outputs(c, lo, b, r, begin, end, origin)
            loss_rows(c, worker, lo, b, r, begin, end)
        if end < T:  # nothing is needed of these steps but the states after the last
            for n in range(c.layers_n):
                move_to_front(layer_at(c, n), lo, b, end, end, origin)
            origin = end
        begin = end
    if c.goal != PREDICT:
        for n in range(c.layers_n):
            write_state(layer_at(c, n), lo, b, r, origin)


@symbol_kernel
def _learn_rows(c, worker, lo, b):
    """Forward, loss and backward of one worker's rows, in segments: all T steps, or the blocks that there is room for.

    The deltas of a step are settled once no later block reaches it; then they enter the gradients and go.
    """
    T, blocks = c.T, c.blocks
    begin, origin, block = 0, 0, 0
    settled = seen = blocks[0, 0]
    while begin < T:
        # The blocks, from `block` to `last`, that end within the steps that can be kept
        last = block
        while last + 1 < c.blocks_n and blocks[last + 1, 2] <= origin + c.kept:
            last += 1
        end = blocks[last, 2]
        # Forward over their new steps, to the gradient of the logits
        stack_forward(c, lo, b, lo, begin, end, origin)
        read_outputs(c, lo, b, lo, begin, end, origin)
        loss_rows(c, worker, lo, b, lo, begin, end)
        head_gradients(c, worker, lo, b, begin, end, origin, begin == 0)
        # Back, block by block in order of time; where one reaches into another, deltas are added
        for n in range(block, last + 1):
            stack_back(c, lo, b, blocks[n, 0], blocks[n, 1], blocks[n, 2], seen, begin, origin)
            seen = blocks[n, 2]
        block = last + 1
        # Steps before the start of the next block are settled; the others stay, and move to the front
        rest = end if block == c.blocks_n else min(end, blocks[block, 0])
        for n in range(c.layers_n):
            step_gradients(layer_at(c, n), worker, lo, b, settled, rest, origin, begin == 0)
        settled, begin = rest, end
        if end < T:
            for n in range(c.layers_n):
                move_to_front(layer_at(c, n), lo, b, rest, end, origin)
            origin = rest
    for n in range(c.layers_n):
        write_state(layer_at(c, n), lo, b, lo, origin)


@symbol_kernel
def batch_rows(c, worker):
    """One worker's rows of the batch, for the goal at hand."""
    lo, hi = share_range(c.b, worker, c.row_shares)
    c.part_loss[worker, 0], c.part_correct[worker, 0] = 0.0, 0
    for n in range(c.layers_n):
        start_states(layer_at(c, n), lo, hi - lo, lo)
    slots = first_slot(c, worker)
    if c.own_tokens:
        find_unique_tokens(c, worker)
        project_unique_tokens(c, slots, c.own_end[worker, 0])
    if c.goal >= GRADIENT:
        _learn_rows(c, worker, lo, hi - lo)
        for n in range(c.directions if c.own_tokens else 0):
            list_places(c, n, worker)
            embedding_gradients(c, n, n, worker, slots, c.own_end[worker, 0])
    else:
        _forward_rows(c, worker, lo, hi - lo, lo)


@symbol_kernel
def predict_rows(c, thread, number):
    """Logits of block `number` of PREDICT_ROWS rows, from zero states, in the room of this thread.

    The whole vocabulary is projected, each token in the slot of its own number.
    """
    r, lo, T = number * PREDICT_ROWS, thread * PREDICT_ROWS, c.T
    b = min(PREDICT_ROWS, c.b - r)
    rows, tokens, slots = c.rows, c.tokens, c.slots
    if c.has_lengths:
        count_rows_of_steps(c, lo, b, r)
    for n in range(c.layers_n):
        layer = layer_at(c, n)
        for i in range(b):
            zero_row(layer.h[state_row(c, lo, b, FIRST, FIRST) + i])
            if c.recurrence == LSTM_CODE:
                zero_row(layer.cell_state[state_row(c, lo, b, FIRST, FIRST) + i])
    for i in range(b):
        if c.has_tokens:
            row = tokens[rows[r + i]]
            for t in range(c.lengths[rows[r + i]] if c.has_lengths else T):
                slots[slot_row(c, lo, b, t) + i] = row[t]
    if c.has_tokens and c.directions == 2:
        turn_slots(c, lo, b, r)
    _forward_rows(c, thread, lo, b, r)


@symbol_kernel
def add_parts(c, share, shares):
    """Some rows of all gradients but that of the embedding: the parts of the workers, added in their order."""
    for n in range(c.layers_n):
        layer = layer_at(c, n)
        workers = c.token_shares if layer.has_tokens else c.row_shares
        add_gate_parts(layer.d_W_xh, layer.part_W_xh, workers, c.G, c.Hp, NONE, share, shares)
        add_gate_parts(layer.d_W_hh, layer.part_W_hh, c.row_shares, c.G, c.Hp, gate_turn(c), share, shares)
        add_gate_parts(layer.d_b_h, layer.part_b_h, c.row_shares, c.G, c.Hp, NONE, share, shares)
        if c.recurrence == GRU_CODE:
            add_gate_parts(layer.d_b_hn, layer.part_b_hn, c.row_shares, ONE, NONE, NONE, share, shares)
    add_gate_parts(c.d_W_hy, c.part_W_hy, c.row_shares, ONE, NONE, NONE, share, shares)
    add_gate_parts(c.d_b_y, c.part_b_y, c.row_shares, ONE, NONE, NONE, share, shares)
