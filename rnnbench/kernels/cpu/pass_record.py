"""All that a pass works with, in one record that kernels read by name: sizes, switches, and where the arrays are.

Compiled code gets the address of the record and nothing else, so that a call from Python costs the same for any
network. In kernels `c` is the record, `c.H` a number and `c.h` an array.

Letters: B batch rows, T steps, V vocabulary, E inputs, H hidden units, O outputs, GH the gate width: G H, the numbers
of one row in the gates of a step. The code `recurrence` says which cell it is. P numbers in all parameters, S outputs
per row (T where every step emits, else 1). `kept`: the steps whose states are in memory at once; `kept_outputs`: the
outputs of those. Rows may have lengths; how they are then ordered stands in `row_order`.
Ep, Hp, Op: padded to whole vectors; GHp is G Hp. Es, Hs, GHs, and Ds of deltas: numbers from one row to the next, a
little more where rows would meet in a cache (`simd.row_step`). `panel`: numbers in a row of a panel (`products.pack`);
`gate_panel`: of one of W_hh, which for a cell with gates holds all gates of a vector of units. Which kernel writes
what, and which reads it, stands in `kernels/README.md`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.imputils import lower_getattr_generic, lower_setattr_generic
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import intrinsic, models, register_model
from numba.np.arrayobj import populate_array
from numpy.typing import DTypeLike, NDArray

from rnnbench.kernels.cpu.simd import CACHE_LINE, INDEX, padded, panel_width, panels, row_step

Array = NDArray[Any]

# What is asked of a pass: the field `goal`.
PREDICT, FORWARD, GRADIENT, TRAIN_STEP = range(4)

# The recurrences: the field `recurrence`.
RNN, GRU, LSTM = range(3)

# Where W_xh has so many numbers at most, each worker sees to the tokens of its own rows: see `unique_tokens`.
OWN_TOKENS_WEIGHTS = 4096
# A table of so many numbers, projected unique tokens, is written to and read from beyond the near caches.
WIDE_TABLE = 1 << 17
TOKEN_BLOCK = 64  # tokens whose deltas are summed and multiplied together: a block of them stays in cache

# What a layer reads: sizes and switches of it, and the arguments of a stage within its rows (see `shares.stage`).
LAYER_INTEGERS = (
    "B", "T", "E", "H", "G", "GH", "kept", "Ep", "Hp", "GHp", "Es", "Hs", "GHs", "Ds", "panel", "gate_panel",
    "recurrence", "delta_width", "has_tokens", "has_lengths",
    "kept_outputs", "emits", "above_width", "above_row", "under_layer", "under_rows", "learns_inputs", "learns_tokens",
    "layer", "root",
    "has_last_gradients",
    "column_shares", "keeps_tape", "gathers", "stage", "shares", "stage_layer",
    "stage_lo", "stage_b", "stage_t", "stage_begin", "stage_end", "stage_origin", "stage_emit", "stage_seen",
    "stage_fresh", "stage_worker",
)  # fmt: skip
INTEGERS = (
    *LAYER_INTEGERS,
    # of the model, fixed for all calls; `can_own_tokens`: W_xh is small enough (see `unique_tokens`), and of a pass
    # `own_tokens`: so it is, and several workers share its rows;
    # `has_token_rows`: there is room in `x` for the embeddings of tokens
    "V", "O", "P", "S", "Op", "can_own_tokens", "has_token_rows", "layers_n", "directions", "R", "workers", "blocks_n",
    "first", "loss", "adam", "flush", "averages_steps",
    # set for a call, and what its stages leave for each other: the rows of the batch at hand and their number, ...;
    # `embedding_learnt`: d_embedding is not zero in rows of `unique`
    "goal", "step", "order_n", "b", "steps", "pool", "do_share", "row_shares", "token_shares", "pack_shares",
    "unique_n", "embedding_learnt", "own_tokens", "packed", "correct",
    # addresses: what begins a parallel region of OpenMP's, or 0 where threads are of our pool; what its threads call;
    # and what says which they are
    "team", "take_all", "team_thread",
    # of a layer by itself, see `layer_pass`
    "has_bias", "unit_rows", "turns", "row_apart", "out_at", "learns_states", "adds_inputs", "unknown_at",
    # of a stream, see `stream_step`: whether a call is in it
    "in_use",
)  # fmt: skip
REALS = (
    "step_weight", "learning_rate", "beta_1", "beta_2", "epsilon", "clip_value", "clip_norm", "loss_sum", "scale",
)  # fmt: skip

# Arrays: name -> element type (None: the numbers' own) and shape, in names of integers; ANY: as many as there are.
ANY = "any"
PARAMETERS: dict[str, tuple[str, ...]] = {
    "embedding": ("V", "E"),
    "W_xh": ("E", "GH"),
    "W_hh": ("H", "GH"),
    "b_h": ("one", "GH"),  # a bias is a matrix of one row, as far as it is packed and added up like one
    "b_hn": ("one", "H"),
    "W_hy": ("R", "O"),
    "b_y": ("one", "O"),
}
# Of one layer in one direction: weights as its products read them, states, tape and delta. Where a worker with rows
# [lo, hi) finds its own is in `layout`.
LAYER_ARRAYS: dict[str, tuple[str | None, tuple[str, ...]]] = {
    **{f"{name}_panels": (None, (ANY, "panel")) for name in ("W_xh", "W_xh_T", "W_hh_T")},
    "W_hh_panels": (None, (ANY, "gate_panel")),
    "b_h_padded": (None, ("one", "GHp")),
    "b_hn_padded": (None, ("Hp",)),
    "zeros": (None, (ANY,)),
    "unit": (None, (ANY,)),  # a 1
    "initial": (None, ("B", "H")),
    "state": (None, ("B", "H")),  # after step T
    "initial_cell": (None, ("B", "H")),
    "state_cell": (None, ("B", "H")),
    # where row r of the pass has its initial and last states; rows that have lengths, longest first (see `layout`): how
    # many there are before each step, and their states after their last one
    "seats": ("int64", (ANY,)),
    "rows_of_steps": ("int64", (ANY,)),
    "last": (None, (ANY, "Hs")),
    "last_cell": (None, (ANY, "Hs")),
    # inputs of a step: rows of x, or, where a step `gathers`, rows of `projected` by the slot of each token
    "x": (None, (ANY, "Es")),
    "projected": (None, (ANY, "GHs")),
    "slots": ("int32", (ANY,)),
    "starts": ("int32", (ANY,)),
    "places": ("int32", (ANY,)),
    # states, which are the tape of the tanh cell as well; of a cell with gates, what `gated` keeps beside them
    "h": (None, (ANY, "Hs")),
    "cell_state": (None, (ANY, "Hs")),
    "gates": (None, (ANY, "GHs")),
    "tape": (None, (ANY, "Hs")),
    # delta, the gradient of the gates before the cell, by way of the input; `recurrent`, by way of the state, which is
    # the same memory; `spare`, `recurrent` of two steps of a reverse pass where that holds the sum over passes
    "delta": (None, (ANY, "Ds")),
    "recurrent": (None, (ANY, "Ds")),
    "spare": (None, (ANY, "Ds")),
    "spare_delta": (None, (ANY, "Ds")),
    # of a cell with gates, the gradient of the states before a step, of its rows alone
    "dh": (None, (ANY, "Hs")),
    "dc": (None, (ANY, "Hs")),
    # what reads the states of this layer gives back gradients of them: dh_t += above_t W_above^T. Above the last layer
    # is the head, with dz and W_hy; above another the next, with its delta, or that in its `spare`, and W_xh
    "above": (None, (ANY, "above_row")),
    "above_spare": (None, (ANY, "above_row")),
    # of two directions the gradients of this one's states lie there row by row (`under_rows`), and W_xh_back_T is what
    # of W_xh reads the states of the direction back
    "W_xh_back_T_panels": (None, (ANY, "panel")),
    "W_above_T_panels": (None, (ANY, "panel")),
    # sums of each worker, added up in their order
    "part_W_xh": (None, (ANY, "GHs")),
    "part_W_hh": (None, (ANY, "GHs")),
    "part_b_h": (None, (ANY, "GHs")),
    "part_b_hn": (None, (ANY, "Hs")),
}
ARRAYS: dict[str, tuple[str | None, tuple[str, ...]]] = {
    **LAYER_ARRAYS,
    "layers": ("int64", ("layers_n",)),  # the addresses of their records, from the inputs up
    # the data, and the rows of it that a call and a pass are about
    "tokens": ("int32", (ANY, "T")),
    "inputs": (None, (ANY, "E")),  # (N, T, E)
    "classes": ("int32", (ANY, "S")),
    "targets": (None, (ANY, "O")),  # (N, S, O)
    "blocks": ("int64", ("blocks_n", "three")),  # start, emit, end of each reverse pass, in order of time
    "order": ("int64", ("order_n",)),
    "rows": ("int64", ("b",)),
    # lengths (N,) of the data, the rows of a pass sorted by them, and what `row_order` sorts with
    "lengths": ("int32", (ANY,)),
    "sorted_rows": ("int64", (ANY,)),
    "by_length": ("int64", (ANY,)),
    "firsts": ("int64", (ANY,)),
    # parameters, their gradients, Adam's moments; the named ones are views of the flat ones
    **dict.fromkeys(("params", "grads", "m", "v"), (None, ("P",))),
    **{name: (None, shape) for name, shape in PARAMETERS.items()},
    **{f"d_{name}": (None, shape) for name, shape in PARAMETERS.items()},
    # the unique tokens of a batch: the slot of each in `unique`, or -1; the rows of `delta` that hold their gradients,
    # one token after the other (those of slot u at places[starts[u] : starts[u + 1]]); where each worker finds its own,
    # the same of each, where its slots end (first of a cache line), and its part of the gradients of `unique` by slot
    "slot_of_token": ("int32", ("V",)),
    "unique": ("int32", (ANY,)),
    "own_slot_of_token": ("int32", (ANY, "V")),
    "own_unique": ("int32", (ANY,)),
    "own_end": ("int64", (ANY, "eight")),
    "own_gradient": (None, (ANY, "E")),
    "unique_embedding": (None, (ANY, "Es")),
    "token_delta": (None, (ANY, "GHs")),
    "token_gradient": (None, (ANY, "Es")),
    # the head: weights, logits and their gradient, sums of each worker; loss and correct start a cache line each
    **{f"{name}_panels": (None, (ANY, "panel")) for name in ("W_hy", "W_hy_T")},
    "b_y_padded": (None, ("Op",)),
    "z": (None, (ANY, "Op")),
    "read": (None, (ANY, "R")),  # of two directions, the states of both side by side
    "turned": (None, (ANY, "Hs")),  # scratch, rows in the order of the other direction
    "dz": (None, (ANY, "Op")),
    "part_W_hy": (None, (ANY, "Op")),
    "part_b_y": (None, (ANY, "Op")),
    "part_loss": ("float64", (ANY, "eight")),
    "part_correct": ("int64", (ANY, "eight")),
    "logits": (None, (ANY, "O")),  # (B, S, O), read after a pass
    # of a layer by itself: where a step of row 0 lies in `inputs` and `outputs`, whose rows are of all directions, and
    # in `token_ids`, where inputs are rows of an embedding; its parameters, states and their gradients as PyTorch has
    # them; inputs' gradients, padded, of a few steps
    "steps_at": ("int64", (ANY,)),
    "token_ids": ("int64", (ANY,)),
    "outputs": (None, (ANY, "R")),
    "weight_ih": (None, ("GH", "E")),
    "weight_hh": (None, ("GH", "H")),
    "bias_ih": (None, ("GH", "one")),
    "bias_hh": (None, ("GH", "one")),
    "d_inputs": (None, (ANY, "E")),
    "d_outputs": (None, (ANY, "R")),
    "d_weight_ih": (None, ("GH", "E")),
    "d_weight_hh": (None, ("GH", "H")),
    "d_bias_ih": (None, ("GH", "one")),
    "d_bias_hh": (None, ("GH", "one")),
    "d_initial": (None, ("B", "H")),
    "d_initial_cell": (None, ("B", "H")),
    "d_last": (None, ("B", "H")),
    "d_last_cell": (None, ("B", "H")),
    "d_x": (None, (ANY, "Es")),
}
_CONSTANTS = {ANY: 1 << 40, "one": 1, "three": 3, "eight": 8}
# The record: integers, addresses of arrays, reals; 8 bytes each.
LAYOUT = np.dtype([*((name, "i8") for name in (*INTEGERS, *ARRAYS)), *((name, "f8") for name in REALS)])


@dataclass(frozen=True)
class BufferSizes:
    """What buffers are made for. V is 0 for dense input; G, `recurrence` and `kept` as in the record."""

    B: int
    T: int
    V: int
    E: int
    H: int
    G: int
    O: int
    emits: bool
    recurrence: int
    workers: int
    kept: int
    rows: int  # of a pass: B, but to predict all that are given
    has_lengths: bool
    directions: int
    whole_table: bool  # room for all V tokens, whatever the batch holds
    own_tokens: bool  # room for the unique tokens of each worker beside those of the batch
    token_rows: bool  # room in `x` for the embeddings of tokens, step by step

    @property
    def slots(self) -> int:
        """Room for unique tokens: of the vocabulary, of all workers (see `first_slot`), or of a batch."""
        if self.whole_table or not self.V:
            return self.V
        return self.B * self.T + self.workers if self.own_tokens else min(self.V, self.B * self.T)

    def widths(self, dtype: DTypeLike) -> dict[str, int]:
        """Sizes that follow from these, by their names in the record.

        Each gate is padded by itself. `delta_width`: the numbers of a row of delta that products run over.
        """
        Hp, lanes = padded(self.H, dtype), padded(1, dtype)
        GHp, gated = self.G * Hp, self.recurrence != RNN
        return {
            "GH": self.G * self.H, "Ep": padded(self.E, dtype), "Hp": Hp, "GHp": GHp, "Op": padded(self.O, dtype),
            "Es": row_step(self.E, dtype), "Hs": row_step(self.H, dtype), "GHs": row_step(GHp, dtype),
            "Ds": row_step(4 * Hp if gated else Hp, dtype), "panel": panel_width(dtype),
            "gate_panel": self.G * lanes if gated else panel_width(dtype), "delta_width": GHp if gated else self.H,
        }  # fmt: skip


def aligned(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Zeros that start at a cache line: a vector that straddles two lines is read twice."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.zeros(size + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    return raw[start : start + size].view(dtype).reshape(shape)


def _makers(dtype: DTypeLike) -> tuple[Callable[..., Array], Callable[[int, int], Array]]:
    """What makes an array of numbers by its shape, and panels of a (k, n) matrix."""

    def real(*shape: int) -> Array:
        return aligned(shape, dtype)

    return real, lambda k, n: real(panels(n, dtype) * k, panel_width(dtype))


def layer_buffers(s: BufferSizes, dtype: DTypeLike) -> dict[str, Array]:
    """The arrays of one layer, by name, but for those that it shares with the others and with what is above it."""
    B, T, V, E, H, workers, kept = s.B, s.T, s.V, s.E, s.H, s.workers, s.kept
    width = s.widths(dtype)
    Hp, GHp, Es, Hs, GHs, Ds = (width[name] for name in ("Hp", "GHp", "Es", "Hs", "GHs", "Ds"))
    gated, lstm = s.recurrence != RNN, s.recurrence == LSTM
    token_places, input_rows = B * T if V else 0, 0 if V and not s.token_rows else B * kept
    real, packed = _makers(dtype)
    # `delta` begins where a row of `recurrent` has the derivatives by the input: of gru a gate later
    later = Hp if s.recurrence == GRU else 0

    def deltas(rows: int) -> tuple[Array, Array]:
        both = real((rows + 1) * Ds)
        first, second = (both[at : at + rows * Ds].reshape(rows, Ds) for at in (0, later))
        return first, second

    recurrent, delta = deltas(B * kept)
    spare, spare_delta = deltas(2 * B)
    return {
        "W_xh_panels": packed(E, GHp),
        "W_xh_T_panels": packed(width["delta_width"], E),
        "W_xh_back_T_panels": packed(width["delta_width"], E if s.directions == 2 else 0),
        "W_hh_panels": real(GHp // width["gate_panel"] * H, width["gate_panel"]) if gated else packed(H, GHp),
        "W_hh_T_panels": packed(width["delta_width"], H),
        "b_h_padded": real(GHp),
        "b_hn_padded": real(Hp if gated else 0),
        "zeros": real(max(padded(n, dtype) for n in (E, GHp, s.O))),
        "slots": aligned((token_places,), np.int32),
        "places": aligned((token_places,), np.int32),
        "starts": aligned((s.slots + 1,), np.int32),
        "projected": real(s.slots, GHs),
        "x": real(input_rows, Es),
        "h": real(B * (kept + 1), Hs),
        "cell_state": real(B * (kept + 1) * lstm, Hs),
        "gates": real(B * kept * gated, GHs),
        "tape": real(B * kept * gated, Hs),
        "delta": delta,
        "recurrent": recurrent,
        "spare": spare,
        "spare_delta": spare_delta,
        "dh": real(B * gated, Hs),
        "dc": real(B * lstm, Hs),
        "part_W_xh": real(workers, E, GHs),
        "part_W_hh": real(workers, H, GHs),
        "part_b_h": real(workers, GHs),
        "part_b_hn": real(workers, Hs),
        "last": real(B * s.has_lengths, Hs),
        "last_cell": real(B * s.has_lengths * lstm, Hs),
        "state": real(B, H),
        "state_cell": real(B * lstm, H),
    }


def model_buffers(s: BufferSizes, dtype: DTypeLike) -> dict[str, Array]:
    """The arrays of head, tokens and rows, by name.

    As all arrays C-contiguous; padded ones start at a cache line, but for `delta` of gru, Hp after `recurrent`.
    """
    B, T, V, H, O, workers = s.B, s.T, s.V, s.H, s.O, s.workers
    width = s.widths(dtype)
    Op, Es, GHs = (width[name] for name in ("Op", "Es", "GHs"))
    S, kept_outputs = (T, s.kept) if s.emits else (1, 1)
    R, own = s.directions * H, s.slots * s.own_tokens
    real, packed = _makers(dtype)

    def index(*shape: int) -> Array:
        return aligned(shape, np.int32)

    return {
        "W_hy_panels": packed(R, O),
        "W_hy_T_panels": packed(O, H),
        "b_y_padded": real(Op),
        "unit": np.ones(1, dtype),
        "slot_of_token": np.full(V, -1, np.int32),
        "unique": index(s.slots + 1),
        "unique_embedding": real(s.slots, Es),
        "own_slot_of_token": np.full((workers * s.own_tokens, V), -1, np.int32),
        "own_unique": index(own),
        "own_end": aligned((workers, 8), np.int64),
        "own_gradient": real(own, s.E),
        "z": real(B * kept_outputs, Op),
        "dz": real(B * kept_outputs, Op),
        "part_W_hy": real(workers, R, Op),
        "read": real(B * kept_outputs * (s.directions == 2), R),
        "turned": real(B * s.kept * (s.directions == 2), width["Hs"]),
        "part_b_y": real(workers, Op),
        "part_loss": aligned((workers, 8), np.float64),
        "part_correct": aligned((workers, 8), np.int64),
        "token_delta": real(workers, TOKEN_BLOCK, GHs),
        "token_gradient": real(workers, TOKEN_BLOCK, Es),
        "logits": real(B, S, O),
        "seats": np.arange(s.rows, dtype=np.int64),
        "rows_of_steps": aligned((B * (T + 2) * s.has_lengths,), np.int64),
        "sorted_rows": aligned((s.rows * s.has_lengths,), np.int64),
        "by_length": aligned((s.rows * s.has_lengths,), np.int64),
        "firsts": aligned(((T + 1) * s.has_lengths,), np.int64),
    }


class PassRecord:
    """The record and the arrays that it points to, which live as long as it does. `arrays` has them by name."""

    def __init__(self, values: Mapping[str, float], arrays: Mapping[str, Array]) -> None:
        self.record = np.zeros(1, LAYOUT)
        self.address = self.record.ctypes.data
        self.fields = {name: self.record[name] for name in LAYOUT.names or ()}  # views: quick to set
        self.arrays: dict[str, Array] = {}
        for name, value in values.items():
            self.fields[name][0] = value
        self.point(arrays)

    def point(self, arrays: Mapping[str, Array]) -> None:
        """Let the record point to these arrays, and keep them."""
        for name, array in arrays.items():
            if not array.flags.c_contiguous:
                raise ValueError(f"{name} of shape {array.shape} is not C-contiguous; kernels read it in one run")
            self.arrays[name] = array
            self.fields[name][0] = array.ctypes.data


class PassRecordType(types.Type):
    """A record in compiled code: its address, for kernels of one number type."""

    def __init__(self, number: types.Float) -> None:
        self.number = number
        super().__init__(name=f"PassRecord({number})")

    def array(self, name: str) -> types.Array:
        """The type of an array of the table."""
        element, shape = ARRAYS[name]
        return types.Array(self.number if element is None else getattr(types, element), len(shape), "C")


@register_model(PassRecordType)
class _PassRecordModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, INDEX)


@infer_getattr
class _PassRecordAttributes(AttributeTemplate):
    key = PassRecordType

    def generic_resolve(self, record_type: PassRecordType, name: str) -> types.Type | None:
        if name in INTEGERS:
            return types.int64
        if name in REALS:
            return types.float64
        return record_type.array(name) if name in ARRAYS else None


@intrinsic
def record_at(typingctx: Any, c: Any, address: Any) -> Any:
    """The record at an address, of the number type of c."""
    return c(c, types.int64), lambda context, builder, signature, args: args[1]


@intrinsic
def address_of(typingctx: Any, c: Any) -> Any:
    """The address of a record."""
    return types.int64(c), lambda context, builder, signature, args: args[0]


def _field(builder: Any, record: Any, name: str, kind: Any) -> Any:
    """A pointer to a field of a record."""
    assert LAYOUT.fields is not None
    return builder.inttoptr(builder.add(record, INDEX(LAYOUT.fields[name][1])), kind.as_pointer())


@lower_getattr_generic(PassRecordType)
def _get(context: Any, builder: Any, kind: PassRecordType, record: Any, name: str) -> Any:
    if name in REALS:
        return builder.load(_field(builder, record, name, ir.DoubleType()))
    value = builder.load(_field(builder, record, name, INDEX))
    return value if name in INTEGERS else _array(context, builder, kind, record, name, value)


def _array(context: Any, builder: Any, kind: PassRecordType, record: Any, name: str, address: Any) -> Any:
    array = kind.array(name)
    number = context.get_data_type(array.dtype)
    item = INDEX(context.get_abi_sizeof(number))

    def size(letter: str) -> Any:
        if letter in _CONSTANTS:
            return INDEX(_CONSTANTS[letter])
        return builder.load(_field(builder, record, letter, INDEX))

    shape = [size(letter) for letter in ARRAYS[name][1]]
    strides = [builder.mul(n, item) for n in shape[1:]] + [item]
    made = context.make_array(array)(context, builder)
    populate_array(made, builder.inttoptr(address, number.as_pointer()), shape, strides, item, None)
    return made._getvalue()


@lower_setattr_generic(PassRecordType)
def _set(context: Any, builder: Any, signature: Any, args: Any, name: str) -> None:
    record, value = args
    if name in REALS:
        builder.store(value, _field(builder, record, name, ir.DoubleType()))
    elif name in INTEGERS:
        builder.store(value, _field(builder, record, name, INDEX))
    else:  # an array of the table takes another's place
        data = context.make_array(signature.args[1])(context, builder, value).data
        builder.store(builder.ptrtoint(data, INDEX), _field(builder, record, name, INDEX))
