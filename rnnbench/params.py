"""Named parameters, made once in NumPy from one seed and given to every backend.

Shapes and order are `Model.shapes`: row-major, input x output. Gradients carry the same names and shapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

import numpy as np

from rnnbench.cells import Array as Array
from rnnbench.model import DType, Model

Params = Mapping[str, Array]


class Init(StrEnum):
    """Whose default initialisation."""

    KERAS = "keras"
    TORCH = "torch"


def uniform(rng: np.random.Generator, shape: tuple[int, ...], limit: float) -> Array:
    """Uniform on [-limit, limit), of any shape."""
    return rng.uniform(-limit, limit, shape)


def glorot_uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Uniform with limit sqrt(6 / (fan in + fan out)), shape (in, out). Glorot and Bengio, 2010, equation 16."""
    return uniform(rng, shape, float(np.sqrt(6.0 / sum(shape))))


def orthogonal(rng: np.random.Generator, rows: int, columns: int) -> Array:
    """A random matrix (rows, columns >= rows) with orthonormal rows (Saxe et al., 2013); R's signs make it uniform
    (Mezzadri, 2007).
    """
    q, r = np.linalg.qr(rng.standard_normal((columns, rows)))
    q = q * np.sign(np.diag(r))
    return q if rows == columns else q.T


def _keras(model: Model, rng: Streams) -> dict[str, Array]:
    shapes = model.shapes
    params: dict[str, Array] = {name: np.zeros(shape) for name, shape in shapes.items()}  # biases stay so
    for direction in model.directions:
        cell, prefix = direction.cell, direction.prefix
        for gate in cell.ones:  # but for these
            params[f"{prefix}b_h"][cell.units_of(gate, model.H)] = 1
        params[f"{prefix}W_xh"] = glorot_uniform(rng(f"{prefix}W_xh"), shapes[f"{prefix}W_xh"])
        params[f"{prefix}W_hh"] = orthogonal(rng(f"{prefix}W_hh"), *shapes[f"{prefix}W_hh"])
    params["W_hy"] = glorot_uniform(rng("W_hy"), shapes["W_hy"])
    if model.V is not None:
        params["embedding"] = uniform(rng("embedding"), shapes["embedding"], 0.05)
    return params


def _torch(model: Model, rng: Streams) -> dict[str, Array]:
    shapes, limit = model.shapes, 1.0 / np.sqrt(model.H)
    params = {name: uniform(rng(name), shapes[name], 1.0 / np.sqrt(model.read)) for name in ("W_hy", "b_y")}
    for direction in model.directions:
        cell, prefix = direction.cell, direction.prefix
        for name, shape in direction.shapes.items():
            stream = rng(name)
            params[name] = uniform(stream, shape, limit)
            if name != f"{prefix}b_h":
                continue
            # PyTorch has two biases for each gate. Ours is their sum, where the cell does not need them apart.
            second = uniform(stream, shape, limit)
            for gate in cell.gates:
                if gate not in cell.inner:
                    units = cell.units_of(gate, model.H)
                    params[name][units] += second[units]
    if model.V is not None:
        params["embedding"] = rng("embedding").standard_normal((model.V, model.E))
    return params


Streams = Callable[[str], np.random.Generator]  # parameter -> random numbers of its own
_INITS: dict[Init, Callable[[Model, Streams], dict[str, Array]]] = {Init.KERAS: _keras, Init.TORCH: _torch}

_STREAMS = ("embedding", "W_xh", "W_hh", "b_h", "W_hy", "b_y", "b_hn")


def init_params(model: Model, init: Init, seed: int) -> dict[str, Array]:
    """Initial parameters in float64, by name, in the order of `Model.shapes`.

    Each parameter draws from a stream of its own, so that a change of one shape leaves the others as they were; the
    first layer, forward in time, draws as it does alone.
    `Init.KERAS`: embedding uniform on +-0.05, Glorot uniform, orthogonal recurrent, zero biases
    (but 1 where the cell says so: the forget gate's).
    `Init.TORCH`: embedding normal, all else uniform on +-1/sqrt(H) (of the head, +-1/sqrt(D H)), b_h the sum of two
    such.
    """
    prefixes = [direction.prefix for direction in model.directions]

    def stream(name: str) -> np.random.Generator:
        prefix = name[: name.rfind(".") + 1]
        place = prefixes.index(prefix) if prefix else 0
        key = (_STREAMS.index(name.removeprefix(prefix)), *((place,) if place else ()))
        return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))

    params = _INITS[init](model, stream)
    return {name: params[name] for name in model.shapes}


def cast(params: Params, dtype: DType | str) -> dict[str, Array]:
    """Contiguous copies in the given type."""
    return {name: np.array(value, dtype=str(dtype), order="C") for name, value in params.items()}


def parts(flat: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The named parts of a flat array, on whatever device, in the order of `shapes`: views."""
    found, start = {}, 0
    for name, shape in shapes.items():
        found[name] = flat[start : start + math.prod(shape)].reshape(shape)
        start += math.prod(shape)
    return found


def check_shapes(params: Params, model: Model) -> None:
    """Raise ValueError where a parameter is missing, unknown or of another shape than the model says."""
    expected = model.shapes
    if set(params) != set(expected):
        raise ValueError(f"parameters are {sorted(params)}; this model has {sorted(expected)}")
    for name, shape in expected.items():
        if params[name].shape != shape:
            raise ValueError(f"{name} has shape {params[name].shape}; this model needs {shape}")
