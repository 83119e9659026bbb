"""The register tile of a cell with gates, as LLVM IR: the recurrent product of a few rows, and the cell as its end.

A panel of W_hh holds the gates of as many units as a vector has lanes, side by side. So the tile of a panel ends with
all gates of its units in registers, turns them into states there, and writes each once: gates as activated, for the way
back, and the states.

    gru     r = sigmoid(x_r + h' U_r)   z = sigmoid(x_z + h' U_z)   m = b_hn + h' U_n   n = tanh(x_n + r m)
            h = n + z (h' - n)                                          kept: r, z, n; m
    lstm    i, f, o = sigmoid(x + h' U)   g = tanh(x_g + h' U_g)
            c = f c' + i g   h = o tanh(c)                              kept: i, f, g, o; tanh(c)

A division costs as much as sixteen multiplications, so some share one: 1 / (a b) times b is 1 / a. Only gates do whose
NaN comes to the same states anyway. `GATE_ULP` bounds what that rounds besides.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from rnnbench.kernels.cpu.pass_record import GRU, LSTM
from rnnbench.kernels.cpu.pointwise import sigmoid_parts, signed, tanh_parts
from rnnbench.kernels.cpu.simd import INDEX, Vectors, panel_vectors
from rnnbench.kernels.cpu.tile import Tile, tile_function

# How many gates each has.
GATES = {GRU: 3, LSTM: 4}
# Rows of a tile: 24 sums of 32 registers, or 12 of 16, as in the plain product.
ROWS = {GRU: 8, LSTM: 6} if panel_vectors() == 4 else {GRU: 4, LSTM: 3}
# Bound on a gate, in units in the last place of its exact value, given the sum that it is of.
GATE_ULP = 5.0

_POINTERS = ("gates", "start", "index", "a", "b", "before", "after", "inner", "cell_before", "cell_after", "tape")
_STEPS = ("gates_step", "start_step", "state_step", "k")


class _CellTile(Tile):
    """A tile of `rows` by the gates of one vector of units."""

    def begin(self, i: int, v: int) -> Any:
        # The recurrent part of n has a factor, so it is summed apart from the input's, upon a bias of its own
        if self.given["recurrence"] == GRU and v == 2:
            return self.write.load(self.given["inner"], INDEX(0))
        return self.write.load(self.given["start"], self.starts[i], v)

    def finish(self, sums: list[Any]) -> None:
        builder, given = self.builder, self.given
        end = self._gru if given["recurrence"] == GRU else self._lstm
        for i in range(self.rows):
            state, gates = (builder.mul(INDEX(i), given[step]) for step in ("state_step", "gates_step"))
            end(i, sums[i * self.vectors : (i + 1) * self.vectors], state, gates)
        builder.ret_void()

    def _keep(self, at: Any, gates: list[Any]) -> None:
        for v, gate in enumerate(gates):
            self.write.store(gate, self.given["gates"], at, v)

    def _gru(self, i: int, sums: list[Any], state: Any, gates: Any) -> None:
        write, given = self.write, self.given
        x_n, before = write.load(given["start"], self.starts[i], 2), write.load(given["before"], state)
        h, kept = gru_end(write, sums, x_n, before)
        write.store(h, given["after"], state)
        self._keep(gates, kept)
        write.store(sums[2], given["tape"], state)

    def _lstm(self, i: int, sums: list[Any], state: Any, gates: Any) -> None:
        write, given = self.write, self.given
        h, c, kept, tanh_c = lstm_end(write, sums, write.load(given["cell_before"], state))
        write.store(c, given["cell_after"], state)
        write.store(h, given["after"], state)
        self._keep(gates, kept)
        write.store(tanh_c, given["tape"], state)


def _inverse(write: Vectors, x: Any) -> Any:
    return write.builder.fdiv(write.constant(1.0), x)


def gru_end(write: Vectors, sums: list[Any], x_n: Any, before: Any) -> tuple[Any, list[Any]]:
    """h and the gates r, z, n as activated, from the sums of r, z and m, the input's part of n, and h before."""
    r = write.builder.fdiv(*sigmoid_parts(write, sums[0]))
    z_over, z_under = sigmoid_parts(write, sums[1])
    n_over, n_under, sign = tanh_parts(write, write.multiply_add(r, sums[2], x_n))
    one = _inverse(write, write.multiply(z_under, n_under))
    z = write.multiply(z_over, write.multiply(one, n_under))
    n = signed(write, write.multiply(n_over, write.multiply(one, z_under)), sign)
    return write.multiply_add(z, write.subtract(before, n), n), [r, z, n]


def lstm_end(write: Vectors, sums: list[Any], before: Any) -> tuple[Any, Any, list[Any], Any]:
    """h, c, the gates i, f, g, o as activated and tanh(c), from the sums of the gates and c before."""
    (i_over, i_under), (f_over, f_under) = sigmoid_parts(write, sums[0]), sigmoid_parts(write, sums[1])
    g_over, g_under, g_sign = tanh_parts(write, sums[2])
    both = write.multiply(i_under, f_under)
    one = _inverse(write, write.multiply(both, g_under))
    of_both = write.multiply(one, g_under)
    i_gate = write.multiply(i_over, write.multiply(of_both, f_under))
    f = write.multiply(f_over, write.multiply(of_both, i_under))
    g = signed(write, write.multiply(g_over, write.multiply(one, both)), g_sign)
    c = write.multiply_add(f, before, write.multiply(i_gate, g))
    (o_over, o_under), (c_over, c_under, c_sign) = sigmoid_parts(write, sums[3]), tanh_parts(write, c)
    one = _inverse(write, write.multiply(o_under, c_under))
    o = write.multiply(o_over, write.multiply(one, c_under))
    tanh_c = signed(write, write.multiply(c_over, write.multiply(one, o_under)), c_sign)
    return write.multiply(o, tanh_c), c, [i_gate, f, g, o], tanh_c


def _function(module: Any, number: types.Float, recurrence: int, rows: int) -> Any:
    """The function of one cell and number of rows."""

    def emit(write: Vectors, given: dict[str, Any]) -> None:
        vectors = GATES[recurrence]
        given |= {"a_row": given["state_step"], "a_step": INDEX(1), "b_step": INDEX(vectors * write.width)}
        _CellTile(write, rows, vectors, given | {"recurrence": recurrence}).emit()

    return tile_function(module, f"rnnbench.cell_tile.{recurrence}.{rows}.{number}", number, _POINTERS, _STEPS, emit)


@intrinsic
def cell_tile(
    typingctx: Any, recurrence: Any, rows: Any, gates: Any, start: Any, index: Any, a: Any, b: Any, before: Any,
    after: Any, inner: Any, cell_before: Any, cell_after: Any, tape: Any, gates_step: Any, start_step: Any,
    state_step: Any, k: Any,
) -> Any:  # fmt: skip
    """One step of one vector of units in `rows` rows, 1 to `ROWS` of the recurrence, GRU or LSTM. Pointers and steps.

    Gates of row i at gates + i gates_step, its sums start at start + index[i] start_step, its state before is
    a + i state_step from unit 0 on (k units) and before + i state_step from these units on, as `after`, `cell_before`,
    `cell_after` and `tape` are; b is the panel, `inner` b_hn of these units. gates may be where start is.
    """
    kinds = (gates, start, index, a, b, before, after, inner, cell_before, cell_after, tape)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        which, n_rows, *rest = args
        most = max(ROWS.values()) + 1
        after_all = builder.append_basic_block("cell_tile.end")
        switch = builder.switch(builder.add(builder.mul(which, INDEX(most)), n_rows), after_all)
        for code, limit in ROWS.items():
            for r in range(1, limit + 1):
                with builder.goto_block(builder.append_basic_block()):
                    switch.add_case(INDEX(code * most + r), builder.block)
                    builder.call(_function(builder.module, gates.dtype, code, r), rest)
                    builder.branch(after_all)
        builder.position_at_end(after_all)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, *kinds, *[types.intp] * len(_STEPS)), codegen
