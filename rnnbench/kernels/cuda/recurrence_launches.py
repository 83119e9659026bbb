"""The recurrence of a pass in whichever regime its sizes and the device call for: launches, and no more than that."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from rnnbench.cells import cell_of
from rnnbench.kernels.cuda import gated_lanes, gated_spread, gated_tiles, lanes, spread, tiles
from rnnbench.kernels.cuda.buffers import DeviceSizes
from rnnbench.kernels.cuda.device import Room, simulated
from rnnbench.kernels.cuda.launch import Launcher, LaunchSize
from rnnbench.kernels.cuda.plan import LaunchPlan, RegimeKind
from rnnbench.kernels.cuda.regimes import Regime, choose, describe, fitting

NEAR = 1 << 32  # numbers of an array whose places are 32 bits: fewer instructions a step


def block_array(blocks: list[tuple[int, int, int]]) -> NDArray[np.int64]:
    """(start, emit, end) of each reverse pass, as kernels read them: (., 3)."""
    return np.array(blocks, np.int64).reshape(-1, 3)


@dataclass(frozen=True)
class Reverse:
    """Reverse passes in order of time: (start, emit, end) of each, and the same on the device, (., 3).

    `below`: of layers below the last, where every step of a pass has a gradient from above; None where there are none.
    `apart`: each pass by itself, where there are such layers and passes overlap: what goes down a layer is of one pass.
    """

    listed: tuple[tuple[int, int, int], ...]
    on_device: Any
    below: Reverse | None = None
    apart: tuple[Reverse, ...] = ()

    @property
    def first(self) -> int:
        """The first step that any of them reaches."""
        return self.listed[0][0]

    @property
    def end(self) -> int:
        """The step behind the last."""
        return self.listed[-1][2]


def reverse_passes(blocks: list[tuple[int, int, int]], layers: int) -> Reverse:
    """Of (start, emit, end) of each, on the device."""

    def passes(some: list[tuple[int, int, int]], below: Reverse | None = None) -> Reverse:
        return Reverse(tuple(some), cuda.to_device(block_array(some)), below)

    def with_below(some: list[tuple[int, int, int]]) -> Reverse:
        return passes(some, passes([(start, start, end) for start, _, end in some]) if layers > 1 else None)

    overlap = layers > 1 and any(later[0] < earlier[2] for earlier, later in pairwise(blocks))
    return replace(with_below(blocks), apart=tuple(with_below([block]) for block in blocks) if overlap else ())


@dataclass(frozen=True)
class BackStep:
    """A step of a reverse pass. more: it has a later step; emits: it has a dh; again: delta was set before."""

    t: int
    more: int
    emits: int
    again: int


def steps_back(listed: tuple[tuple[int, int, int], ...], T: int, S: int) -> Iterator[BackStep]:
    """What `backward` goes through in one launch, for those that launch each step."""
    # A pass goes from its last step to its first; steps before `seen` have a delta of an earlier pass
    seen = 0
    for start, emit, end in listed:
        for t in range(end - 1, start - 1, -1):
            yield BackStep(t, int(t < end - 1), int(t >= emit and t >= T - S), int(t < seen))
        seen = end


class CudaRecurrence:
    """Forward and backward of one layer in one direction, whose steps count from its own first.

    `arrays`: h, delta, spare, dh, arrived; with gates gates, tape, carried.
    """

    def __init__(
        self, sizes: DeviceSizes, plan: LaunchPlan, regime: Regime, launch: Launcher, arrays: dict[str, Any]
    ) -> None:
        self.s, self.plan, self.regime, self.launch, self.a = sizes, plan, regime, launch, arrays

    def _size(self, b: int, back: bool = False) -> LaunchSize:
        """Blocks and threads for b rows, in the regime of a full batch: a short one needs no other kernel."""
        # Tiles of rows and columns; columns alone; or rows alone
        plan, r = self.plan, self.regime
        if r.kind is RegimeKind.TILES:
            edge = plan.side * plan.step_micro
            return LaunchSize((math.ceil(b / edge), math.ceil(self.s.H / edge)), (plan.side, plan.side))
        if r.kind in (RegimeKind.SPREAD, RegimeKind.STEPS):
            threads = r.spread_back.threads if back and r.spread_back else r.threads
            return LaunchSize(r.grid, threads, together=r.kind is RegimeKind.SPREAD)
        return LaunchSize(math.ceil(b / r.rows), r.threads, r.shared)

    @property
    def _far(self) -> bool:
        """Whether places in the largest array, delta, h or tape, take more than 32 bits."""
        s, cell = self.s, cell_of(self.s.cell)
        return (s.T + 1) * s.B * s.H * (len(cell.gates) + len(cell.inner)) > NEAR

    def _tile(self) -> tuple[int, int, int]:
        return self.plan.side, self.plan.step_micro, self.plan.depth

    def forward(self, params: dict[str, Any], initial: dict[str, Any], of_rows: tuple[Any, ...], b: int) -> None:
        """h from x_t W_xh + b_h, which it or `gates` holds, and initial states (>= b, H).

        `of_rows`: order of rows, from which on, and lengths, for the regimes whose blocks stop where their rows end.
        """
        # A launch a step, one launch whose blocks wait for each other, or one in which none does
        r, s, a, size = self.regime, self.s, self.a, self._size(b)
        arrays: tuple[Any, ...] = (a["h"], params["W_hh"], initial["h"])
        if s.gated:
            # What the cell has not is not read: gru no c, lstm no b_hn
            bias, first_c = params.get("b_hn", params["b_h"]), initial.get("c", initial["h"])
            arrays = (a["h"], a["gates"], a["tape"], params["W_hh"], bias, initial["h"], first_c)
        kernel = _forward_kernel(r, s.dtype, s.cell, self._tile(), s.lengths, self._far)
        if r.lanes is not None:
            arrays += of_rows
        if r.kind in (RegimeKind.TILES, RegimeKind.STEPS):
            for t in range(s.T):
                self.launch(kernel, size, *arrays, b, t, s.H)
        elif r.kind is RegimeKind.SPREAD:
            self.launch(kernel, size, *arrays, b, s.T, s.H, a["arrived"])
        else:
            self.launch(kernel, size, *arrays, b, s.T, s.H)

    def backward(self, W: Any, reverse: Reverse, of_rows: tuple[Any, ...], b: int) -> None:
        """delta, from dh and what forward left."""
        r, s, a, size = self.regime, self.s, self.a, self._size(b, back=True)
        arrays: tuple[Any, ...] = (a["delta"], a["spare"], a["h"], a["dh"], W)
        if s.gated:
            arrays = (a["delta"], a["spare"], a["carried"], a["h"], a["gates"], a["tape"], a["dh"], W)
        kernel = _backward_kernel(r, s.dtype, s.cell, self._tile(), s.lengths, self._far)
        if r.lanes is not None:
            arrays += of_rows
        if r.kind in (RegimeKind.TILES, RegimeKind.STEPS):
            # What the kernels of one launch work out for each step is worked out here, and given to each launch
            for x in steps_back(reverse.listed, s.T, s.S):
                self.launch(kernel, size, *arrays, b, x.t, s.T, s.S, s.H, x.more, x.emits, x.again)
        elif r.kind is RegimeKind.SPREAD:
            self.launch(kernel, size, *arrays, reverse.on_device, b, s.T, s.S, s.H, a["arrived"])
        else:
            self.launch(kernel, size, *arrays, reverse.on_device, b, s.T, s.S, s.H)


# Kernels are made by their factories, once for all sizes that are the same. `tile`: of a step's product.


def _forward_kernel(r: Regime, dtype: str, cell: str, tile: tuple[int, int, int], ends: bool, far: bool) -> Any:
    """The kernel of a regime."""
    if r.back is not None:
        return gated_lanes.forward_gated_in_lanes(dtype, cell, r.block, ends, far)
    gated = len(cell_of(cell).gates) > 1
    match r.kind:
        case RegimeKind.REGISTERS | RegimeKind.SPLIT:
            return lanes.forward_in_lanes(dtype, r.block, ends, far)
        case RegimeKind.SPREAD if gated:
            return gated_spread.forward_gated_spread(dtype, cell, r.shape)
        case RegimeKind.SPREAD:
            return spread.forward_spread(dtype, r.shape)
        case RegimeKind.STEPS:
            return spread.forward_spread_step(dtype, r.shape)
    if gated:
        return gated_tiles.forward_gated_tile_step(dtype, cell, *tile)
    return tiles.forward_tile_step(dtype, *tile)


def _backward_kernel(r: Regime, dtype: str, cell: str, tile: tuple[int, int, int], ends: bool, far: bool) -> Any:
    """As `_forward_kernel`."""
    if r.back is not None:
        return gated_lanes.backward_gated_in_lanes(dtype, cell, r.back, ends, far)
    gated = len(cell_of(cell).gates) > 1
    match r.kind:
        case RegimeKind.REGISTERS | RegimeKind.SPLIT:
            return lanes.backward_in_lanes(dtype, r.block, ends, far)
        case RegimeKind.SPREAD if r.spread_back is not None:
            return gated_spread.backward_gated_spread(dtype, cell, r.spread_back)
        case RegimeKind.SPREAD:
            return spread.backward_spread(dtype, r.shape)
        case RegimeKind.STEPS:
            return spread.backward_spread_step(dtype, r.shape)
    if gated:
        return gated_tiles.backward_gated_tile_step(dtype, cell, *tile)
    return tiles.backward_tile_step(dtype, *tile)


@dataclass(frozen=True)
class Settled:
    """A regime, and what a thread of its kernels has in memory instead of registers, as compiled for this device."""

    regime: Regime
    local_bytes: int

    @property
    def said(self) -> str:
        """What a contract says of W_hh."""
        if not self.local_bytes:
            return describe(self.regime)
        return (
            f"{describe(self.regime)}; {self.local_bytes} bytes of a thread in local memory: try a newer CUDA toolkit"
        )


@functools.cache
def settle(plan: LaunchPlan, H: int, b: int, dtype: str, room: Room, learns: bool = True, cell: str = "rnn") -> Settled:
    """The first regime whose kernels the compiler keeps in registers; where it does so with none, the first.

    A toolkit may be too old to unroll for a new device, and W_hh would then lie in memory. TILES is not taken for
    that: it reads W_hh from memory too. ValueError as `choose`.
    """
    first = Settled(choose(plan, H, b, dtype, room, cell), 0)
    if simulated():
        return first
    first = Settled(first.regime, _local_bytes(plan, first.regime, H, b, dtype, learns, cell))
    if not first.local_bytes:
        return first
    for regime in fitting(plan, H, b, dtype, room, cell):
        if regime.kind is not RegimeKind.TILES and not _local_bytes(plan, regime, H, b, dtype, learns, cell):
            return Settled(regime, 0)
    return first


def _local_bytes(plan: LaunchPlan, regime: Regime, H: int, b: int, dtype: str, learns: bool, cell: str) -> int:
    """What a thread has in memory: launches of one step are prepared, and none is launched."""
    sizes = DeviceSizes(b, 1, 0, 1, H, 1, 1, dtype, cell)
    put, W, bias = Launcher(), cuda.device_array((1, 1), dtype), cuda.device_array(1, dtype)
    arrays = dict.fromkeys(("h", "gates", "tape", "carried", "delta", "spare", "dh"), W)
    of_rows = cuda.device_array(1, np.int64), 0, cuda.device_array(1, np.int32)
    arrays["arrived"] = cuda.device_array(1, np.int32)
    recurrence = CudaRecurrence(sizes, plan, regime, put, arrays)

    def launches() -> None:
        recurrence.forward({"W_hh": W, "b_h": bias}, {"h": W}, of_rows, b)
        if learns:
            recurrence.backward(W, Reverse(((0, 0, 1),), cuda.device_array((1, 3), np.int64)), of_rows, b)

    return put.prepare(launches).local_bytes
