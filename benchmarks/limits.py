"""How near passes of `numba` are to what this machine can do: `python benchmarks/limits.py [CELL ...]`.

For each network what a pass takes by all threads, and its limit: products at the peak, or at the rate that our tile has
with all that it reads in the first cache, which is the clock that products of random numbers leave; the gates of one
worker, timed as its steps with products of k = 1; Adam; an empty call. Then products by themselves. Run it alone.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numba
import numpy as np
from numba import types

import kernel_calls
from rnnbench import workloads
from rnnbench.backends.numba import NumbaBackend, NumbaSession, numba_threads
from rnnbench.cells import CELLS
from rnnbench.data import Data
from rnnbench.kernels.cpu import peak, simd
from rnnbench.kernels.cpu.compiling import native
from rnnbench.kernels.cpu.flush import restore, start_flushing
from rnnbench.kernels.cpu.layer_forward import forward_steps
from rnnbench.kernels.cpu.pass_record import FORWARD, PassRecordType, aligned
from rnnbench.model import DType, Problem
from rnnbench.params import init_params
from rnnbench.workloads.base import Source
from rnnbench.workloads.made_up import made_up

NETWORKS = {
    "imdb-50": {"V": 10_000, "E": 2, "H": 32, "T": 50, "B": 32},
    "imdb-200": {"V": 10_000, "E": 128, "H": 128, "T": 200, "B": 32},
    "H 256": {"V": 20_000, "E": 64, "H": 256, "T": 120, "B": 64},
}
SECONDS = 0.3


def best_of(call: Callable[[], object]) -> float:
    """Seconds of a call at best: a limit is what is possible, and others on the machine only hide it."""
    call()
    end, times = time.perf_counter() + SECONDS, []
    while time.perf_counter() < end or len(times) < 5:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)


def product(m: int, k: int, n: int) -> float:
    """FLOP/s of (m, k) (k, n) by one thread, random numbers, the same again and again."""
    rng = np.random.default_rng(0)
    A, out = (aligned((m, simd.row_step(width, np.float32)), np.float32) for width in (k, n))
    A[:, :k] = rng.standard_normal((m, k))
    W, times = kernel_calls.packed(rng.standard_normal((k, n)).astype(np.float32)), max(1, 10**8 // (2 * m * k * n))
    bias = aligned((simd.padded(n, np.float32),), np.float32)
    return 2 * m * k * n * times / best_of(lambda: kernel_calls.affine(out, bias, A, W, m, n, k, times))


def session_of(cell: str, sizes: dict[str, int]) -> NumbaSession:
    """Rows shaped as reviews, or, of a vocabulary that these do not have, made up."""
    shaped = workloads.get("imdb-synthetic-200")
    T, B = sizes["T"], sizes["B"]
    model = replace(shaped.model, cell=cell, **{name: sizes[name] for name in ("V", "E", "H")})
    w = shaped if model.V == shaped.model.V else made_up(model, B, T)
    rows = w.load(Source(T=T)).train
    problem = Problem(w.name, DType.FLOAT32, model, w.train, B, T, None)
    made = NumbaBackend().prepare(problem, init_params(model, w.init, 0), Data(rows.inputs[:B], rows.targets[:B]))
    assert isinstance(made, NumbaSession)
    return made


def _steps(c):
    mode = start_flushing(True)
    forward_steps(c, 0, c.b // c.workers, 0, c.T, 0)
    restore(mode)


def main() -> None:
    """Print it all."""
    kernel_calls.ready()
    threads = numba_threads()
    best = 0.0
    for _ in range(300):
        begin = time.perf_counter()
        operations = peak.trial(np.float32, 100_000)
        best = max(best, operations / (time.perf_counter() - begin))
    with ThreadPoolExecutor(threads) as pool:  # all at once, as in a pass
        clock = statistics.mean(pool.map(lambda _: product(30, 96, 64), range(threads)))
    print(
        f"one thread: peak {best / 1e9:.0f} GFLOP/s, products in the first cache {clock / 1e9:.0f}; {threads} threads"
    )
    print("ms of a pass, at best: it takes; limit at the peak, at that clock; of that gates, optimizer, empty call")
    number = numba.float32
    steps = native(types.void(PassRecordType(number)), _steps)
    for cell in sys.argv[1:] or CELLS:
        G = len(CELLS[cell].gates)
        for name, sizes in NETWORKS.items():
            session = session_of(cell, sizes)
            fields, T, B, GH = session.record.fields, sizes["T"], sizes["B"], G * sizes["H"]
            empty = best_of(partial(session.runner.run, FORWARD, session.rows[:0]))
            found = {"train step": best_of(session.train_step), "forward": best_of(session.forward)}
            unique = int(fields["unique_n"][0]) if not fields["can_own_tokens"][0] else B * T
            rows = unique if fields["gathers"][0] else B * T
            fields["H"][0] = 1  # products of k = 1: what is left of a step is its gates
            gates = best_of(partial(kernel_calls.enter, steps, session.record.address, 1))
            fields["H"][0] = sizes["H"]
            rule = {"adam": 1, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "learning_rate": 1e-3}
            _, update_all = kernel_calls.updates(np.ones(int(fields["P"][0]), np.float32), 1, **rule)
            also = {"train step": best_of(update_all) / threads, "forward": 0.0}
            once, inputs = 2 * GH * sizes["H"] * T * B, 2 * GH * sizes["E"]
            work = {"train step": 3 * once + inputs * (rows + 2 * unique), "forward": once + inputs * rows}
            for pass_, seconds in found.items():
                at = [work[pass_] / threads / rate + gates + also[pass_] + empty for rate in (best, clock)]
                shown = " ".join(f"{x * 1e3:.3f}" for x in (seconds, *at, gates, also[pass_], empty))
                print(f"{cell} {name} {pass_}: {shown}")
        if G > 1:
            for H in (64, 128, 256):
                rates = [product(m, k, n) for m, k, n in ((16, H, G * H), (16, G * H, H))]
                shares = ", ".join(f"{r / best:.0%} of peak, {r / clock:.0%} of that clock" for r in rates)
                print(f"{cell} H {H}, 16 rows (B 32), forward and back: {shares}")


if __name__ == "__main__":
    main()
