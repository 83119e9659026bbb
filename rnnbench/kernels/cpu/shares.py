"""Work cut into shares: how many are worth it, which part each is, and the stage that lets threads take them."""

from __future__ import annotations

import numpy as np

from rnnbench.kernels.cpu.calls import call_number, call_share, call_team, symbol_kernel
from rnnbench.kernels.cpu.compiling import NONE, cpu_kernel
from rnnbench.kernels.cpu.pass_record import address_of
from rnnbench.kernels.cpu.thread_pool import finish_share, open_stage, take_share, wait_for_shares

# What a share is of: NumPy integers, for Numba would compile a kernel again for each literal. From INPUTS on they are
# stages within the one share of ROWS, where rows are few and weights are large.
PREPARE, PROJECT, ROWS, TOKENS, PARTS, UPDATE, BLOCKS, INPUTS, STEP, STEP_BACK, SUMS, INPUTS_BACK = (
    np.int64(kind) for kind in range(12)
)


@cpu_kernel()
def workers_for(work, min_work, n, limit):
    """How many workers, 1 to `limit`, for `work` of which each is to have `min_work`, in n parts that cannot be cut."""
    return max(1, min(limit, work // min_work, n))


@cpu_kernel()
def share_range(n, worker, workers):
    """Parts [lo, hi) of n for one worker: all of one size, or of sizes that differ by one."""
    return n * worker // workers, n * (worker + 1) // workers


@symbol_kernel
def stage(c, kind, shares):
    """All shares of a stage, done when it returns. What a share needs to know stands in the record: c.stage_*."""
    c.stage, c.shares = kind, shares
    # One share, or no thread to help: on the spot, for opening a stage costs more
    if shares == 1 or c.pool == 0:
        for number in range(shares):
            call_share(c.do_share, address_of(c), 0, number)
        return
    if c.team != 0:  # threads of OpenMP's, which call `take_all`
        open_stage(c.pool, shares, c.workers)
        call_team(c.team, c.take_all, address_of(c), min(shares, c.workers))
        return
    # Else the calling thread takes shares as the others do, and waits at the end for those that others took
    open_stage(c.pool, shares, c.workers)
    number = take_share(c.pool, NONE)
    while number >= 0:
        call_share(c.do_share, address_of(c), 0, number)
        finish_share(c.pool)
        number = take_share(c.pool, NONE)
    wait_for_shares(c.pool, shares)


def take_all(c):
    """Take shares until none is left, in one thread of a team of OpenMP's."""
    thread = call_number(c.team_thread)
    number = take_share(c.pool, thread)
    while number >= 0:
        call_share(c.do_share, address_of(c), thread, number)
        number = take_share(c.pool, thread)
