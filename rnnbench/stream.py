"""Inference step by step: a network whose rows arrive one time step at a time, and whose states stay in the object.

    stream = rnnbench.Stream(model, params)
    logits = stream.step(x)

What is checked here is what compiled code relies on: it looks at tokens, and at no shape or type.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NoReturn

import numpy as np
from numpy import ndarray
from numpy.typing import NDArray

from rnnbench.data import check_step, states_of_rows
from rnnbench.kernels.cpu.flush import CAN_FLUSH
from rnnbench.kernels.cpu.pass_record import GRU, LSTM, RNN, PassRecord, aligned
from rnnbench.kernels.cpu.simd import padded, row_step
from rnnbench.kernels.cpu.step_tile import HEAD
from rnnbench.kernels.cpu.stream_step import IN_USE, LONG_STEP, entry, move_states, panels_of, starts_of
from rnnbench.model import Direction, DType, Model
from rnnbench.params import Array, Params, cast, check_shapes

_CODES = {"rnn": RNN, "gru": GRU, "lstm": LSTM}

# Bytes of what the tokens of a vocabulary give the first layer: up to here each is projected when the stream is made.
MAX_TABLE = 1 << 26
# Seconds from one look to the next at a stream in which another Python thread computes.
WAIT = 20e-6


class Stream:
    """One network for B rows at a time, one time step a call; the states of each row stay here from step to step.

    `params`: arrays by name as `model.shapes` has them, `session.fetch().params` for one; they are copied. `B`: rows.
    `dtype`: `float32` or `float64`. `head`: whether a step gives the head's logits (B, O), or the states h of the last
    layer (B, H), for which W_hy and b_y may be left out. `flush`: whether subnormal numbers are zero inside.
    Every state starts at zero. Nothing is allocated in `step`, which one thread computes. A stream is for one Python
    thread at a time; a second one waits.

    Raises ValueError for parameters that do not fit the model, and for one that is bidirectional.
    """

    def __init__(
        self, model: Model, params: Params, *, B: int = 1, dtype: str = "float32", head: bool = True, flush: bool = True
    ) -> None:
        if model.bidirectional:
            raise ValueError(
                "a bidirectional model reads rows from their end too, and a stream has no end; take one that is not"
            )
        if not isinstance(B, int | np.integer) or B < 1:
            raise ValueError(f"B is {B}; a stream needs a whole number of rows, 1 or more")
        if dtype not in list(DType):
            raise ValueError(f"dtype is {dtype!r}; it must be {' or '.join(DType)}")
        self.model, self.B, self.dtype, self.head = model, int(B), DType(dtype), head
        self.flushes = flush and CAN_FLUSH
        unread = {} if head else {name: np.zeros(model.shapes[name]) for name in ("W_hy", "b_y")}
        params = {name: np.asarray(value) for name, value in {**unread, **params}.items()}
        check_shapes(params, model)
        # The states as the kernels have them, (n, B, H) and padding, in the order of `model.states`
        self._states = aligned((len(model.states), self.B, row_step(model.H, dtype)), dtype)
        self._records = self._made(cast(params, self.dtype))
        self._make_arrays()
        work = self.B * sum(array.size for name, array in params.items() if name != "embedding")
        record, self._address = self._records[0], self._records[0].address
        record.fields["do_share"][0], self._enter = entry(dtype, model.V is not None, work > LONG_STEP)

    def _make_arrays(self) -> None:
        """The inputs and outputs of a step. Callers get views, whose shape they may change; kernels take these."""
        model, dtype = self.model, str(self.dtype)
        tokens = model.V is not None
        self._shape = (self.B,) if tokens else (self.B, model.E)
        self._inputs = aligned(self._shape, np.int32 if tokens else dtype)
        self._outputs = aligned((self.B, model.O if self.head else model.H), dtype)
        self._kind, self._shown = self._inputs.dtype, self._outputs[:]

    def _made(self, params: dict[str, Array]) -> list[PassRecord]:
        """The record of the model and those of its layers, the head's last."""
        model, B, dtype = self.model, self.B, str(self.dtype)
        layers, states = list[PassRecord](), dict(zip(model.states, self._states, strict=True))
        inputs = aligned((B, row_step(model.E, dtype)), dtype)
        table = _table(model, params, dtype)
        for direction in model.directions:
            own = direction.params_of(params)
            starts = table if table is not None and not layers else own["b_h"][None]
            W_xh = own["W_xh"] if starts is not table else own["W_xh"][:0]
            inner = own.get("b_hn", np.zeros(direction.H, dtype))
            state = direction.states_of(states)
            layers.append(self._layer(
                _CODES[direction.cell.name], len(direction.cell.gates), direction.H, inputs, W_xh, own["W_hh"], starts,
                inner, state["h"], state.get("c", state["h"]),
            ))  # fmt: skip
            inputs = state["h"]
        if self.head:
            W, b, nothing = params["W_hy"], params["b_y"], np.zeros((0, model.O), dtype)
            logits = aligned((B, row_step(model.O, dtype)), dtype)
            layers.append(self._layer(HEAD, 1, model.O, inputs, W, nothing, b[None], b, logits, logits))
        values = {
            "B": B, "T": 1, "E": model.E, "O": model.O if self.head else model.H, "V": model.V or 0,
            "has_tokens": model.V is not None, "gathers": table is not None, "layers_n": len(layers),
            "flush": self.flushes,
        }  # fmt: skip
        arrays: dict[str, Array] = {
            "layers": np.array([layer.address for layer in layers], np.int64), "tokens": np.zeros((B, 1), np.int32),
            "embedding": params.get("embedding", np.zeros((0, 0), dtype)),
        }  # fmt: skip
        return [PassRecord(values, arrays), *layers]

    def _layer(
        self, code: int, gates: int, H: int, x: Array, W_x: Array, W_h: Array, starts: Array, inner: Array, h: Array,
        c: Array,
    ) -> PassRecord:  # fmt: skip
        """The record of a layer, or of the head: x (B, ...), W_x (E, G H), W_h (H, G H), starts (n, G H), inner (H,),
        and its states (B, ...).
        """
        dtype, Hp = str(self.dtype), padded(H, str(self.dtype))
        panels, wide = panels_of(np.concatenate([W_x, W_h]), gates, dtype), starts_of(starts, gates, dtype)
        values = {
            "B": self.B, "E": len(W_x), "H": len(W_h), "G": gates, "Hp": Hp, "Hs": h.shape[1], "Es": x.shape[1],
            "GHs": wide.shape[1], "gate_panel": panels.shape[1], "recurrence": code,
        }  # fmt: skip
        arrays = {
            "W_hh_panels": panels, "projected": wide, "slots": np.zeros(self.B, np.int32), "x": x, "h": h,
            "cell_state": c, "last": aligned(h.shape, dtype), "b_hn_padded": aligned((Hp,), dtype),
            "gates": aligned((2, wide.shape[1]), dtype), "zeros": np.zeros(1, dtype),
        }  # fmt: skip
        arrays["b_hn_padded"][:H] = inner
        return PassRecord(values, arrays)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a stream cannot be copied or pickled; make another one of the same parameters, and let it "
            "start_from(stream.states())"
        )

    @property
    def inputs(self) -> NDArray[Any]:
        """What `step()` reads: tokens (B,) int32, or (B, E), zeros at first. Write into it what comes next."""
        return self._inputs[:]

    @property
    def outputs(self) -> Array:
        """What the last step gave, where it was given no `out`: (B, O) or (B, H), of the stream's own."""
        return self._shown

    def step(self, x: NDArray[Any] | None = None, out: Array | None = None) -> Array:
        """The next time step of every row: x, tokens (B,) or (B, E), else what stands in `inputs`.

        Gives logits (B, O), or states (B, H), in `out`, else in an array of the stream's own, which the next step
        overwrites. ValueError for another shape or type, and for a token outside the vocabulary; the states then stay.
        """
        if x is None:
            x = self._inputs
        elif type(x) is not ndarray or x.dtype is not self._kind or x.shape != self._shape:
            x = self._shaped(x)
        if out is not None:
            self._check_out(out)
        outputs = self._outputs if out is None else out
        if wrong := self._enter(self._address, x, outputs):
            self._step_later(wrong, x, outputs)
        return self._shown if out is None else out

    def _step_later(self, wrong: int, x: NDArray[Any], out: Array) -> None:
        """A step that was not done at once: when no other Python thread is in the stream, or never."""
        if wrong == IN_USE:
            wrong = _waited(lambda: self._enter(self._address, x, out))
        if wrong:
            raise ValueError(
                f"token {x[wrong - 1]} of row {wrong - 1} is outside the vocabulary: tokens must lie in "
                f"[0, {self.model.V})"
            )

    def _shaped(self, x: Any) -> NDArray[Any]:
        given = np.asarray(x)
        check_step(self.model, given, self.B)
        return given.astype(self._kind)

    def _check_out(self, out: Any) -> None:
        own = self._outputs
        if type(out) is not np.ndarray or out.dtype is not own.dtype or out.shape != own.shape:
            found = f"{out.dtype} of shape {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
            raise ValueError(f"out is {found}; this stream writes an array of {own.dtype} of shape {own.shape}")
        if not out.flags.writeable:
            raise ValueError("out is read-only; give an array that can be written")

    def states(self, rows: Any = None) -> dict[str, Array]:
        """Copies of the states by name, each (B, H), or (n, H) of some rows: a number, a slice or several numbers."""
        which = self._rows(rows)
        found = np.empty((len(self._states), len(which), self.model.H), str(self.dtype))
        self._move(which, found, False)
        return dict(zip(self.model.states, found, strict=True))

    def start_from(self, states: Mapping[str, Array], rows: Any = None) -> None:
        """Set the states of all rows, each (B, H), or of some of them, (n, H). ValueError for other names or shapes."""
        which = self._rows(rows)
        given = states_of_rows(self.model, len(which), self.dtype, states)
        self._move(which, np.stack([given[name] for name in self.model.states]), True)

    def reset(self, rows: Any = None) -> None:
        """Set the states of all rows, or of some, to zero: a new sequence begins there."""
        which = self._rows(rows)
        self._move(which, np.zeros((len(self._states), len(which), self.model.H), str(self.dtype)), True)

    def _move(self, rows: NDArray[np.int64], values: Array, to_stream: bool) -> None:
        _waited(lambda: move_states(self._address, self._states, rows, values, to_stream))

    def _rows(self, rows: Any) -> NDArray[np.int64]:
        """Numbers of the rows, (n,)."""
        with suppress(IndexError):
            found: NDArray[np.int64] = np.arange(self.B)[slice(None) if rows is None else rows]
            if found.ndim < 2:
                return np.ascontiguousarray(found)  # (1,) of a single number
        raise ValueError(f"rows are {rows!r}; this stream has rows 0 to {self.B - 1}: give one, several or a slice")


def _table(model: Model, params: dict[str, Array], dtype: str) -> Array | None:
    """What each token gives the first layer, (V, G H), or None of dense inputs and where that would be too large."""
    if model.V is None:
        return None
    first: Direction = model.directions[0]
    width = len(first.cell.gates) * padded(first.H, dtype)
    if model.V * width * np.dtype(dtype).itemsize > MAX_TABLE:
        return None
    own = first.params_of(params)
    return np.asarray(params["embedding"] @ own["W_xh"] + own["b_h"])


def _waited(call: Callable[[], int]) -> int:
    """What a call gives once the stream is not in use by another Python thread."""
    while (code := call()) == IN_USE:
        time.sleep(WAIT)
    return code
