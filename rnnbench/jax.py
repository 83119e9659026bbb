"""Our CPU kernels in JAX: `rnn`, `gru` and `lstm`, functions of parameters and inputs, to be jitted and differentiated.

    y, h = rnnbench.jax.gru(params, x)

A call of a layer is one custom call of XLA, forward and, in the gradient, another back: no Python runs in either, and
nothing is kept between calls. They compute in float32 and float64, on the CPU, each call in one thread; subnormal
numbers are zero inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, ShapeDtypeStruct
from jax.custom_derivatives import SymbolicZero

from rnnbench.cells import CELLS
from rnnbench.kernels.cpu import pass_record
from rnnbench.kernels.cpu.compiling import source_digest
from rnnbench.kernels.cpu.xla_call import handler, layer_call

_CODES = {"rnn": pass_record.RNN, "gru": pass_record.GRU, "lstm": pass_record.LSTM}
_DIRECTIONS = ("forward", "back")

Params = Any  # of a direction: arrays by name; of a layer: that, or directions by name; of a stack: layers in order
States = Any  # h, of the lstm (h, c), wherever `Params` have a direction


def rnn(
    params: Params, x: Array, h: States = None, *, lengths: Array | None = None, time_major: bool = False
) -> tuple[Array, States]:
    """Layers of the tanh cell over x (B, T, E), or, if `time_major`, (T, B, E): (states of all steps, last states).

    `params` of one layer are `W_xh` (E, H), `W_hh` (H, H) and `b_h` (H,); of both directions {"forward": ..., "back":
    ...}, whose states stand side by side in the output, (B, T, 2 H); of several layers a list, the first reads x.
    Initial states `h`, (B, H) each, and the last states have the form of `params`; None is zeros. `lengths` (B,), whole
    numbers from 0 to T: steps from a row's length on are not computed, and their outputs are 0.

    Raises ValueError for names or shapes that do not fit, TypeError for numbers other than float32 or float64, all of
    one. Forward mode and a gradient of a gradient are refused; `jax.vmap` calls row by row, so give it a batch.
    """
    return _layers("rnn", params, x, h, lengths, time_major)


def gru(
    params: Params, x: Array, h: States = None, *, lengths: Array | None = None, time_major: bool = False
) -> tuple[Array, States]:
    """Layers of the gru; all else is as `rnn` has it.

    `W_xh` (E, 3 H), `W_hh` (H, 3 H), `b_h` (3 H,), whose gates are r, z, n; `b_hn` (H,), the bias of n inside the
    recurrent product: h_t = (1 - z) n + z h, n = tanh(x W_n + b_n + r (h U_n + b_hn)), as cuDNN has it.
    """
    return _layers("gru", params, x, h, lengths, time_major)


def lstm(
    params: Params, x: Array, states: States = None, *, lengths: Array | None = None, time_major: bool = False
) -> tuple[Array, States]:
    """Layers of the lstm; states are (h, c), all else is as `rnn` has it.

    `W_xh` (E, 4 H), `W_hh` (H, 4 H), `b_h` (4 H,), whose gates are i, f, g, o.
    """
    return _layers("lstm", params, x, states, lengths, time_major)


def _layers(
    cell: str, params: Params, x: Array, states: States, lengths: Array | None, time_major: bool
) -> tuple[Array, States]:
    x = jnp.asarray(x)
    if x.ndim != 3:
        letters = "(T, B, E)" if time_major else "(B, T, E)"
        raise ValueError(f"x has shape {x.shape}; give {letters}, a single row as a batch of one")
    if lengths is not None:
        lengths = jnp.asarray(lengths)
        T, B = x.shape[:2] if time_major else x.shape[1::-1]
        if lengths.shape != (B,) or not jnp.issubdtype(lengths.dtype, jnp.integer):
            raise ValueError(f"lengths are {lengths.dtype} {lengths.shape}; give a whole number for each of {B} rows")
        if lengths.dtype.itemsize < 4:  # T may be more than it can say
            lengths = lengths.astype(jnp.int32)
        lengths = jnp.clip(lengths, 0, T).astype(jnp.int32)  # compiled code would read behind the end of x
    if not isinstance(params, Sequence):
        return _layer(cell, params, x, states, lengths, time_major)
    given = [None] * len(params) if states is None else states
    if not isinstance(given, Sequence) or len(given) != len(params):
        raise ValueError(f"there are parameters of {len(params)} layers; give as many states, in a list, or None")
    last = []
    for own, state in zip(params, given, strict=True):
        x, after = _layer(cell, own, x, state, lengths, time_major)
        last.append(after)
    return x, last


def _layer(
    cell: str, params: Params, x: Array, states: States, lengths: Array | None, time_major: bool
) -> tuple[Array, States]:
    if not isinstance(params, Mapping):
        raise TypeError(f"the parameters of a layer are a {type(params).__name__}; give a dict of arrays by name")
    if not {*params} & {*_DIRECTIONS}:
        return _direction(_Kind(cell, False, time_major), params, x, states, lengths)
    if unknown := {*params} - {*_DIRECTIONS}:
        raise ValueError(f"the parameters of a layer have {', '.join(sorted(unknown))} beside its directions")
    outputs, last = [], {}
    for name in (name for name in _DIRECTIONS if name in params):
        kind, start = _Kind(cell, name == "back", time_major), None if states is None else states[name]
        y, last[name] = _direction(kind, params[name], x, start, lengths)
        outputs.append(y)
    return outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=-1), last


@dataclass(frozen=True)
class _Kind:
    """What is fixed when a call is traced, besides shapes."""

    cell: str
    back: bool
    time_major: bool

    def sizes(self, x: Array) -> tuple[int, int, int]:
        """B, T, E."""
        first, second, E = x.shape
        return (second, first, E) if self.time_major else (first, second, E)

    @property
    def states(self) -> tuple[str, ...]:
        """The record's names of the initial states; of the last ones, `state` for `initial`."""
        return ("initial", "initial_cell")[: len(CELLS[self.cell].states)]


def _direction(
    kind: _Kind, params: Mapping[str, Array], x: Array, states: States, lengths: Array | None
) -> tuple[Array, States]:
    B, T, E = kind.sizes(x)
    own = {name: jnp.asarray(value) for name, value in params.items()}
    H = own["W_hh"].shape[0] if "W_hh" in own and own["W_hh"].ndim == 2 else 0
    shapes = CELLS[kind.cell].shapes(E, H)
    found = {name: value.shape for name, value in own.items()}
    if found != shapes or H == 0:
        raise ValueError(f"parameters of {kind.cell} over inputs of width {E} are {shapes}; these are {found}")
    n = len(kind.states)
    if states is None:
        start = (jnp.zeros((B, H), x.dtype),) * n
    else:
        start = tuple(jnp.asarray(state) for state in (states if n == 2 else (states,)))
        if [state.shape for state in start] != [(B, H)] * n:
            raise ValueError(f"states have shapes {[s.shape for s in start]}; {kind.cell} starts from {n} of {(B, H)}")
    dtypes = {value.dtype for value in (x, *start, *own.values())}
    if len(dtypes) > 1 or x.dtype not in (jnp.float32, jnp.float64):
        names = " and ".join(sorted(map(str, dtypes)))
        raise TypeError(
            f"x, states and parameters are of {names}; these layers compute in float32 or float64, all of one: convert "
            "them first"
        )
    if 0 in (B, T):
        y, *last = jnp.zeros((*x.shape[:2], H), x.dtype), *start
    else:
        primals = x, start, tuple(own[name] for name in shapes), lengths
        y, *last = _recurrence(kind, *_varying(primals, _axes(primals)))
    return y, last[0] if n == 1 else tuple(last)


def _axes(values: Any) -> frozenset[str]:
    """Axes of a `shard_map` over which any of them varies; none where this JAX does not keep account of that."""
    found = frozenset[str]()
    for value in jax.tree.leaves(values) if hasattr(jax.lax, "pcast") else ():
        kind = jax.typeof(value)
        found |= kind.manual_axis_type.varying if hasattr(kind, "manual_axis_type") else kind.vma
    return found


def _varying(values: Any, axes: frozenset[str]) -> Any:
    """Each of them over all of these axes: JAX sums gradients of what was the same everywhere over them."""
    if not axes:
        return values
    return jax.tree.map(lambda value: jax.lax.pcast(value, tuple(sorted(axes - _axes(value))), to="varying"), values)


@cache
def _target(dtype: str) -> str:
    """The name by which XLA knows the handler: a program that was exported for other kernels does not find it."""
    name = f"rnnbench_cpu_layer_{dtype}_{source_digest()}"
    jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(handler(dtype)), platform="cpu")
    return name


def _call(kind: _Kind, x: Any, H: int, results: dict[str, Any], arguments: dict[str, Any], **how: bool) -> list[Array]:
    """The custom call: arguments, and shapes of results, by the record's names; the shape of `tape` is its own."""
    B, T, E = kind.sizes(x)
    dtype = str(x.dtype)
    call = layer_call(
        _CODES[kind.cell], E, H, dtype, B, T, (*arguments, *results), turns=kind.back, time_major=kind.time_major, **how
    )
    shapes = [ShapeDtypeStruct((call.tape,) if name == "tape" else shape, dtype) for name, shape in results.items()]
    room = ShapeDtypeStruct((call.room,), np.uint8)
    made = jax.ffi.ffi_call(_target(dtype), [*shapes, room], vmap_method="sequential")

    @jax.custom_jvp
    def called(*operands: Array) -> Any:
        return made(*operands, words=call.words, bases=call.bases)

    called.defjvp(_refuse)
    found = list(called(*arguments.values()))[:-1]
    return list(_varying(found, _axes(arguments)))


def _refuse(*_: Any) -> Any:
    raise TypeError(
        "the gradient of a gradient is not computed by rnnbench.jax; use a lax.scan of the cell where it is needed"
    )


def _forward(
    kind: _Kind, x: Array, start: tuple[Array, ...], params: tuple[Array, ...], lengths: Array | None, keeps: bool
) -> list[Array]:
    """The states of all steps, the last ones and, if it `keeps` one, the tape."""
    H = start[0].shape[1]
    arguments = {"inputs": x, **dict(zip(kind.states, start, strict=True)), **_named(kind, params)}
    results: dict[str, Any] = {"outputs": (*x.shape[:2], H)}
    results |= {name.replace("initial", "state"): start[0].shape for name in kind.states}
    return _call(
        kind, x, H, results | {"tape": None} if keeps else results, arguments | _given(lengths), gradient=False,
        keeps=keeps, emits=False,
    )  # fmt: skip


def _named(kind: _Kind, params: tuple[Array, ...]) -> dict[str, Array]:
    return dict(zip(CELLS[kind.cell].shapes(1, 1), params, strict=True))


def _given(lengths: Array | None) -> dict[str, Array]:
    return {} if lengths is None else {"lengths": lengths}


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _recurrence(
    kind: _Kind, x: Array, start: tuple[Array, ...], params: tuple[Array, ...], lengths: Array | None
) -> tuple[Array, ...]:
    """One direction of one layer: the states of all steps, and the last ones."""
    return tuple(_forward(kind, x, start, params, lengths, keeps=False))


def _recurrence_forward(kind: _Kind, *primals: Any) -> Any:
    x, start, params, lengths = jax.tree.map(lambda primal: primal.value, primals)
    *found, tape = _forward(kind, x, start, params, lengths, keeps=True)
    # What is asked for must be known where the way back is traced: there, or None, and for a shape an empty array
    asked = [() if any(p.perturbed for p in jax.tree.leaves(given)) else None for given in primals[:2]]
    return tuple(found), (tape, params, lengths, jnp.zeros((0, *x.shape), x.dtype), asked)


def _recurrence_back(kind: _Kind, residuals: Any, grads: tuple[Any, ...]) -> Any:
    tape, params, lengths, like, (learns_inputs, learns_states) = residuals
    x, named = ShapeDtypeStruct(like.shape[1:], like.dtype), _named(kind, params)
    H, (dy, *last) = named["W_hh"].shape[0], grads
    B, _, _ = kind.sizes(x)
    arguments, emits = {}, not isinstance(dy, SymbolicZero)
    if emits:
        arguments["d_outputs"] = dy
    for name, grad in zip(kind.states, last, strict=True):
        grad = jnp.zeros((B, H), x.dtype) if isinstance(grad, SymbolicZero) else grad
        arguments[f"d_{name.replace('initial', 'last')}"] = grad
    arguments |= {"tape": tape, "W_xh": named["W_xh"], "W_hh": named["W_hh"]} | _given(lengths)
    results: dict[str, Any] = {f"d_{name}": value.shape for name, value in named.items()}
    if learns_states is not None:
        results |= {f"d_{name}": (B, H) for name in kind.states}
    if learns_inputs is not None:
        results["d_inputs"] = x.shape
    found = dict(
        zip(results, _call(kind, x, H, results, arguments, gradient=True, keeps=True, emits=emits), strict=True)
    )
    states = None if learns_states is None else tuple(found[f"d_{name}"] for name in kind.states)
    return found.get("d_inputs"), states, tuple(found[f"d_{name}"] for name in named), None


_recurrence.defvjp(_recurrence_forward, _recurrence_back, symbolic_zeros=True)
