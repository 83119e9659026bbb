"""What is timed: cases by group, for pytest-benchmark and for comparing two commits.

A stable case asks for nothing but the protocol of backends, so older commits can answer it too. The others call kernels
as they are now.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rnnbench.backends.base import Session

HERE = Path(__file__).resolve().parent
WORKLOADS = ("parity", "running-parity", "imdb-synthetic-50", "imdb-synthetic-200")
PASSES = ("forward", "gradient", "train_step", "epoch")
BATCHES = 8
LIMIT = 3e-6  # relative error of a kernel in float32 that sums up to 6400 products, by norm


@dataclass(frozen=True)
class Work:
    """A case made ready. Each call does the work `times` times.

    `before` stands outside the clock and is told the number of the call; call 0 starts from the beginning. `answer`
    gives what the last call computed, as arrays or numbers by name; `expected` the same by NumPy in float64, where
    there is something to compare with. `flops` and `bytes` are of one time; 0 where nobody counts them.
    """

    call: Callable[[], object]
    before: Callable[[int], None] = lambda number: None
    answer: Callable[[], Mapping[str, Any]] = dict
    expected: Callable[[], Mapping[str, Any]] = dict
    times: int = 1
    flops: float = 0.0
    bytes: float = 0.0
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """A name and the way to make it ready. `once` is for a call so long and cold that one is a turn."""

    group: str
    name: str
    build: Callable[[], Work]
    stable: bool = True
    once: bool = False

    def __str__(self) -> str:
        return f"{self.group} {self.name}"


def check(work: Work) -> None:
    """Compare what was just computed with NumPy in float64; without that, all of it must be finite. AssertionError."""
    import numpy as np

    answer, expected = work.answer(), work.expected()
    missing = expected.keys() - answer.keys()
    assert not missing, f"no answer for {', '.join(sorted(missing))}"
    for name, got in answer.items():
        assert np.isfinite(got).all(), f"{name} is not finite"
        if name in expected:
            ref = expected[name]
            error = np.linalg.norm(got - ref) / np.linalg.norm(ref)
            assert error <= LIMIT, f"{name} is off by {error:.1e}; the limit is {LIMIT:.0e}"


@cache
def session_of(workload: str, backend: str = "numba") -> Session:
    """A backend with a workload's first batches staged, float32, at its initial parameters."""
    from rnnbench import backends, workloads
    from rnnbench.model import DType, Problem
    from rnnbench.params import init_params
    from rnnbench.workloads.base import Source

    try:
        from rnnbench.data import Data
    except ImportError:  # a commit from before it was a module
        from rnnbench.backends.base import Data  # type: ignore[attr-defined]

    w = workloads.get(workload)
    train = w.load(Source(T=w.T)).train
    rows = BATCHES * w.B
    problem = Problem(w.name, DType.FLOAT32, w.model, w.train, w.B, w.T, None)
    data = Data(train.inputs[:rows], train.targets[:rows])
    return backends.load(backend).prepare(problem, init_params(w.model, w.init, 0), data)


def pass_of(workload: str, name: str, backend: str = "numba") -> Work:
    """A pass of a workload, going round its batches."""
    import numpy as np

    from rnnbench import workloads

    session = session_of(workload, backend)
    order = np.random.default_rng(0).permutation(BATCHES * workloads.get(workload).B)
    call: Callable[[], None] = partial(session.train_epoch, order) if name == "epoch" else getattr(session, name)

    def before(number: int) -> None:
        if number == 0:
            session.reset()
        session.select(number % BATCHES)

    def answer() -> dict[str, Any]:
        outputs = session.fetch()
        return {"loss": outputs.loss, **outputs.grads, **outputs.params}

    return Work(call, before, answer)


def _start(code: str) -> Work:
    """A process of its own, from start to end."""
    return Work(partial(subprocess.run, [sys.executable, "-c", code], check=True, cwd=HERE, stdin=subprocess.DEVNULL))


def passes() -> list[Case]:
    """Whole passes of the workloads."""
    return [Case("passes", f"{w} {p}", partial(pass_of, w, p)) for w in WORKLOADS for p in PASSES]


def starts() -> list[Case]:
    """What every command pays before it does anything, and what kernels cost that are compiled already."""
    load = "from cases import session_of; session_of('parity').train_step()"
    return [
        Case("start", "import rnnbench.cli", partial(_start, "import rnnbench.cli"), once=True),
        Case("start", "first train step, kernels from the disk", partial(_start, load), once=True),
    ]


def facts() -> dict[str, Any]:
    """What stands behind the numbers: the fingerprint of a run, and how the kernels of this process are configured."""
    import numba

    from rnnbench.backends.numba import numba_threads
    from rnnbench.kernels.cpu import compiling, flush, simd
    from rnnbench.machine.fingerprint import fingerprint

    kernels = {
        "threads": numba_threads(),
        "register_bits": 8 * simd.register_bytes(),
        "tile": f"{simd.TILE_ROWS} rows x {simd.panel_vectors()} vectors",
        "explicit_vectors": simd.EXPLICIT,
        "subnormals": "flushed" if flush.CAN_FLUSH else "kept",
        "sources": compiling.source_digest(),
        "cpu_name": numba.config.CPU_NAME or "host",
        "cpu_features": numba.config.CPU_FEATURES or "host",
    }
    return {**fingerprint(), "kernels": kernels}


def all_cases() -> list[Case]:
    """Every case, by group."""
    from kernel_cases import optimizer, pointwise, products

    return [*products(), *pointwise(), *optimizer(), *passes(), *starts()]
