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
from rnnbench.model import Direction, Model


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
    layers: int = 1
    directions: int = 1
    # Rows have lengths; of such rows: the head reads the last state, and the loss is averaged over steps
    lengths: bool = False
    at_ends: bool = False
    averages: bool = False

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
    def stack(self) -> tuple[tuple[Direction, ...], ...]:
        """The directions of each layer from the inputs up, as the model has them."""
        return Model(self.E, self.H, 1, cell=self.cell, layers=self.layers, bidirectional=self.directions > 1).stack

    @property
    def read(self) -> int:
        """D H: the width of what the next layer and the head read."""
        return self.directions * self.H

    def step_shape(self, E: int) -> tuple[int, int]:
        """Of [x | h | 1]^T delta, all of which is the gradient of [W_xh; W_hh; biases] but what `inner` leaves out."""
        return E + self.H + 1, self.gate_width + self.inner

    def step_numbers(self, E: int) -> int:
        """Numbers of [W_xh; W_hh; b_h; b_hn], as they lie in the flat arrays."""
        return (E + self.H + 1) * self.gate_width + self.inner

    @property
    def head_shape(self) -> tuple[int, int]:
        """Of [W_hy; b_y], as they lie in the flat arrays."""
        return self.read + 1, self.O

    @property
    def parameters(self) -> int:
        """Numbers in all of them."""
        recurrences = sum(self.step_numbers(d.E) for layer in self.stack for d in layer)
        return self.V * self.E + recurrences + math.prod(self.head_shape)


def work_shapes(s: DeviceSizes, plan: LaunchPlan, learns: bool) -> dict[str, tuple[int, ...]]:
    """Shape of each buffer of numbers: states, gates, z, dz and, if it `learns`, what only the backward pass needs.

    Those of one direction have its prefix.
    """
    shapes: dict[str, tuple[int, ...]] = {"z": (s.S * s.B, s.O), "dz": (s.S * s.B, s.O)}
    if learns:
        shapes |= {
            # Those of two steps of a reverse pass; the gradient of inputs
            "spare": (2 * s.B, s.gate_width),
            "dx": (s.T * s.B if s.V else 1, s.E),
            "head_parts": (plan.chunks(s.S * s.B, *s.head_shape, s.dtype), math.prod(s.head_shape)),
            "norm_parts": (plan.blocks, 2),
            "scale": (1,),
        }
    if s.gated and learns:
        shapes["carried"] = (s.B, s.H)
    for number, layer in enumerate(s.stack):
        top = number == s.layers - 1
        # What is above reads all states of a layer below the last, and of rows with lengths each where it ends
        S = s.S if top else s.T
        if s.directions > 1 or (top and s.at_ends):
            shapes[f"l{number}.read"] = (S * s.B, s.read)
        if top and learns and s.at_ends:
            shapes["d_read"] = (s.B, s.read)
        S = s.T if s.lengths else S
        for direction in layer:
            shapes |= {direction.prefix + name: shape for name, shape in _way(s, plan, direction.E, S, learns).items()}
    return shapes


def _way(s: DeviceSizes, plan: LaunchPlan, E: int, S: int, learns: bool) -> dict[str, tuple[int, ...]]:
    """Of one layer in one direction, which reads E numbers a step, and the last S of whose states are read."""
    # Of the pass forward: states, the first among them, and of cells with gates those
    shapes: dict[str, tuple[int, ...]] = {"h": ((s.T + 1) * s.B, s.H)}
    if s.gated:
        shapes |= {"gates": (s.T * s.B, s.gate_width), "tape": ((s.T + 1) * s.B, s.H)}
    if not learns:
        return shapes
    return shapes | {
        # Backward through time: gradients of states from above, and of gates; sums over steps come in parts
        "dh": (S * s.B, s.H),
        "delta": (s.T * s.B, s.gate_width + s.inner),
        "parts": (plan.chunks(s.T * s.B, *s.step_shape(E), s.dtype), s.step_numbers(E)),
    }


def device_bytes_kept(s: DeviceSizes, adam: bool) -> int:
    """Device memory of parameters, gradients and moments, which depends on neither B nor T."""
    return s.parameters * (4 if adam else 2) * np.dtype(s.dtype).itemsize


def device_bytes_needed(s: DeviceSizes, plan: LaunchPlan, adam: bool) -> int:
    """Device memory of buffers, parameters, gradients and moments; staged rows not counted."""
    numbers = sum(math.prod(shape) for shape in work_shapes(s, plan, learns=True).values())
    return numbers * np.dtype(s.dtype).itemsize + device_bytes_kept(s, adam)


def work_arrays(s: DeviceSizes, plan: LaunchPlan, learns: bool) -> dict[str, Any]:
    """The buffers, not zeroed, and counts (1,), which are: `arrived` of a barrier, `emitted` of a batch's steps."""
    arrays = {name: cuda.device_array(shape, s.dtype) for name, shape in work_shapes(s, plan, learns).items()}
    return arrays | {name: cuda.to_device(np.zeros(1, np.int32)) for name in ("arrived", "emitted")}
