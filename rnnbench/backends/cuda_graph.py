"""Our CUDA kernels with a pass captured into a CUDA graph: one call of the driver starts all of its launches.

The first call of a pass launches its kernels one by one, which compiles them, and then captures the same launches;
every later call replays the graph. What changes between calls is read from device memory: the rows of the batch, the
state that it starts from, the number of the step (`kernels.cuda.cursor`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from rnnbench.backends.base import Session
from rnnbench.backends.cuda import STAGED, CudaBackend, CudaSession, update_rule
from rnnbench.contract import Contract
from rnnbench.data import Data
from rnnbench.kernels.cuda import cursor
from rnnbench.kernels.cuda.graph import WAY_OUT, Recorder
from rnnbench.kernels.cuda.launch import LaunchSize
from rnnbench.kernels.cuda.passes import Batch
from rnnbench.kernels.cuda.plan import LaunchPlan
from rnnbench.model import Case, Pass, Problem
from rnnbench.params import Params

MAX_STEPS = 1 << 20  # of a table of Adam's corrections


class CudaGraphSession(CudaSession):
    """As `CudaSession`, with a graph a pass. `now` (B,): the rows of the batch; `taken` (B,): those of a step of an
    epoch; `cursor` as in `kernels.cuda.cursor`.
    """

    def __init__(self, problem: Problem, params: Params, data: Data, plan: LaunchPlan) -> None:
        self.recorder, self.graphs = Recorder(), dict[Pass, Any]()
        self.now, self.taken = (cuda.device_array(problem.B, np.int64) for _ in range(2))
        self.cursor = cuda.device_array(2, np.int64)
        super().__init__(problem, params, data, plan, self.recorder)
        table = self.rule.table(self.sizes.dtype)
        self.table = cuda.to_device(table if table.size else np.zeros((1, 2), self.sizes.dtype))

    def _select(self, batch: int) -> None:
        first = batch * self.problem.B
        self.now.copy_to_device(np.arange(first, first + self.problem.B, dtype=np.int64))
        self._select_lengths(batch)

    def reset(self) -> None:
        super().reset()
        self._place(0)

    def _place(self, place: int) -> None:
        """Tell the device the number of the next step and where its rows begin."""
        self.cursor.copy_to_device(np.array([self.step, place], np.int64))

    def _batch(self) -> Batch:
        return Batch(self.now, 0, self.problem.B, self.state, *self.seen)

    def _run(self, pass_: Pass, launches: Callable[[], None], rows: int | None = None) -> None:
        """The first time launch by launch, then as a graph; of fewer rows than a batch has always launch by launch."""
        if rows is not None and rows < self.problem.B:
            super()._run(pass_, launches, rows)
        elif graph := self.graphs.get(pass_):
            graph.replay()
        else:
            prepared = self.recorder.prepare(launches)
            prepared.replay()
            self.graphs[pass_] = self.recorder.capture(prepared)

    def _step(self, batch: Batch, rows: int) -> None:
        """A train step that ends with the cursor `rows` rows further."""
        self._gradient(batch)
        self.runner.update_counted(self.rule, self.table, self.cursor)
        self.recorder(cursor.advance_cursor(), LaunchSize(1, 1), self.cursor, rows)

    def train_step(self) -> None:
        self._run(Pass.TRAIN_STEP, lambda: self._step(self._batch(), 0))
        self.step += 1
        self._ran(Pass.TRAIN_STEP)

    def _train_epoch(self, order: NDArray[np.int64]) -> None:
        """A replay for each full batch; a short one at the end is launched kernel by kernel."""
        n, B = order.size, self.problem.B
        self._place_order(order)
        full = n // B
        for _ in range(full):
            self._run(Pass.EPOCH, self._step_of_epoch)
        self.step += full
        if (at := full * B) < n:
            self._train_rows(at, n - at)
            self._place(0)
        self._ran_epoch(order)

    def _place_order(self, rows: NDArray[np.int64]) -> None:
        super()._place_order(rows)
        self._place(0)

    def _drop(self, pass_: Pass) -> None:
        """Graphs too: they have the arrays that they were captured with."""
        super()._drop(pass_)
        if graph := self.graphs.pop(pass_, None):
            graph.close()

    def _step_of_epoch(self) -> None:
        B, S, threads = self.problem.B, self.sizes.S, self.plan.threads
        self.recorder(
            cursor.take_rows(), LaunchSize(math.ceil(B / threads), threads), self.taken, self.order, self.cursor
        )
        batch = Batch(self.taken, 0, B, self.zero_state, *self.seen)
        self._gradient(batch)
        self.runner.update_counted(self.rule, self.table, self.cursor)
        size = LaunchSize(math.ceil(B * S / threads), threads)
        self.recorder(cursor.keep_losses(), size, *self.each, *self.seen, self.cursor, S)
        self.recorder(cursor.advance_cursor(), LaunchSize(1, 1), self.cursor, B)

    def _held(self) -> list[Any]:
        return [*super()._held(), self.now, self.taken, self.cursor, self.table]


class CudaGraphBackend(CudaBackend):
    """Our kernels on one NVIDIA GPU, a pass a CUDA graph."""

    name: ClassVar[str] = "cuda+graph"

    def _unsupported(self, case: Case) -> str | None:
        steps = update_rule(case).steps_that_differ(str(case.dtype))
        if steps > MAX_STEPS:
            return f"Adam's corrections differ for {steps:,} steps, at most {MAX_STEPS:,} are tabled; {WAY_OUT}"
        return super()._unsupported(case)

    def contract(self, problem: Problem) -> Contract:
        plain = super().contract(problem)
        timed = {name: f"one replay of a CUDA graph: {text}" for name, text in plain.timed.items()} | {
            "epoch": "the order to the device; a replay for each full batch, launches for a short one"
        }
        return replace(plain, timed=timed, staged=f"{STAGED}; a batch is its row numbers there")

    def _prepare(self, problem: Problem, params: Params, data: Data) -> Session:
        return CudaGraphSession(problem, params, data, self.plan)
