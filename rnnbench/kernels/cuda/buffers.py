"""What a pass works in, on the device: sizes, arrays, and how much memory they take.

Rows of all arrays that have steps are time first: row t b + i is step t of the batch's row i. A short batch uses the
first of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import cuda

from rnnbench.kernels.cuda.plan import Plan


@dataclass(frozen=True)
class Sizes:
    """What buffers are made for. V is 0 for dense input; S the outputs of one row: T where every step emits, else 1."""

    B: int
    T: int
    V: int
    E: int
    H: int
    O: int
    S: int
    dtype: str

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Parameters in the order in which they lie in the flat arrays, that of `ModelSpec.shapes`."""
        E, H, O = self.E, self.H, self.O
        table = {"embedding": (self.V, E)} if self.V else {}
        return table | {"W_xh": (E, H), "W_hh": (H, H), "b_h": (H,), "W_hy": (H, O), "b_y": (O,)}

    @property
    def step_numbers(self) -> int:
        """Numbers in [W_xh; W_hh; b_h]."""
        return (self.E + self.H + 1) * self.H

    @property
    def head_numbers(self) -> int:
        """Numbers in [W_hy; b_y]."""
        return (self.H + 1) * self.O


def work_shapes(s: Sizes, plan: Plan, learns: bool) -> dict[str, tuple[int, ...]]:
    """Shape of each buffer of numbers: h, z, dz and, if it `learns`, what only the backward pass needs."""
    shapes: dict[str, tuple[int, ...]] = {
        "h": ((s.T + 1) * s.B, s.H),
        "z": (s.S * s.B, s.O),
        "dz": (s.S * s.B, s.O),
    }
    if not learns:
        return shapes
    chunks = max(plan.chunks(s.T * s.B, s.E + s.H + 1, s.H), plan.chunks(s.S * s.B, s.H + 1, s.O))
    return shapes | {
        "slope": (s.S * s.B, s.H),
        "delta": (s.T * s.B, s.H),
        "spare": (2 * s.B, s.H),
        "dx": (s.T * s.B if s.V else 1, s.E),
        "parts": (chunks, s.step_numbers + s.head_numbers),
        "norm_parts": (plan.blocks, 2),
        "scale": (1,),
    }


def bytes_kept(s: Sizes, adam: bool) -> int:
    """Device memory of parameters, gradients and moments, which depends on neither B nor T."""
    parameters = sum(math.prod(shape) for shape in s.shapes.values())
    return parameters * (4 if adam else 2) * np.dtype(s.dtype).itemsize


def bytes_needed(s: Sizes, plan: Plan, adam: bool) -> int:
    """Device memory of buffers, parameters, gradients and moments; staged rows not counted."""
    numbers = sum(math.prod(shape) for shape in work_shapes(s, plan, learns=True).values())
    return numbers * np.dtype(s.dtype).itemsize + bytes_kept(s, adam)


def work(s: Sizes, plan: Plan, learns: bool) -> dict[str, Any]:
    """The buffers, not zeroed, and `arrived` (1,), which a barrier counts in and which is."""
    arrays = {name: cuda.device_array(shape, s.dtype) for name, shape in work_shapes(s, plan, learns).items()}
    return arrays | {"arrived": cuda.to_device(np.zeros(1, np.int32))}


def parts_of(flat: Any, shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """Views into a flat device array, one after the other."""
    views, at = {}, 0
    for name, shape in shapes.items():
        size = math.prod(shape)
        views[name] = flat[at : at + size].reshape(shape)
        at += size
    return views
