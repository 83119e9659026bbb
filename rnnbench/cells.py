"""The recurrent cells: what each one carries and learns, and its equations for one step, forward and back, in NumPy.

A cell is an entry of `CELLS`. `backends/numpy.py` loops over time with these equations and is the oracle; all else that
asks about a cell (shapes, gate width, states) reads the entry.

Letters: B batch rows, E input width, H hidden units, G gates. Gates lie side by side, in the order of `Cell.gates`, so
that weights are (E, G H) and (H, G H). A step starts from `before` and ends in `after`: states by name, each (B, H).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Arrays = Mapping[str, Array]  # parameters or states by name


class StepForward(NamedTuple):
    """States after a step, and what its backward step needs besides: the tape."""

    after: dict[str, Array]
    tape: dict[str, Array]


class StepBackward(NamedTuple):
    """Derivatives of the loss by the projected input x W_xh + b_h, by parameters, and by the states before the step."""

    delta: Array  # (B, G H)
    grads: dict[str, Array]
    before: dict[str, Array]


@dataclass(frozen=True)
class Cell:
    """One kind of recurrence. The head reads the state `h`; all states go from step to step.

    A gate named in `inner` has a bias of its own inside the recurrent product, `b_h` and its name, beside its part of
    `b_h`: where a factor stands before that product, the two are not one. `ones` are the gates whose bias Keras starts
    at 1. `computed_by` names the backends that implement the cell; None is all.
    One step of x (B, E): `forward(params, x, before)` and `backward(params, x, before, after, tape, dafter)`;
    `after` and `tape` are what `forward` gave, `dafter` the derivatives of the loss by `after`.
    """

    name: str
    gates: tuple[str, ...]
    states: tuple[str, ...]
    forward: Callable[[Arrays, Array, Arrays], StepForward]
    backward: Callable[[Arrays, Array, Arrays, Arrays, Arrays, Arrays], StepBackward]
    inner: tuple[str, ...] = ()
    ones: tuple[str, ...] = ()
    computed_by: tuple[str, ...] | None = None

    def width(self, H: int) -> int:
        """G H: the width of weights, biases and tape of H units."""
        return len(self.gates) * H

    def units_of(self, gate: str, H: int) -> slice:
        """Where a gate's H units lie in the width G H."""
        at = self.gates.index(gate)
        return slice(at * H, (at + 1) * H)

    def shapes(self, E: int, H: int) -> dict[str, tuple[int, ...]]:
        """Name -> shape of the recurrent parameters, input x output, for inputs of width E."""
        gates = {"W_xh": (E, self.width(H)), "W_hh": (H, self.width(H)), "b_h": (self.width(H),)}
        return gates | {f"b_h{gate}": (H,) for gate in self.inner}


def reordered(array: Array, before: Sequence[str], after: Sequence[str]) -> Array:
    """(..., G H) with its gates in one order as (..., G H) with the same gates in another."""
    gates = dict(zip(before, np.split(array, len(before), axis=-1), strict=True))
    return np.concatenate([gates[gate] for gate in after], axis=-1)


def logistic(z: Array) -> Array:
    """1 / (1 + exp(-z)), of any shape, without overflow."""
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1, e) / (1 + e)


def rnn_forward(params: Arrays, x: Array, before: Arrays) -> StepForward:
    """Elman, "Finding Structure in Time", 1990."""
    h = np.tanh(x @ params["W_xh"] + before["h"] @ params["W_hh"] + params["b_h"])
    return StepForward({"h": h}, {})


def rnn_backward(params: Arrays, x: Array, before: Arrays, after: Arrays, tape: Arrays, dafter: Arrays) -> StepBackward:
    """The chain rule through `rnn_forward`."""
    delta = dafter["h"] * (1 - after["h"] ** 2)
    grads = {"W_xh": x.T @ delta, "W_hh": before["h"].T @ delta, "b_h": delta.sum(axis=0)}
    return StepBackward(delta, grads, {"h": delta @ params["W_hh"].T})


def gru_forward(params: Arrays, x: Array, before: Arrays) -> StepForward:
    """Cho et al., 2014, with the reset gate r after the recurrent product, as cuDNN, PyTorch and Keras compute it."""
    h = before["h"]
    r_x, z_x, n_x = np.split(x @ params["W_xh"] + params["b_h"], 3, axis=1)
    r_h, z_h, n_h = np.split(h @ params["W_hh"], 3, axis=1)
    r = logistic(r_x + r_h)
    z = logistic(z_x + z_h)
    m = n_h + params["b_hn"]
    n = np.tanh(n_x + r * m)
    return StepForward({"h": (1 - z) * n + z * h}, {"r": r, "z": z, "n": n, "m": m})


def gru_backward(params: Arrays, x: Array, before: Arrays, after: Arrays, tape: Arrays, dafter: Arrays) -> StepBackward:
    """The chain rule through `gru_forward`; `recurrent` is the derivative by h W_hh, where n has the factor r."""
    h, dh = before["h"], dafter["h"]
    r, z, n, m = tape["r"], tape["z"], tape["n"], tape["m"]
    dn = dh * (1 - z) * (1 - n**2)
    dz = dh * (h - n) * z * (1 - z)
    dr = dn * m * r * (1 - r)
    delta = np.concatenate([dr, dz, dn], axis=1)
    recurrent = np.concatenate([dr, dz, dn * r], axis=1)
    grads = {
        "W_xh": x.T @ delta,
        "W_hh": h.T @ recurrent,
        "b_h": delta.sum(axis=0),
        "b_hn": (dn * r).sum(axis=0),
    }
    return StepBackward(delta, grads, {"h": dh * z + recurrent @ params["W_hh"].T})


def lstm_forward(params: Arrays, x: Array, before: Arrays) -> StepForward:
    """Hochreiter and Schmidhuber, 1997, with the forget gate f of Gers et al., 2000, and no peepholes."""
    gates = x @ params["W_xh"] + before["h"] @ params["W_hh"] + params["b_h"]
    z_i, z_f, z_g, z_o = np.split(gates, 4, axis=1)
    i, f, g, o = logistic(z_i), logistic(z_f), np.tanh(z_g), logistic(z_o)
    c = f * before["c"] + i * g
    return StepForward({"h": o * np.tanh(c), "c": c}, {"i": i, "f": f, "g": g, "o": o})


def lstm_backward(
    params: Arrays, x: Array, before: Arrays, after: Arrays, tape: Arrays, dafter: Arrays
) -> StepBackward:
    """The chain rule through `lstm_forward`; `dc` is the derivative by the new c, also by way of the new h."""
    i, f, g, o = tape["i"], tape["f"], tape["g"], tape["o"]
    tanh_c = np.tanh(after["c"])
    dc = dafter["c"] + dafter["h"] * o * (1 - tanh_c**2)
    di = dc * g * i * (1 - i)
    df = dc * before["c"] * f * (1 - f)
    dg = dc * i * (1 - g**2)
    do = dafter["h"] * tanh_c * o * (1 - o)
    delta = np.concatenate([di, df, dg, do], axis=1)
    grads = {"W_xh": x.T @ delta, "W_hh": before["h"].T @ delta, "b_h": delta.sum(axis=0)}
    return StepBackward(delta, grads, {"h": delta @ params["W_hh"].T, "c": dc * f})


_GATED = (  # who computes cells with gates
    "numpy", "numba", "numba+subnormal", "jax", "torch", "torch+flush", "torch+compile", "tensorflow", "tensorflow+xla",
    "openvino", "onnxruntime", "numba+naive", "keras", "keras+jax", "keras+torch", "cuda", "cuda+graph",
    "torch+rnnbench", "torch-cuda", "torch-cuda+tf32", "jax-cuda",
)  # fmt: skip

CELLS: dict[str, Cell] = {
    "rnn": Cell("rnn", gates=("h",), states=("h",), forward=rnn_forward, backward=rnn_backward),
    "gru": Cell(
        "gru",
        gates=("r", "z", "n"),
        states=("h",),
        inner=("n",),
        forward=gru_forward,
        backward=gru_backward,
        computed_by=_GATED,
    ),
    "lstm": Cell(
        "lstm",
        gates=("i", "f", "g", "o"),
        states=("h", "c"),
        ones=("f",),
        forward=lstm_forward,
        backward=lstm_backward,
        computed_by=_GATED,
    ),
}


def cell_of(name: str) -> Cell:
    """The entry of a cell. ValueError for an unknown name."""
    if name not in CELLS:
        raise ValueError(f"there is no cell {name!r}; the cells are {', '.join(CELLS)}")
    return CELLS[name]
