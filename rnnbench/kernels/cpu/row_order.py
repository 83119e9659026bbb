"""Rows with lengths: sorted, the longest first, and dealt to workers, so that no step computes a row that has ended.

Rows in one order and answers in another: row r of the pass is row rows[r] of the data, and the answers of row seats[r].
Without lengths seats[r] is r.
"""

from __future__ import annotations

from rnnbench.kernels.cpu.calls import symbol_kernel
from rnnbench.kernels.cpu.shares import share_range


@symbol_kernel
def count_steps(c):
    """Set `steps`, the steps that the rows at hand take, all together."""
    c.steps = c.b * c.T
    if c.has_lengths:
        total = 0
        for i in range(c.b):
            total += c.lengths[c.rows[i]]
        c.steps = total


@symbol_kernel
def sort_rows(c, shares):
    """Write `sorted_rows`, which `rows` is from now on, and `seats`: b rows, the longest first, dealt to `shares`.

    Rows that are as long as each other keep their order, so that the same batch is dealt alike each time.
    """
    T, b, lengths, rows, seats, by_length, firsts = c.T, c.b, c.lengths, c.rows, c.seats, c.by_length, c.firsts
    # A counting sort: how many rows are longer than L, then one after the other
    for L in range(T + 1):
        firsts[L] = 0
    for i in range(b):
        firsts[lengths[rows[i]]] += 1
    longer = 0
    for L in range(T, -1, -1):
        count = firsts[L]
        firsts[L] = longer
        longer += count
    for i in range(b):
        L = lengths[rows[i]]
        by_length[firsts[L]] = i
        firsts[L] += 1
    # Dealt to and fro, each share as many as `share_range` gives it: sums of lengths then differ by one length at most
    dealt = 0
    for deal in range(-(-b // shares)):
        for turn in range(shares):
            lo, hi = share_range(b, turn if deal % 2 == 0 else shares - 1 - turn, shares)
            if lo + deal < hi:
                seats[lo + deal] = by_length[dealt]
                dealt += 1
    for r in range(b):
        c.sorted_rows[r] = rows[seats[r]]
    c.rows = c.sorted_rows


@symbol_kernel
def count_rows_of_steps(c, lo, b, r):
    """Write `rows_of_steps` of a worker's rows r to r + b, from lo on: see `layout.rows_before`."""
    before, at, taking = c.rows_of_steps, lo * (c.T + 2), b
    before[at], before[at + 1] = -b, 0
    for t in range(c.T):
        while taking > 0 and c.lengths[c.rows[r + taking - 1]] <= t:
            taking -= 1
        before[at + t + 2] = before[at + t + 1] + taking
