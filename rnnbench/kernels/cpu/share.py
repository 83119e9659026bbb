"""How work is split: how many workers are worth waking, and which part each of them has."""

from __future__ import annotations

from rnnbench.kernels.cpu.compiling import kernel


@kernel()
def workers_for(work, least, n, most):
    """How many workers, 1 to `most`, for `work` of which each is to have `least`, in n parts that cannot be cut."""
    return max(1, min(most, work // least, n))


@kernel()
def share(n, worker, workers):
    """Parts [lo, hi) of n for one worker: all of one size, or of sizes that differ by one."""
    return n * worker // workers, n * (worker + 1) // workers
