"""Kernels as a benchmark calls them from Python: each repeated inside one compiled call."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import types

from rnnbench.kernels.cpu import calls, pointwise, products, simd
from rnnbench.kernels.cpu.compiling import cpu_kernel, native
from rnnbench.kernels.cpu.optimizer import update_range
from rnnbench.kernels.cpu.pass_record import Array, PassRecord, PassRecordType, aligned


def ready() -> None:
    """Compile what kernels call by a symbol, or load it from the disk cache: before any call of a product."""
    for _ in calls.make_ready(np.float32):
        pass


def packed(W: Array) -> Array:
    """W (k, n) in panels."""
    out = aligned((simd.panels(W.shape[1], W.dtype) * W.shape[0], simd.panel_width(W.dtype)), W.dtype)
    products.pack(out, W, 0, 1)
    return out


@cpu_kernel()
def affine(out, bias, A, W, m, n, k, times):
    for _ in range(times):
        products.affine(out, 0, bias, A, 0, W, m, 0, n, k)


@cpu_kernel()
def gathered_product(out, table, index, A, W, m, n, k, times):
    for _ in range(times):
        products.gathered_product(out, 0, table, index, 0, A, 0, W, m, 0, n, k)


@cpu_kernel()
def through_tanh(out, bias, A, W, m, n, k, h, times):
    for _ in range(times):
        products.through_tanh(out, 0, bias, A, 0, W, m, 0, n, k, h, 0)


@cpu_kernel()
def outer_products(out, zeros, A, B, m, n, k, times):
    for _ in range(times):
        products.outer_products(out, 0, True, zeros, A, 0, B, 0, m, 0, n, k)


@cpu_kernel()
def tanh_rows(h, rows, n):
    for start in range(0, h.shape[0], rows):
        pointwise.tanh_rows(h, start, rows, 0, n)


@cpu_kernel()
def sigmoid_rows(h, rows, n):
    for start in range(0, h.shape[0], rows):
        pointwise.sigmoid_rows(h, start, rows, 0, n)


def _update_all(c):
    update_range(c, 0, c.P)


@cpu_kernel()
def enter(function, record_at, times):
    for _ in range(times):
        calls.call_whole(function, record_at)


def updates(grads: Array, times: int, **rule: float) -> tuple[dict[str, Array], Callable[[], None]]:
    """`params`, `grads`, `m` and `v` (P,), and a call that updates all parameters `times` times, as in step 1."""
    ready()
    P = grads.size
    values = {"P": P, "step": 1, "scale": 1.0, "clip_value": math.inf, "clip_norm": math.inf, **rule}
    arrays = {name: aligned((P,), np.float32) for name in ("params", "grads", "m", "v")}
    arrays["grads"][:] = grads
    record = PassRecord(values, arrays)
    number: Any = numba.float32
    function = native(types.void(PassRecordType(number)), _update_all)
    return record.arrays, lambda: enter(function, record.address, times)
