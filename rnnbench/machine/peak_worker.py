"""The process that measures ceilings, started by `machine.peak`: it answers one request, `peak`.

Each figure is the best of many short trials, a trial being one call in each thread: the work of all over the time from
the first start to the last end.
"""

from __future__ import annotations

import abc
import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import Any

import msgspec
import numpy as np
from threadpoolctl import threadpool_limits

from rnnbench.analysis.roofline import Peak, Rates
from rnnbench.harness.clock import Clock
from rnnbench.harness.worker import serve
from rnnbench.machine.known import known
from rnnbench.model import DType
from rnnbench.params import Array

KERNELS = "rnnbench.kernels.cpu.peak"
TRIAL_SECONDS = 0.002  # long beside the start of a thread's share, short beside a neighbour's turn on the core


class Loops(abc.ABC):
    """What one thread does in a trial. `multiply_adds` returns operations done, the others bytes moved."""

    method: str
    MIN_UNITS: int  # units of multiply-adds that take well under a trial

    @abc.abstractmethod
    def multiply_adds(self, dtype: str, n: int) -> int:
        """`n` units of multiply-adds."""

    @abc.abstractmethod
    def fill(self, x: Array) -> None:
        """Touch all of x (N,)."""

    @abc.abstractmethod
    def read(self, x: Array) -> int:
        """Read all of x (N,)."""

    @abc.abstractmethod
    def mixed(self, x: Array) -> int:
        """Read and write all of x (N,), but for a few numbers at its end."""


class KernelLoops(Loops):
    """Our kernels, with vectors written by hand."""

    MIN_UNITS = 1 << 16

    def __init__(self, kernels: Any) -> None:
        self.kernels = kernels
        sums, lanes = kernels.numbers("float32"), kernels.lanes("float32")
        self.method = f"{sums // lanes} chains of {32 * lanes}-bit multiply-adds; a sum of an array; STREAM's triad"

    def multiply_adds(self, dtype: str, n: int) -> int:
        return int(self.kernels.trial(dtype, n))

    def fill(self, x: Array) -> None:
        self.kernels.fill(x, x.dtype.type(1))

    def read(self, x: Array) -> int:
        self.kernels.read_all(x)
        return x.nbytes

    def mixed(self, x: Array) -> int:
        out, a, b = np.split(x[: x.size // 3 * 3], 3)
        self.kernels.triad(out, a, b, x.dtype.type(0.5))
        return 3 * out.nbytes


class NumpyLoops(Loops):
    """Where our kernels have no vectors by hand: what NumPy and its BLAS reach, perhaps less than the peak."""

    method = "NumPy, for want of vectors: np.matmul of 256 x 256; np.sum; np.copyto"
    SIZE, MIN_UNITS = 256, 1

    def __init__(self) -> None:
        self.matrices = {str(d): np.full((self.SIZE, self.SIZE), 1.0, str(d)) for d in DType}

    def multiply_adds(self, dtype: str, n: int) -> int:
        a = self.matrices[dtype]
        out = np.empty_like(a)
        for _ in range(n):
            np.matmul(a, a, out=out)
        return int(2 * n * self.SIZE**3)

    def fill(self, x: Array) -> None:
        x.fill(1)

    def read(self, x: Array) -> int:
        x.sum()
        return x.nbytes

    def mixed(self, x: Array) -> int:
        to, source = np.split(x[: x.size // 2 * 2], 2)
        np.copyto(to, source)
        return 2 * to.nbytes


def best(
    work: Callable[[int], int], pool: ThreadPoolExecutor, threads: int, seconds: float,
    clock: Clock = time.perf_counter_ns,
) -> float:  # fmt: skip
    """The most work a second of any trial, of at least three. `work` gets a thread's number and returns what it did."""

    def share(i: int) -> tuple[int, int, int]:
        start = clock()
        return start, work(i), clock()

    highest, trials, end = 0.0, 0, clock() + int(seconds * 1e9)
    while trials < 3 or clock() < end:
        starts, done, ends = zip(*pool.map(share, range(threads)), strict=True)
        highest = max(highest, sum(done) * 1e9 / max(1, max(ends) - min(starts)))
        trials += 1
    return highest


def trial_length(loops: Loops, dtype: str) -> int:
    """How many units of multiply-adds a trial needs to last long enough; compiles on the way."""
    n = loops.MIN_UNITS
    while _quickest(partial(loops.multiply_adds, dtype, n)) < TRIAL_SECONDS:
        n *= 2
    return n


def _quickest(call: Callable[[], object], tries: int = 5) -> float:
    """Seconds of the quickest of a few calls: one that was interrupted says nothing."""
    took = []
    for _ in range(tries):
        start = time.perf_counter()
        call()
        took.append(time.perf_counter() - start)
    return min(took)


def _fill(loops: Loops, memory: Array, threads: int) -> list[Array]:
    """Equal parts of the memory (N,), each touched by a thread of its own."""
    parts = np.split(memory[: memory.size // threads * threads], threads)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(loops.fill, parts))
    return parts


def rates(loops: Loops, dtype: str, threads: int, memory: Array, seconds: float) -> Rates:
    """The ceilings of so many threads, each with its own part of the memory (N,)."""
    n = trial_length(loops, dtype)
    parts = _fill(loops, memory, threads)
    with ThreadPoolExecutor(threads) as pool:
        loops.read(parts[0][:99])  # compile outside the trials
        loops.mixed(parts[0][:99])
        return Rates(
            threads,
            flops=best(lambda i: loops.multiply_adds(dtype, n), pool, threads, seconds),
            read=best(lambda i: loops.read(parts[i]), pool, threads, seconds),
            mixed=best(lambda i: loops.mixed(parts[i]), pool, threads, seconds),
        )


def ceilings(loops: Loops, dtype: str, threads: Sequence[int], memory: Array, seconds: float) -> Iterator[Rates]:
    """For each number of threads, fewest first. More threads reach no less: they may leave the work to fewer."""
    flops = read = mixed = 0.0
    _fill(loops, memory, max(threads))  # the system gives memory where it is first touched, for seconds by one thread
    for number in threads:
        found = rates(loops, dtype, number, memory, seconds)
        flops, read, mixed = max(flops, found.flops), max(read, found.read), max(mixed, found.mixed)
        yield Rates(number, flops, read, mixed)


def loops_here() -> Loops:
    """Our kernels where they have vectors, else NumPy."""
    kernels = importlib.import_module(KERNELS)
    return KernelLoops(kernels) if kernels.MEASURES_PEAK else NumpyLoops()


class Ceilings:
    """The operation of this process."""

    def peak(self, dtypes: Sequence[str], threads: Sequence[int], size: int, seconds: float) -> dict[str, Any]:
        """A `Peak` over so many bytes of memory, each figure by so many seconds of trials."""
        loops = loops_here()
        found = {}
        with known(threadpool_limits, limits=1, user_api="blas") or nullcontext():  # the threads are ours
            for dtype in dtypes:
                memory = np.empty(size // np.dtype(dtype).itemsize, dtype)
                found[DType(dtype)] = tuple(ceilings(loops, dtype, threads, memory, seconds))
        method = f"{loops.method}; memory over {size / 2**20:.0f} MiB"
        return {"peak": msgspec.to_builtins(Peak(method, found))}


if __name__ == "__main__":
    serve(Ceilings)
