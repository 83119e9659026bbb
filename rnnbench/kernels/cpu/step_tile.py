"""The register tile of one time step of a stream, as LLVM IR: both products of a few rows, and the cell as their end.

    sums[i, g] = start[i, g] + x[i] W_x[:, g] + h'[i] W_h[:, g]        of one vector of units, g its gates

A panel holds W_x above W_h, for each row of them the gates of a vector of units side by side: a step reads every weight
once, in the order in which it lies. Of one row there are few sums, so each is split over several k (see `tile`), and
the step takes as long as the weights need to come from their cache. Nothing is kept for a way back, and no gate goes
to memory. The head is a cell with one gate and no end.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from rnnbench.kernels.cpu.cell_tile import gru_end, lstm_end
from rnnbench.kernels.cpu.pass_record import GRU, LSTM, RNN
from rnnbench.kernels.cpu.pointwise import tanh_vector
from rnnbench.kernels.cpu.simd import INDEX, Vectors, panel_vectors
from rnnbench.kernels.cpu.tile import Tile, tile_function

HEAD = 3  # beside the recurrences: the sums as they are
STEP_GATES = {RNN: 1, GRU: 3, LSTM: 4, HEAD: 1}
# Rows of a tile. Of gru the input's part of n has registers of its own.
STEP_ROWS = {RNN: 6, GRU: 6, LSTM: 6, HEAD: 6} if panel_vectors() == 4 else {RNN: 6, GRU: 3, LSTM: 3, HEAD: 6}
MOST_STEP_ROWS = 6

_POINTERS = ("start", "index", "inner", "x", "panel", "before", "own", "cell", "after")
_STEPS = ("start_step", "x_step", "state_step", "after_step", "E", "H")


class _StepTile(Tile):
    """A tile of `rows` by the gates of one vector of units."""

    def emit(self) -> None:
        given, builder, write = self.given, self.builder, self.write
        index = [builder.load(builder.gep(given["index"], [INDEX(i)])) for i in range(self.rows)]
        self.starts = [builder.mul(builder.sext(i, INDEX), given["start_step"]) for i in index]
        sums = [self.begin(i, v) for i, v in self.cells]
        sums = self._product(sums, given["x"], given["x_step"], given["panel"], given["E"])
        if given["recurrence"] == GRU:
            # The recurrent part of n has a factor, so it is summed apart from the input's, upon a bias of its own
            self.x_n = sums[2::3]
            inner = write.load(given["inner"], INDEX(0))
            sums = [inner if v == 2 else x for (_, v), x in zip(self.cells, sums, strict=True)]
        below = builder.gep(given["panel"], [builder.mul(given["E"], given["b_step"])])
        self.finish(self._product(sums, given["before"], given["state_step"], below, given["H"]))

    def _product(self, sums: list[Any], a: Any, a_row: Any, b: Any, k: Any) -> list[Any]:
        """sums + A B over k; the rows of A are a_row apart."""
        builder = self.builder
        self.given |= {"b": b, "a_step": INDEX(1)}
        self.a_rows = [builder.gep(a, [builder.mul(INDEX(i), a_row)]) for i in range(self.rows)]
        done = builder.sub(k, builder.srem(k, INDEX(self.split)))
        sums = self._sums_over(INDEX(0), done, self.split, sums)
        return sums if self.split == 1 else self._sums_over(done, k, 1, sums)

    def begin(self, i: int, v: int) -> Any:
        return self.write.load(self.given["start"], self.starts[i], v)

    def finish(self, sums: list[Any]) -> None:
        write, given, builder = self.write, self.given, self.builder
        for i in range(self.rows):
            own = sums[i * self.vectors : (i + 1) * self.vectors]
            state, after = (builder.mul(INDEX(i), given[step]) for step in ("state_step", "after_step"))
            if given["recurrence"] == RNN:
                h = tanh_vector(write, own[0])
            elif given["recurrence"] == GRU:
                h, _ = gru_end(write, own, self.x_n[i], write.load(given["own"], state))
            elif given["recurrence"] == LSTM:
                h, c, _, _ = lstm_end(write, own, write.load(given["cell"], state))
                write.store(c, given["cell"], state)
            else:
                h = own[0]
            write.store(h, given["after"], after)
        builder.ret_void()


def _function(module: Any, number: types.Float, recurrence: int, rows: int) -> Any:
    """The function of one cell and number of rows."""

    def emit(write: Vectors, given: dict[str, Any]) -> None:
        vectors = STEP_GATES[recurrence]
        given |= {"recurrence": recurrence, "b_step": INDEX(vectors * write.width)}
        _StepTile(write, rows, vectors, given).emit()

    return tile_function(module, f"rnnbench.step_tile.{recurrence}.{rows}.{number}", number, _POINTERS, _STEPS, emit)


@intrinsic
def step_tile(
    typingctx: Any, recurrence: Any, rows: Any, start: Any, index: Any, inner: Any, x: Any, panel: Any, before: Any,
    own: Any, cell: Any, after: Any, start_step: Any, x_step: Any, state_step: Any, after_step: Any, E: Any, H: Any,
) -> Any:  # fmt: skip
    """One step of one vector of units in `rows` rows, 1 to `STEP_ROWS` of the recurrence, which may be HEAD.

    Pointers and steps. Row i: its sums start at start + index[i] start_step, its input is x + i x_step (E numbers), its
    state before is before + i state_step (H units) and of these units own + i state_step, its cell state, before and
    after, is cell + i state_step, and its state after is after + i after_step, which is none that is read. `inner` is
    b_hn.
    """
    kinds = (start, index, inner, x, panel, before, own, cell, after)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        which, n_rows, *rest = args
        end = builder.append_basic_block("step_tile.end")
        switch = builder.switch(builder.add(builder.mul(which, INDEX(MOST_STEP_ROWS + 1)), n_rows), end)
        for code, limit in STEP_ROWS.items():
            for r in range(1, limit + 1):
                with builder.goto_block(builder.append_basic_block()):
                    switch.add_case(INDEX(code * (MOST_STEP_ROWS + 1) + r), builder.block)
                    builder.call(_function(builder.module, start.dtype, code, r), rest)
                    builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, *kinds, *[types.intp] * len(_STEPS)), codegen
