"""The register tile of the matrix product, as LLVM IR.

    out[i, j] = end(start[i, j] + sum over k of A[i, k] B[k, j])        i < 1 to 6 rows, j < 1 to 4 vectors

The sums stay in registers while k runs: for each k a few vectors of B are loaded, one number of each row of A is
broadcast, and every sum gets one multiply-add. A loop that Numba compiles from Python gets no such tile.

Each size is a function of its own: written into one loop, LLVM works out the addresses of all of them beforehand.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from rnnbench.kernels.cpu.simd import INDEX, INT32, TILE_ROWS, Vectors, panel_vectors

# What becomes of a finished sum x: AS_IT_IS x, TANH_BACKWARD x (1 - gate^2), which takes a gradient back through tanh.
AS_IT_IS, TANH_BACKWARD = 0, 1

# A multiply-add is ready after about 4 cycles and two begin in each: fewer sums than 8 would wait for one another.
MIN_SUMS = 8

_POINTERS = ("out", "start", "index", "a", "b", "shared")
# What tiles of one product share: steps from row to row, and along k; how many k; the end; from `out` to its gate.
_SHARED = ("out_step", "start_step", "a_row", "a_step", "b_step", "k", "end", "to_gate")


class Tile(abc.ABC):
    """The body of one function: a tile of `rows` x `vectors`. `given` has its arguments and what is shared, by name."""

    def __init__(self, write: Vectors, rows: int, vectors: int, given: dict[str, Any]) -> None:
        self.write, self.builder, self.rows, self.vectors, self.given = write, write.builder, rows, vectors, given
        self.cells = [(i, v) for i in range(rows) for v in range(vectors)]
        # Few sums are split over several k, which run side by side and are added at the end.
        self.split = -(-MIN_SUMS // len(self.cells)) if len(self.cells) < MIN_SUMS else 1

    def emit(self) -> None:
        """Write all of it."""
        # Load where the sums start, run over k, store. Rows of `start` go by index: rows of a table, or 0, 1, ...
        given, builder = self.given, self.builder
        index = [builder.load(builder.gep(given["index"], [INDEX(i)])) for i in range(self.rows)]
        self.starts = [builder.mul(builder.sext(i, INDEX), given["start_step"]) for i in index]
        sums = [self.begin(i, v) for i, v in self.cells]
        self.a_rows = [builder.gep(given["a"], [builder.mul(INDEX(i), given["a_row"])]) for i in range(self.rows)]
        done = INDEX(0)
        if self.split > 1:
            done = builder.sub(given["k"], builder.srem(given["k"], INDEX(self.split)))
            sums = self._sums_over(INDEX(0), done, self.split, sums)
        self.finish(self._sums_over(done, given["k"], 1, sums))

    @abc.abstractmethod
    def begin(self, i: int, v: int) -> Any:
        """Where a sum starts."""

    @abc.abstractmethod
    def finish(self, sums: list[Any]) -> None:
        """What becomes of the sums, and the return."""

    def _sums_over(self, first: Any, end: Any, split: int, sums: list[Any]) -> list[Any]:
        """A loop over k from `first` to `end`, `split` at a time; the sums after it, which may be those before it."""
        builder, zero = self.builder, self.write.constant(0.0)
        before = builder.block
        loop, after = builder.append_basic_block("k"), builder.append_basic_block("k.end")
        builder.cbranch(builder.icmp_signed("<", first, end), loop, after)
        builder.position_at_end(loop)
        k = builder.phi(INDEX)
        parts = [[builder.phi(self.write.vector) for _ in self.cells] for _ in range(split)]
        new = [self._add_products(builder.add(k, INDEX(n)) if n else k, part) for n, part in enumerate(parts)]
        following = builder.add(k, INDEX(split))
        k.add_incoming(first, before)
        k.add_incoming(following, loop)
        for n, (part, then) in enumerate(zip(parts, new, strict=True)):
            for phi, begin, value in zip(part, sums, then, strict=True):
                phi.add_incoming(zero if n else begin, before)
                phi.add_incoming(value, loop)
        whole = new[0]
        for part in new[1:]:
            whole = [self.write.add(a, b) for a, b in zip(whole, part, strict=True)]
        builder.cbranch(builder.icmp_signed("<", following, end), loop, after)
        builder.position_at_end(after)
        merged = [builder.phi(self.write.vector) for _ in self.cells]
        for phi, begin, value in zip(merged, sums, whole, strict=True):
            phi.add_incoming(begin, before)
            phi.add_incoming(value, loop)
        return merged

    def _add_products(self, k: Any, sums: list[Any]) -> list[Any]:
        """sums[i, v] + A[i, k] B[k, v]."""
        given, builder = self.given, self.builder
        # A row of B in registers, for all rows of the tile; of A one number a row, in every lane
        b_at, a_at = builder.mul(k, given["b_step"]), builder.mul(k, given["a_step"])
        b = [self.write.load(given["b"], b_at, v) for v in range(self.vectors)]
        new = []
        for i, row in enumerate(self.a_rows):
            a = self.write.broadcast(builder.load(builder.gep(row, [a_at])))
            new += [self.write.multiply_add(a, b[v], sums[i * self.vectors + v]) for v in range(self.vectors)]
        return new


class _ProductTile(Tile):
    """The tile of the module's first lines."""

    def begin(self, i: int, v: int) -> Any:
        return self.write.load(self.given["start"], self.starts[i], v)

    def finish(self, sums: list[Any]) -> None:
        given, builder, write = self.given, self.builder, self.write
        places = [builder.mul(INDEX(i), given["out_step"]) for i in range(self.rows)]
        with builder.if_else(builder.icmp_signed("==", given["end"], INDEX(TANH_BACKWARD))) as (backward, as_it_is):
            with backward:
                one, gate = write.constant(1.0), builder.gep(given["out"], [given["to_gate"]])
                for (i, v), x in zip(self.cells, sums, strict=True):
                    h = write.load(gate, places[i], v)
                    x = write.multiply(x, write.subtract(one, write.multiply(h, h)))
                    write.store(x, given["out"], places[i], v)
            with as_it_is:
                for (i, v), x in zip(self.cells, sums, strict=True):
                    write.store(x, given["out"], places[i], v)
        builder.ret_void()


def tile_function(
    module: Any, name: str, number: types.Float, pointers: Sequence[str], steps: Sequence[str],
    emit: Callable[[Vectors, dict[str, Any]], None],
) -> Any:  # fmt: skip
    """The function of this name, which `emit` writes from its arguments if it is not in the module.

    `pointers` are to numbers, but "index" to int32 and "shared" to indices; `steps` are indices.
    """
    if name in module.globals:
        return module.globals[name]
    scalar = ir.FloatType() if number.bitwidth == 32 else ir.DoubleType()
    kinds = [{"index": INT32, "shared": INDEX}.get(pointer, scalar).as_pointer() for pointer in pointers]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [*kinds, *[INDEX] * len(steps)]), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block())
    emit(Vectors(builder, number), dict(zip((*pointers, *steps), function.args, strict=True)))
    return function


def _function(module: Any, number: types.Float, rows: int, vectors: int) -> Any:
    """The function of one size."""

    def emit(write: Vectors, given: dict[str, Any]) -> None:
        shared = given.pop("shared")
        for place, field in enumerate(_SHARED):
            given[field] = write.builder.load(write.builder.gep(shared, [INDEX(place)]))
        _ProductTile(write, rows, vectors, given).emit()

    return tile_function(module, f"rnnbench.tile.{rows}x{vectors}.{number}", number, _POINTERS, (), emit)


@intrinsic
def shared_by_tiles(
    typingctx: Any, out_step: Any, start_step: Any, a_row: Any, a_step: Any, b_step: Any, k: Any, end: Any, to_gate: Any
) -> Any:
    """The last argument of `tile`: what stays the same from tile to tile, in elements. On the stack."""
    kind = types.CPointer(types.intp)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = cgutils.alloca_once(builder, INDEX, size=len(_SHARED))
        for i, value in enumerate(args):
            builder.store(value, builder.gep(place, [INDEX(i)]))
        return place

    return kind(*[types.intp] * len(_SHARED)), codegen


@intrinsic
def tile(typingctx: Any, rows: Any, vectors: Any, out: Any, start: Any, index: Any, a: Any, b: Any, shared: Any) -> Any:
    """The tile of the module's first lines, for `rows` from 1 to 6 and `vectors` from 1 to `panel_vectors`.

    Pointers, with the steps of `shared_by_tiles`: out[i] at out + i out_step; start[i] at start + index[i] start_step
    (index points to int32); A[i, k] at a + i a_row + k a_step; B[k] at b + k b_step, k >= 0; gate[i] at
    out + to_gate + i out_step, read for TANH_BACKWARD. out may be where start is.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        n_rows, n_vectors, *rest = args
        after = builder.append_basic_block("tile.end")
        which = builder.switch(builder.add(builder.mul(n_vectors, INDEX(TILE_ROWS + 1)), n_rows), after)
        for v in range(1, panel_vectors() + 1):
            for r in range(1, TILE_ROWS + 1):
                with builder.goto_block(builder.append_basic_block()):
                    which.add_case(INDEX(v * (TILE_ROWS + 1) + r), builder.block)
                    builder.call(_function(builder.module, out.dtype, r, v), rest)
                    builder.branch(after)
        builder.position_at_end(after)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, out, start, index, a, b, shared), codegen


MOST_ROWS = 8  # of any tile
_IDENTITY = ir.ArrayType(INT32, MOST_ROWS)


@intrinsic
def own_rows(typingctx: Any, index: Any) -> Any:
    """A pointer to 0, 1, 2, ...: the `index` of a tile whose start is row by row; `index` gives the type."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        name = "rnnbench.own_rows"
        constant = builder.module.globals.get(name)
        if constant is None:
            constant = ir.GlobalVariable(builder.module, _IDENTITY, name)
            constant.initializer = ir.Constant(_IDENTITY, list(range(MOST_ROWS)))
            constant.global_constant, constant.linkage = True, "internal"
        return builder.bitcast(constant, INT32.as_pointer())

    return index(index), codegen
