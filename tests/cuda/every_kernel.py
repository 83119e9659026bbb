"""Run every CUDA kernel once: `compute-sanitizer --tool racecheck python tests/cuda/every_kernel.py`.

Small batches that cross the edges of blocks, at the sizes of the tests and, on a device, at the usual ones too. A
kernel that nothing here reaches is an error.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this tree's rnnbench, whichever is installed

from rnnbench import kernels
from rnnbench.backends.cuda import CudaBackend
from rnnbench.backends.cuda_graph import CudaGraphBackend
from rnnbench.kernels.cuda import device
from rnnbench.kernels.cuda.plan import LaunchPlan, RegimeKind
from rnnbench.kernels.cuda.regimes import fitting
from rnnbench.model import DType, Head, Loss, Optimizer, Train, Truncation

LOSSES = list(Loss)
UPDATES = (Train(clip_norm=0.05), Train(optimizer=Optimizer.SGD, clip_value=0.01))
GATED = ("gru", "lstm")
WIDTHS = (20, 128, 200, 256, 512, 1100)  # H on a device: each regime of the recurrence


def factories() -> Iterator[tuple[str, Any]]:
    """Name and function of all that make kernels, by size; device functions too."""
    package = importlib.import_module(f"{kernels.__name__}.cuda")
    for found in pkgutil.iter_modules(package.__path__):
        if found.name in ("device", "launch"):  # what they keep is no kernel
            continue
        module = importlib.import_module(f"{package.__name__}.{found.name}")
        for name, value in vars(module).items():
            if hasattr(value, "cache_info") and value.__module__ == module.__name__:
                yield f"{found.name}.{name}", value


def backends_of(plans: Iterable[LaunchPlan]) -> list[CudaBackend]:
    """One for each plan; the graphs with the first."""
    first, *rest = plans
    return [CudaBackend(first), CudaGraphBackend(first), *map(CudaBackend, rest)]


def run_all(plans: Iterable[LaunchPlan], widths: tuple[int, ...]) -> list[str]:
    """Launch everything with each plan and width, each loss with the first, and once in each of their regimes a
    cell with gates, both directions and rows that end; the names of kernels that were not made.
    """
    from tests.helpers import random_data, random_params, small_problem

    for _, factory in factories():
        factory.cache_clear()
    gated = set[RegimeKind]()
    for number, (backend, H) in enumerate((backend, H) for backend in backends_of(plans) for H in widths):
        cells = ["rnn"] * (len(LOSSES) if number == 0 else len(UPDATES))
        other = GATED[len(gated) % 2]
        regime = next(fitting(backend.plan, H, 5, "float32", device.room(), other), None)
        if regime and regime.kind not in gated:
            cells.append(other)
            gated.add(regime.kind)
        for case, (cell, loss) in enumerate(zip(cells, cycle(LOSSES))):
            turn = number + case
            head = list(Head)[(turn // 2 if cell == "rnn" else len(gated)) % 2]
            problem = small_problem(
                B=5, T=3, E=3, H=H, O=2, V=(11, None)[turn % 2], head=head, loss=loss,
                dtype=DType.FLOAT32, train=UPDATES[case % 2], truncation=(None, Truncation(2, 1))[case % 2], cell=cell,
                bidirectional=cell != "rnn", mean_length=None if cell == "rnn" else 1.5,
            )  # fmt: skip
            data = random_data(problem)
            session = backend.prepare(problem, random_params(problem), data)
            session.train_step()
            if case == 0:
                session.train_step()  # a captured one is replayed
                session.train_epoch(np.arange(problem.B + 1))  # a short batch
                session.predict(data.inputs, data.lengths)
            session.synchronize()
            session.close()
    return [name for name, factory in factories() if factory.cache_info().currsize == 0]


def main() -> int:
    """Exit code 1 for a kernel that was not run, 3 where there is no device."""
    from tests.cuda.conftest import REGIMES, WIDE

    if reason := device.unusable(device.probe()):
        print(f"Error: {reason}", file=sys.stderr)
        return 3
    left = set(run_all([*REGIMES.values(), *WIDE.values()], (6,))) & set(run_all([LaunchPlan()], WIDTHS))
    if left:
        print(f"Error: not run: {', '.join(sorted(left))}; add what reaches them", file=sys.stderr)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
