"""Matrix products on padded rows, cut into register tiles.

    out = start + A B        out = (start + A B) (1 - gate^2)

A weight matrix is packed into panels first: a few columns, all rows of them one after the other, so that a tile reads
it in one run. Rows of `out` are padded to whole vectors. What stands in the padding afterwards is not defined and never
read: k runs over real rows and columns only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from rnnbench.kernels.cpu.calls import SYMBOL_KERNELS, SymbolKernel
from rnnbench.kernels.cpu.compiling import cpu_kernel, inlined
from rnnbench.kernels.cpu.pointwise import copy, zero_row
from rnnbench.kernels.cpu.shares import share_range
from rnnbench.kernels.cpu.simd import (
    CACHE_LINE,
    EXPLICIT,
    INDEX,
    INT32,
    TILE_ROWS,
    Vectors,
    fetch,
    lanes_in,
    lanes_of,
    panel_vectors,
    register_bytes,
    shifted,
)
from rnnbench.kernels.cpu.tile import AS_IT_IS, TANH_BACKWARD, own_rows, shared_by_tiles, tile

# Steps of k for each visit of a tile: a panel of so many rows (16 or 32 KiB) stays in the first cache while rows of A
# pass by, of which so many stay in the second.
K_BLOCK, ROW_BLOCK = min(256, 32 * 1024 // (panel_vectors() * register_bytes())), 192
# Of two long matrices, as in a weight gradient, rows of `out` are columns of A, a cache line apart from step to step.
OUTER_ROWS = 256
# Where k has several blocks, so many panels are done with all of them before the next.
PANELS = 4
# So many numbers of A and B are in the third cache, and a weight gradient has the next block of k fetched from there.
FAR, LINE_VECTORS = 1 << 18, CACHE_LINE // register_bytes()
PACKED_ROWS = 8  # of weights with gates that are packed together
VECTORS = panel_vectors()
ZERO, ONE = INDEX(0), INDEX(1)


@inlined
def next_rows(left, most):
    """How many of the rows that are left go into the next tile: `most`, and what the last two have is halved."""
    if left > 2 * most:
        return most
    return left if left <= most else (left + 1) // 2


@inlined
def _fetch_row(address, n, step):
    """`fetch` n numbers from an address on, a cache line each `step`."""
    for v in range(0, n, step):
        fetch(shifted(address, v))


def _product(
    out, out_step, start, start_step, index, gather, a, a_row, a_step, b, b_step, panel, m, n, k, end, to_gate, width
):
    """The tiles of an (m, n) product over k steps; n is a multiple of `width`, the lanes. Pointers and steps as `tile`.

    Column j of B is in panel j // (VECTORS width), which starts at b + that number * `panel`. Row i of start is row
    index[i] if `gather`, else i.
    """
    # Blocks of k, of rows, of the columns of a panel, and then tile by tile down the rows: the panel's part for this
    # block of k stays in the first cache, the rows of A in the second. Outermost, where there are several blocks of k,
    # blocks of columns: what is read and written again for each block of k stays in the second cache as well. a_row is
    # 1 where A is read by columns
    row_block = OUTER_ROWS if a_row == 1 else ROW_BLOCK
    columns = PANELS * VECTORS * width if k > K_BLOCK else max(n, 1)
    far, line = a_row == 1 and k * (a_step + b_step) > FAR, width * LINE_VECTORS
    for j0 in range(0, n, columns):
        for k0 in range(0, max(k, 1), K_BLOCK):
            steps = min(K_BLOCK, k - k0)
            # Sums begin at `start` in the first block of k, at what stands in `out` in later ones; the end comes last
            first_step = start_step if k0 == 0 else out_step
            shared = shared_by_tiles(
                out_step, first_step, a_row, a_step, b_step, steps, end if k0 + steps >= k else AS_IT_IS, to_gate
            )
            # Rows of the next block, so many with each tile
            ahead, last, each = k0 + steps, 0, 0
            if far:
                last = min(k, k0 + 2 * K_BLOCK)
                each = -(-K_BLOCK // max(1, (m // TILE_ROWS) * (min(n - j0, columns) // (VECTORS * width))))
            for i0 in range(0, m, row_block):
                i_end = min(m, i0 + row_block)
                b_here = shifted(b, k0 * b_step + j0 // (VECTORS * width) * panel)
                for j in range(j0, min(n, j0 + columns), VECTORS * width):
                    vectors = min(VECTORS, (n - j) // width)
                    i = i0
                    while i < i_end:
                        rows = next_rows(i_end - i, TILE_ROWS)
                        here, a_here = shifted(out, i * out_step + j), shifted(a, i * a_row + k0 * a_step)
                        if k0 > 0:
                            tile(rows, vectors, here, here, own_rows(index), a_here, b_here, shared)
                        elif gather:
                            tile(rows, vectors, here, shifted(start, j), shifted(index, i), a_here, b_here, shared)
                        else:
                            first = shifted(start, i * start_step + j)
                            tile(rows, vectors, here, first, own_rows(index), a_here, b_here, shared)
                        i += rows
                        if far:
                            for step in range(ahead, min(last, ahead + each)):
                                _fetch_row(shifted(a, step * a_step), m, line)
                                _fetch_row(shifted(b, step * b_step + j0), min(n - j0, columns), line)
                            ahead += each
                    b_here = shifted(b_here, panel)


def _plain_product(
    out, out_step, start, start_step, index, gather, a, a_row, a_step, b, b_step, panel, m, n, k, end, to_gate, width
):
    """What `_product` computes, in plain loops: for a machine whose vectors are not known here."""
    every = 1 << 40  # as many numbers as anyone could ask for: a pointer has no length
    left, wide = carray(a, every), VECTORS * width
    for i in range(m):
        row = carray(index, every)[i] if gather else i
        for j in range(0, n, wide):
            columns = min(wide, n - j)
            here = i * out_step + j
            to, gate = carray(shifted(out, here), columns), carray(shifted(out, here + to_gate), columns)
            first = carray(shifted(start, row * start_step + j), columns)
            for v in range(columns):
                to[v] = first[v]
            for step in range(k):
                x = left[i * a_row + step * a_step]
                right = carray(shifted(b, j // wide * panel + step * b_step), columns)
                for v in range(columns):
                    to[v] += x * right[v]
            if end == TANH_BACKWARD:
                for v in range(columns):
                    to[v] *= 1 - gate[v] * gate[v]


def _signature(number):
    numbers, rows, step = types.CPointer(number), types.CPointer(types.int32), types.intp
    return types.void(
        numbers, step, numbers, step, rows, types.boolean, numbers, step, step, numbers, *[step] * 8
    )  # fmt: skip


PRODUCT = SYMBOL_KERNELS["product"] = SymbolKernel(_product if EXPLICIT else _plain_product, _signature)


class _Rows:
    """An array argument of a product, where LLVM code is written."""

    def __init__(self, context: Any, builder: Any, kind: types.Array, value: Any) -> None:
        self.builder, self.kind = builder, kind
        self.made = context.make_array(kind)(context, builder, value)

    @property
    def width(self) -> Any:
        """Numbers from one row to the next."""
        return self.builder.extract_value(self.made.shape, 1)

    def at(self, row: Any, column: Any = None) -> Any:
        """A pointer to a row, from a column on; for a vector, to that element."""
        index = self.builder.mul(row, self.width) if self.kind.ndim == 2 else row
        return self.builder.gep(self.made.data, [index if column is None else self.builder.add(index, column)])


class _Call:
    """Writes the call of the product."""

    def __init__(self, context: Any, builder: Any, number: types.Float) -> None:
        self.context, self.builder, self.number = context, builder, number

    def panels(self, W: _Rows, k: Any, j: Any) -> tuple[Any, Any, Any]:
        """B: a matrix of k rows, packed, from column j on, where a panel begins."""
        return W.at(self.builder.mul(self.builder.sdiv(j, W.width), k)), W.width, self.builder.mul(k, W.width)

    def __call__(
        self, out: _Rows, o: Any, start: tuple[Any, Any], a: tuple[Any, Any, Any], b: tuple[Any, Any, Any], m: Any,
        j: Any, n: Any, k: Any, index: Any = None, gate: Any = None,
    ) -> None:  # fmt: skip
        """start: pointer, row step; a: pointer, row step, k step; b: pointer, k step, panel; gate: pointer, or none."""
        to = out.at(o, j)
        which = ir.Constant(INT32.as_pointer(), None) if index is None else index
        end, to_gate = AS_IT_IS, ZERO
        if gate is not None:
            bytes_apart = self.builder.sub(self.builder.ptrtoint(gate, INDEX), self.builder.ptrtoint(to, INDEX))
            end, to_gate = TANH_BACKWARD, self.builder.sdiv(bytes_apart, INDEX(self.number.bitwidth // 8))
        arguments = [to, out.width, *start, which, ir.Constant(ir.IntType(8), int(index is not None)), *a, *b, m, n,
                     k, INDEX(end), to_gate, INDEX(lanes_in(self.number))]  # fmt: skip
        PRODUCT.emit(self.builder, self.number, arguments)


def _in_kernels(emit: Callable[..., None]) -> Any:
    """Make `emit` an intrinsic: it writes a call into a kernel. The first array says what number type it is of."""

    def typing(typingctx: Any, *arguments: Any) -> Any:
        given = tuple(arguments[0]) if len(arguments) == 1 else arguments

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            values: list[Any] = []
            for i, kind in enumerate(given):
                value = builder.extract_value(args[0], i)
                if isinstance(kind, types.Array):
                    values.append(_Rows(context, builder, kind, value))
                else:
                    values.append(context.cast(builder, value, signature.args[0][i], types.intp))
            emit(_Call(context, builder, given[0].dtype), *values)
            return context.get_dummy_value()

        return types.void(types.StarArgTuple(given)), codegen

    typing.__doc__ = emit.__doc__
    return intrinsic(typing)


# The products that kernels call: each says where sums start, what A and B are, and how sums end, and writes the call
# of the one routine above.


@_in_kernels
def affine(call, out, o, bias, A, a, W, m, j, n, k):
    """Columns j to j + n of: out[o : o + m] = bias + A[a : a + m, :k] W.

    out (., >= j + n), A (., >= k), bias (>= j + n,), all C-contiguous; W of k rows, in panels. n is a multiple of the
    lanes, j of the columns of a panel.
    """
    call(out, o, (bias.at(j), ZERO), (A.at(a), A.width, ONE), call.panels(W, k, j), m, j, n, k)


@_in_kernels
def add_product(call, out, o, A, a, W, m, j, n, k):
    """out[o : o + m] += A[a : a + m, :k] W. As `affine`."""
    call(out, o, (out.at(o, j), out.width), (A.at(a), A.width, ONE), call.panels(W, k, j), m, j, n, k)


@_in_kernels
def gathered_product(call, out, o, table, index, first, A, a, W, m, j, n, k):
    """out[o + i] = table[index[first + i]] + A[a + i, :k] W for i < m. index (.,) int32, table as out; as `affine`."""
    start, b = (table.at(ZERO, j), table.width), call.panels(W, k, j)
    call(out, o, start, (A.at(a), A.width, ONE), b, m, j, n, k, index=index.at(first))


@_in_kernels
def through_tanh(call, out, o, bias, A, a, W, m, j, n, k, h, g):
    """out[o + i] = (bias + A[a + i, :k] W) (1 - h[g + i]^2) for i < m, h a tanh, its rows as far apart. As `affine`."""
    start, b = (bias.at(j), ZERO), call.panels(W, k, j)
    call(out, o, start, (A.at(a), A.width, ONE), b, m, j, n, k, gate=h.at(g, j))


@_in_kernels
def add_through_tanh(call, out, o, A, a, W, m, j, n, k, h, g):
    """out[o + i] = (out[o + i] + A[a + i, :k] W) (1 - h[g + i]^2) for i < m. As `through_tanh`."""
    start, b = (out.at(o, j), out.width), call.panels(W, k, j)
    call(out, o, start, (A.at(a), A.width, ONE), b, m, j, n, k, gate=h.at(g, j))


def _fresh_or_own(call, fresh, zeros, out, o, j):
    """Where the sums start: at zero, or at what is there."""
    forget, select = call.builder.icmp_signed("!=", fresh, ZERO), call.builder.select
    return select(forget, zeros.at(ZERO), out.at(o, j)), select(forget, ZERO, out.width)


@_in_kernels
def outer_products(call, out, o, fresh, zeros, A, a, B, b, m, j, n, k):
    """Columns j to j + n of: out[o : o + m] (+)= A[a : a + k, :m]^T B[b : b + k], a sum of k outer products.

    `fresh` forgets what was there. out (., >= j + n), A (., >= m), B (., >= j + n), zeros (>= n,) of 0, all
    C-contiguous; n a multiple of the lanes.
    """
    panel = INDEX(VECTORS * lanes_in(call.number))
    start = _fresh_or_own(call, fresh, zeros, out, o, j)
    call(out, o, start, (A.at(a), ONE, A.width), (B.at(b, j), B.width, panel), m, j, n, k)


@_in_kernels
def sum_rows(call, out, o, fresh, zeros, one, B, b, j, n, k):
    """Columns j to j + n of: out[o] (+)= the sum of B[b : b + k]; one (1,) of 1.

    As `outer_products`, with a column of ones for A.
    """
    panel = INDEX(VECTORS * lanes_in(call.number))
    start = _fresh_or_own(call, fresh, zeros, out, o, j)
    call(out, o, start, (one.at(ZERO), ZERO, ZERO), (B.at(b, j), B.width, panel), ONE, j, n, k)


@_in_kernels
def _copy_panel_row(call, to, r, of, i, j):
    """to[r] = of[i, j : j + wide], `wide` numbers in a row of a panel; to (., wide), of (., n >= j + wide)."""
    write = Vectors(call.builder, call.number)
    first = call.builder.gep(of.at(i), [j])
    for v in range(VECTORS):
        write.store(write.load(first, ZERO, v), to.at(r), ZERO, v)


@_in_kernels
def _copy_vector(call, to, r, i, of, s, j):
    """to[r, i : i + lanes] = of[s, j : j + lanes]."""
    write = Vectors(call.builder, call.number)
    write.store(write.load(of.at(s, j), ZERO), to.at(r, i), ZERO)


@_in_kernels
def _transpose_block(call, to, r, i, of, s, j):
    """to[r : r + lanes, i : i + lanes] = of[s : s + lanes, j : j + lanes]^T, in registers."""
    builder, write = call.builder, Vectors(call.builder, call.number)
    n = write.width
    rows = [write.load(of.at(builder.add(s, INDEX(a)), j), ZERO) for a in range(n)]
    # Blocks off the diagonal change places, of one number, of two by two, ...
    for apart in (1 << stage for stage in range(n.bit_length() - 1)):
        first = [v if not v & apart else n + v - apart for v in range(n)]
        second = [v + apart if not v & apart else n + v for v in range(n)]
        masks = [ir.Constant(ir.VectorType(INT32, n), lanes) for lanes in (first, second)]
        for a in (a for a in range(n) if not a & apart):
            pair = rows[a], rows[a + apart]
            rows[a], rows[a + apart] = (builder.shuffle_vector(*pair, mask) for mask in masks)
    for a, row in enumerate(rows):
        write.store(row, to.at(builder.add(r, INDEX(a)), i), ZERO)


# Packing: a panel has all rows of a few columns one after the other, as the tile reads them.


@cpu_kernel()
def pack(out, W, part, parts):
    """W (k, n) in panels: out[p k + r] is row r of columns [p wide, (p + 1) wide); out (., wide).

    One part of all panels, which workers share. What is after the last column is left alone.
    """
    k, n, wide = W.shape[0], W.shape[1], out.shape[1]
    first, last = share_range(-(-n // wide), part, parts)
    for p in range(first, last):
        width = min(wide, n - p * wide)
        for r in range(k):
            # Vector by vector, but for the last panel, whose columns may end before it does
            if width == wide:
                _copy_panel_row(out, p * k + r, W, r, p * wide)
            else:
                to, of = out[p * k + r], W[r]
                for j in range(width):
                    to[j] = of[p * wide + j]


# The same for weights with gates side by side, one or several, each H wide and padded by itself (`gated` says in which
# orders).


@cpu_kernel()
def pack_gates(out, W, gates, part, parts):
    """W (k, gates H) in panels as `pack`, whose columns are the vectors of gate after gate of the first units, ..."""
    k, H, wide = W.shape[0], W.shape[1] // gates, out.shape[1]
    lanes = lanes_of(W.dtype.type(0))
    vectors = wide // lanes
    first, last = share_range(-(-(-(-H // lanes) * gates) // vectors), part, parts)
    # A few rows at a time: each is then read in one run, or one for each gate
    for begin in range(0, k, PACKED_ROWS):
        end = min(k, begin + PACKED_ROWS)
        for p in range(first, last):
            for v in range(vectors):
                units, gate = (p * vectors + v) // gates * lanes, (p * vectors + v) % gates
                width = max(0, min(lanes, H - units))
                for r in range(begin, end):
                    if width == lanes:
                        _copy_vector(out, p * k + r, v * lanes, W, r, gate * H + units)
                    else:
                        to, of = out[p * k + r][v * lanes : (v + 1) * lanes], W[r][gate * H + units :]
                        zero_row(to)
                        copy(to[:width], of)


@cpu_kernel()
def pack_gates_transposed(out, W, gates, turn, step, part, parts):
    """W^T in panels, W (n, gates H): row u of a gate is its column u of rows [p wide, (p + 1) wide), then 0 to `step`.

    The last `turn` gates come first.
    """
    n, H, wide, lanes = W.shape[0], W.shape[1] // gates, out.shape[1], lanes_of(W.dtype.type(0))
    whole = H // lanes * lanes  # of the units of a gate, those that go as blocks, and of a panel's columns:
    first, last = share_range(-(-n // wide), part, parts)
    for p in range(first, last):
        width = min(wide, n - p * wide)
        blocks = width // lanes * lanes
        for gate in range(gates):
            begin = (p * gates + (gate + turn) % gates) * step
            for i in range(0, blocks, lanes):
                for u in range(0, whole, lanes):
                    _transpose_block(out, begin + u, i, W, p * wide + i, gate * H + u)
            for u in range(step):
                to = out[begin + u]
                if u >= H:
                    zero_row(to)
                else:
                    for i in range(blocks if u < whole else 0, width):
                        to[i] = W[p * wide + i, gate * H + u]


@cpu_kernel()
def add_gate_parts(total, parts, workers, gates, step, turn, share, shares):
    """Some rows of: total (m, n) = the sum of parts (workers m, >= n), m rows of each worker, in their order.

    A row is of so many gates, in parts each a `step` from the one before it, `turn` places later than in total.
    """
    m, width = total.shape[0], total.shape[1] // gates
    for i in range(*share_range(m, share, shares)):
        for gate in range(gates):
            sums, first = total[i][gate * width : (gate + 1) * width], (gate + turn) % gates * step
            copy(sums, parts[i][first:])
            for worker in range(1, workers):
                part = parts[worker * m + i][first:]
                for j in range(sums.size):
                    sums[j] += part[j]


# The same for weights (gates H, k) as PyTorch keeps them, a row for each unit of each gate.


@cpu_kernel()
def pack_units(out, W, gates, part, parts):
    """As `pack_gates` of W^T; W (gates H, k)."""
    H, k, wide, lanes = W.shape[0] // gates, W.shape[1], out.shape[1], lanes_of(W.dtype.type(0))
    vectors, whole = wide // lanes, k // lanes * lanes
    first, last = share_range(-(-(-(-H // lanes) * gates) // vectors), part, parts)
    for p in range(first, last):
        for v in range(vectors):
            units, gate = (p * vectors + v) // gates * lanes, (p * vectors + v) % gates
            width, row = max(0, min(lanes, H - units)), gate * H + units
            blocks = whole if width == lanes else 0
            for r in range(0, blocks, lanes):
                _transpose_block(out, p * k + r, v * lanes, W, row, r)
            for r in range(blocks, k):
                to = out[p * k + r][v * lanes : (v + 1) * lanes]
                zero_row(to)
                for u in range(width):
                    to[u] = W[row + u, r]


@cpu_kernel()
def pack_units_transposed(out, W, gates, turn, step, part, parts):
    """As `pack_gates_transposed` of W^T; W (gates H, n)."""
    H, n, wide = W.shape[0] // gates, W.shape[1], out.shape[1]
    first, last = share_range(-(-n // wide), part, parts)
    for p in range(first, last):
        width = min(wide, n - p * wide)
        for gate in range(gates):
            begin = (p * gates + (gate + turn) % gates) * step
            for u in range(step):
                if u >= H:
                    zero_row(out[begin + u])
                elif width == wide:
                    _copy_panel_row(out, begin + u, W, gate * H + u, p * wide)
                else:
                    copy(out[begin + u][:width], W[gate * H + u][p * wide :])


@cpu_kernel()
def add_unit_parts(total, parts, workers, gates, step, turn, share, shares):
    """Some columns of: total (gates H, m) = the sum of parts (workers m, >= gates step)^T, in the order of workers.

    A row of parts is of so many gates, each a `step` from the one before it, `turn` places later than in total. The
    sums are left in the part of the first worker.
    """
    H, m, lanes = total.shape[0] // gates, total.shape[1], lanes_of(total.dtype.type(0))
    whole = H // lanes * lanes
    first, last = share_range(-(-m // lanes), share, shares)
    for begin in range(first * lanes, min(m, last * lanes), lanes):
        end = min(m, begin + lanes)
        for i in range(begin, end):
            sums = parts[i]
            for worker in range(1, workers):
                part = parts[worker * m + i]
                for j in range(sums.size):
                    sums[j] += part[j]
        for gate in range(gates):
            at, blocks = (gate + turn) % gates * step, whole if end - begin == lanes else 0
            for u in range(0, blocks, lanes):
                _transpose_block(total, gate * H + u, begin, parts, begin, at + u)
            for u in range(blocks, H):
                for i in range(begin, end):
                    total[gate * H + u, i] = parts[i, at + u]
