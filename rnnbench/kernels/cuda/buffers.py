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

from rnnbench.cells import cell_of
from rnnbench.kernels.cuda.gated import inner_gates
from rnnbench.kernels.cuda.plan import LaunchPlan


@dataclass(frozen=True)
class DeviceSizes:
    """What buffers are made for. V is 0 for dense input; S the outputs of one row: T where every step emits, else 1.

    `cell`: a name of `rnnbench.cells`. The gate of the tanh cell stands in h.
    """

    B: int
    T: int
    V: int
    E: int
    H: int
    O: int
    S: int
    dtype: str
    cell: str = "rnn"

    @property
    def gated(self) -> bool:
        """Whether the cell has more gates than states, so that they have arrays of their own."""
        return len(cell_of(self.cell).gates) > 1

    @property
    def gate_width(self) -> int:
        """G H."""
        return cell_of(self.cell).width(self.H)

    @property
    def inner(self) -> int:
        """Columns of delta besides G H: of gates that have another derivative by h W_hh than by x W_xh."""
        return inner_gates(self.cell) * self.H

    @property
    def step_shape(self) -> tuple[int, int]:
        """Of [x | h | 1]^T delta, all of which is the gradient of [W_xh; W_hh; biases] but what `inner` leaves out."""
        return self.E + self.H + 1, self.gate_width + self.inner

    @property
    def step_numbers(self) -> int:
        """Numbers of [W_xh; W_hh; b_h; b_hn], as they lie in the flat arrays."""
        return (self.E + self.H + 1) * self.gate_width + self.inner

    @property
    def head_shape(self) -> tuple[int, int]:
        """Of [W_hy; b_y], as they lie in the flat arrays."""
        return self.H + 1, self.O

    @property
    def parameters(self) -> int:
        """Numbers in all of them."""
        return self.V * self.E + self.step_numbers + math.prod(self.head_shape)


def work_shapes(s: DeviceSizes, plan: LaunchPlan, learns: bool) -> dict[str, tuple[int, ...]]:
    """Shape of each buffer of numbers: h, z, dz and, if it `learns`, what only the backward pass needs."""
    shapes: dict[str, tuple[int, ...]] = {
        # Of the pass forward: states, the first among them, logits and the gradient of those
        "h": ((s.T + 1) * s.B, s.H),
        "z": (s.S * s.B, s.O),
        "dz": (s.S * s.B, s.O),
    }
    if s.gated:
        shapes |= {"gates": (s.T * s.B, s.gate_width), "tape": ((s.T + 1) * s.B, s.H)}
    if not learns:
        return shapes
    if s.gated:
        shapes["carried"] = (s.B, s.H)
    return shapes | {
        # Backward through time: gradients of states from the head, of gates, and those of two steps of a reverse pass
        "dh": (s.S * s.B, s.H),
        "delta": (s.T * s.B, s.gate_width + s.inner),
        "spare": (2 * s.B, s.gate_width),
        # Gradients of inputs and weights: sums over steps come in parts, and are added in their order
        "dx": (s.T * s.B if s.V else 1, s.E),
        "parts": (plan.chunks(s.T * s.B, *s.step_shape, s.dtype), s.step_numbers),
        "head_parts": (plan.chunks(s.S * s.B, *s.head_shape, s.dtype), math.prod(s.head_shape)),
        "norm_parts": (plan.blocks, 2),
        "scale": (1,),
    }


def device_bytes_kept(s: DeviceSizes, adam: bool) -> int:
    """Device memory of parameters, gradients and moments, which depends on neither B nor T."""
    return s.parameters * (4 if adam else 2) * np.dtype(s.dtype).itemsize


def device_bytes_needed(s: DeviceSizes, plan: LaunchPlan, adam: bool) -> int:
    """Device memory of buffers, parameters, gradients and moments; staged rows not counted."""
    numbers = sum(math.prod(shape) for shape in work_shapes(s, plan, learns=True).values())
    return numbers * np.dtype(s.dtype).itemsize + device_bytes_kept(s, adam)


def work_arrays(s: DeviceSizes, plan: LaunchPlan, learns: bool) -> dict[str, Any]:
    """The buffers, not zeroed, and `arrived` (1,), which a barrier counts in and which is."""
    arrays = {name: cuda.device_array(shape, s.dtype) for name, shape in work_shapes(s, plan, learns).items()}
    return arrays | {"arrived": cuda.to_device(np.zeros(1, np.int32))}
