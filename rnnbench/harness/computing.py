"""What NumPy and our kernels compute with on this machine, asked of their workers: BLAS, OpenMP, LLVM."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from rnnbench.harness.worker_client import WorkerFailure
from rnnbench.harness.worker_pool import WorkerPool

ALWAYS_THERE = ("numpy", "numba")  # they need no extra
TIMEOUT = 60.0


def computing(threads: int) -> dict[str, Any]:
    """Backend -> what its worker says of itself; one that does not start is left out. Takes a second."""
    with tempfile.TemporaryDirectory() as folder:
        pool = WorkerPool(ALWAYS_THERE, Path(folder), threads, TIMEOUT, None)
        try:
            for name in ALWAYS_THERE:
                with suppress(WorkerFailure):
                    pool.worker(name)
        finally:
            pool.kill()
    return pool.libraries
