"""All that a pass works with, in one record that kernels read by name: sizes, switches, and where the arrays are.

Compiled code gets the address of the record and nothing else, so that a call from Python costs the same for any
network. In kernels `c.H` is a number and `c.h` an array.

Letters: B batch rows, T steps, V vocabulary, E inputs, H hidden units, O outputs, N staged rows, P numbers in all
parameters, S outputs per row (T where every step emits, else 1), U distinct words that a batch may hold, W workers.
L: the steps that are kept at once, Z the outputs of those. Ep, Hp, Op: padded to whole vectors. Es, Hs: numbers from
one row to the next, a little more where rows would meet in a cache (`simd.row_step`). panel: numbers in a row of a
panel (`products.pack`). Who writes and who reads what stands in `kernels/README.md`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
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

WORD_BLOCK = 64  # words whose deltas are summed and multiplied together: a block of them stays in cache

INTEGERS = (
    # sizes and switches, fixed for all calls
    "B", "T", "V", "E", "H", "O", "P", "S", "L", "Z", "Ep", "Hp", "Op", "Es", "Hs", "panel", "workers", "blocks_n",
    "first", "has_words", "emits", "loss", "adam", "flush",
    # set for a call, and what its stages tell each other: the rows of the batch at hand and their number, ...
    "goal", "step", "t", "order_n", "b", "team", "work", "stage", "shares", "row_shares", "word_shares",
    "column_shares", "pack_shares", "found", "hits",
)  # fmt: skip
REALS = (
    "step_weight", "learning_rate", "beta_1", "beta_2", "epsilon", "clip_value", "clip_norm", "loss_sum", "scale",
)  # fmt: skip

# Arrays: name -> element type (None: the numbers' own) and shape, in names of integers; ANY: as many as there are.
ANY = "any"
PARAMETERS: dict[str, tuple[str, ...]] = {
    "embedding": ("V", "E"),
    "W_xh": ("E", "H"),
    "W_hh": ("H", "H"),
    "b_h": ("H",),
    "W_hy": ("H", "O"),
    "b_y": ("O",),
}
ARRAYS: dict[str, tuple[str | None, tuple[str, ...]]] = {
    # the data, and the rows of it that a call and a pass are about
    "tokens": ("int32", (ANY, "T")),
    "inputs": (None, (ANY, "E")),  # (N, T, E)
    "classes": ("int32", (ANY, "S")),
    "targets": (None, (ANY, "O")),  # (N, S, O)
    "initial": (None, ("B", "H")),
    "blocks": ("int64", ("blocks_n", "three")),  # start, emit, end of each reverse pass, in order of time
    "order": ("int64", ("order_n",)),
    "given": ("int64", (ANY,)),  # arguments of a stage within the rows
    "rows": ("int64", ("b",)),
    # parameters, their gradients, Adam's moments; the named ones are views of the flat ones
    **dict.fromkeys(("params", "grads", "m", "v"), (None, ("P",))),
    **{name: (None, shape) for name, shape in PARAMETERS.items()},
    **{f"d_{name}": (None, shape) for name, shape in PARAMETERS.items()},
    # weights as the products read them, the biases padded
    **{f"{name}_panels": (None, (ANY, "panel")) for name in ("W_xh", "W_xh_T", "W_hh", "W_hh_T", "W_hy", "W_hy_T")},
    "b_h_padded": (None, ("Hp",)),
    "b_y_padded": (None, ("Op",)),
    "zeros": (None, (ANY,)),
    "unit": (None, (ANY,)),  # a 1
    # the distinct words of a batch: the place of each in `words` or -1, their tokens' rows in `delta` one word after
    # the other (those of word u at places[starts[u] : starts[u + 1]]), and the slot of each row of `delta`
    "slot": ("int32", ("V",)),
    "words": ("int32", (ANY,)),
    "starts": ("int32", (ANY,)),
    "places": ("int32", (ANY,)),
    "slots": ("int32", (ANY,)),
    "word_rows": (None, (ANY, "Es")),
    "projected": (None, (ANY, "Hs")),
    # forward to backward, time first for each worker: one with rows [lo, hi) owns rows [lo L, hi L) of delta and x,
    # [lo (L + 1), hi (L + 1)) of h, [lo Z, hi Z) of z and dz; step t of its row i is row t (hi - lo) + i of those
    "x": (None, (ANY, "Es")),
    "h": (None, (ANY, "Hs")),
    "delta": (None, (ANY, "Hs")),
    "spare": (None, (ANY, "Hs")),
    "z": (None, (ANY, "Op")),
    "dz": (None, (ANY, "Op")),
    # sums of each worker, added up in their order; loss and hits at the start of a cache line each
    "part_W_xh": (None, (ANY, "Hs")),
    "part_W_hh": (None, (ANY, "Hs")),
    "part_b_h": (None, (ANY, "Hs")),
    "part_W_hy": (None, (ANY, "Op")),
    "part_b_y": (None, (ANY, "Op")),
    "part_loss": ("float64", (ANY, "eight")),
    "part_hits": ("int64", (ANY, "eight")),
    "word_delta": (None, (ANY, "Hs")),
    "word_grad": (None, (ANY, "Es")),
    # what is read after a pass
    "logits": (None, (ANY, "O")),  # (B, S, O)
    "state": (None, ("B", "H")),
}
_CONSTANTS = {ANY: 1 << 40, "three": 3, "eight": 8}
# The record: integers, addresses of arrays, reals; 8 bytes each.
LAYOUT = np.dtype([*((name, "i8") for name in (*INTEGERS, *ARRAYS)), *((name, "f8") for name in REALS)])


@dataclass(frozen=True)
class Sizes:
    """What buffers are made for. V is 0 for dense input."""

    B: int
    T: int
    V: int
    E: int
    H: int
    O: int
    emits: bool
    workers: int
    L: int
    whole_table: bool = False  # room for all V words, whatever the batch holds


def aligned(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Zeros that start at a cache line: a vector that straddles two lines is read twice."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.zeros(size + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    return raw[start : start + size].view(dtype).reshape(shape)


def buffers(s: Sizes, dtype: DTypeLike) -> dict[str, Array]:
    """The arrays that passes work in, by name, all C-contiguous and starting at a cache line."""
    B, T, V, E, H, O, W, L = s.B, s.T, s.V, s.E, s.H, s.O, s.workers, s.L
    Ep, Hp, Op = (padded(n, dtype) for n in (E, H, O))
    Es, Hs = row_step(E, dtype), row_step(H, dtype)
    S, Z = (T, L) if s.emits else (1, 1)
    U = V if s.whole_table else min(V, B * T)
    word_places, dense_rows = (B * T, 0) if V else (0, B * L)

    def real(*shape: int) -> Array:
        return aligned(shape, dtype)

    def packed(k: int, n: int) -> Array:
        return aligned((panels(n, dtype) * k, panel_width(dtype)), dtype)

    def index(*shape: int) -> Array:
        return aligned(shape, np.int32)

    return {
        "W_xh_panels": packed(E, H),
        "W_xh_T_panels": packed(H, E),
        "W_hh_panels": packed(H, H),
        "W_hh_T_panels": packed(H, H),
        "W_hy_panels": packed(H, O),
        "W_hy_T_panels": packed(O, H),
        "b_h_padded": real(Hp),
        "b_y_padded": real(Op),
        "zeros": real(max(Ep, Hp, Op)),
        "unit": np.ones(1, dtype),
        "given": aligned((16,), np.int64),
        "slot": np.full(V, -1, np.int32),
        "words": index(U),
        "starts": index(U + 1),
        "places": index(word_places),
        "slots": index(word_places),
        "word_rows": real(U, Es),
        "projected": real(U, Hs),
        "x": real(dense_rows, Es),
        "h": real(B * (L + 1), Hs),
        "delta": real(B * L, Hs),
        "spare": real(2 * B, Hs),
        "z": real(B * Z, Op),
        "dz": real(B * Z, Op),
        "part_W_xh": real(W, E, Hs),
        "part_W_hh": real(W, H, Hs),
        "part_b_h": real(W, Hs),
        "part_W_hy": real(W, H, Op),
        "part_b_y": real(W, Op),
        "part_loss": aligned((W, 8), np.float64),
        "part_hits": aligned((W, 8), np.int64),
        "word_delta": real(W, WORD_BLOCK, Hs),
        "word_grad": real(W, WORD_BLOCK, Es),
        "logits": real(B, S, O),
        "state": real(B, H),
    }


class Context:
    """A record and the arrays that it points to, which live as long as it does. `arrays` has them by name."""

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


class ContextType(types.Type):
    """A context in compiled code: the address of a record, for kernels of one number type."""

    def __init__(self, number: types.Float) -> None:
        self.number = number
        super().__init__(name=f"Context({number})")

    def array(self, name: str) -> types.Array:
        """The type of an array of the table."""
        element, shape = ARRAYS[name]
        return types.Array(self.number if element is None else getattr(types, element), len(shape), "C")


@register_model(ContextType)
class _ContextModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, INDEX)


@infer_getattr
class _ContextAttributes(AttributeTemplate):
    key = ContextType

    def generic_resolve(self, context_type: ContextType, name: str) -> types.Type | None:
        if name in INTEGERS:
            return types.int64
        if name in REALS:
            return types.float64
        return context_type.array(name) if name in ARRAYS else None


@intrinsic
def address_of(typingctx: Any, c: Any) -> Any:
    """The address of a context's record."""
    return types.int64(c), lambda context, builder, signature, args: args[0]


def _field(builder: Any, record: Any, name: str, kind: Any) -> Any:
    """A pointer to a field of a record."""
    assert LAYOUT.fields is not None
    return builder.inttoptr(builder.add(record, INDEX(LAYOUT.fields[name][1])), kind.as_pointer())


@lower_getattr_generic(ContextType)
def _get(context: Any, builder: Any, kind: ContextType, record: Any, name: str) -> Any:
    if name in REALS:
        return builder.load(_field(builder, record, name, ir.DoubleType()))
    value = builder.load(_field(builder, record, name, INDEX))
    return value if name in INTEGERS else _array(context, builder, kind, record, name, value)


def _array(context: Any, builder: Any, kind: ContextType, record: Any, name: str, address: Any) -> Any:
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


@lower_setattr_generic(ContextType)
def _set(context: Any, builder: Any, signature: Any, args: Any, name: str) -> None:
    record, value = args
    if name in REALS:
        builder.store(value, _field(builder, record, name, ir.DoubleType()))
    elif name in INTEGERS:
        builder.store(value, _field(builder, record, name, INDEX))
    else:  # an array of the table takes another's place
        data = context.make_array(signature.args[1])(context, builder, value).data
        builder.store(builder.ptrtoint(data, INDEX), _field(builder, record, name, INDEX))
