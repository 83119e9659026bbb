"""Made-up records of a believable run, for looking at the report and for testing it. Nothing here was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rnnbench.contract import Contract
from rnnbench.model import USUAL_PASSES, Case, DType, Head, Loss, Model, Pass, Train, Truncation
from rnnbench.records.record import (
    CheckRecord,
    Costs,
    Epoch,
    ErrorOf,
    MemoryRecord,
    Mode,
    Record,
    Seeds,
    Status,
    TrainedEpoch,
    TrainingRecord,
    TrialRecord,
    TurnRecord,
)

BACKENDS = ("numpy", "numba", "torch", "torch+flush", "torch+compile", "tensorflow", "tensorflow+xla", "jax")
SLOWNESS = dict(zip(BACKENDS, (14.0, 1.0, 9.0, 4.1, 3.6, 7.3, 6.6, 3.3), strict=True))
IMPORT_S = dict(zip(BACKENDS, (0.08, 0.6, 1.9, 1.9, 2.1, 4.8, 4.8, 0.9), strict=True))
COMPILE_S = dict(zip(BACKENDS, (0.0, 2.9, 0.02, 0.02, 21.0, 1.1, 4.0, 0.7), strict=True))
FLUSHES = ("numba", "torch+flush", "torch+compile", "tensorflow", "tensorflow+xla", "jax")
PASS_WORK = {Pass.FORWARD: 0.3, Pass.GRADIENT: 0.9, Pass.TRAIN_STEP: 1.0, Pass.EPOCH: 0.95}
STEP_S = {"parity": 9e-6, "imdb-50": 2.1e-4, "imdb-200": 8.7e-3, "imdb-synthetic-200": 8.9e-3, "running-parity": 6e-4}
SIZES = {"parity": (5, 25), "imdb-50": (50, 782), "imdb-200": (200, 625), "running-parity": (100, 25)}
ARRAYS = ("loss", "logits", "state", "grad embedding", "grad W_hh", "grad b_h", "param W_hh", "accuracy")
Failures = Mapping[tuple[str, str], tuple[Status, str]]  # (workload or "*", backend) -> what happened


@dataclass(frozen=True)
class Fake:
    """What `write_report` and `render` take."""

    records: list[Record]
    epochs: list[Epoch]
    machine: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)


def case(
    workload: str = "imdb-50",
    pass_: Pass = Pass.TRAIN_STEP,
    dtype: DType = DType.FLOAT32,
    truncation: Truncation | None = None,
) -> Case:
    T, batches = SIZES.get(workload.replace("synthetic-", ""), (50, 782))
    model = Model(V=10_000, E=2, H=32, O=1)
    if workload == "running-parity":
        model = Model(E=1, H=32, O=1, head=Head.EVERY, loss=Loss.BINARY_CROSS_ENTROPY)
    steps = batches if pass_ is Pass.EPOCH else 1
    return Case(workload, dtype, model, Train(), 32, T, truncation, pass_=pass_, steps=steps)


def source_of(workload: str) -> str:
    if "synthetic" in workload:
        return "synthetic stand-in, seed 0"
    return "generated, seed 0" if "parity" in workload else "IMDB (Maas et al., 2011), from the cache"


def record(case: Case, backend: str, samples_s: Sequence[float] = (), **fields: Any) -> TurnRecord:
    """A record of one turn; samples in seconds, everything else by keyword."""
    samples = tuple(round(s * 1e9) for s in samples_s)
    return TurnRecord(**given(case, backend) | {"launch": 0, "round": 0, "samples_ns": samples} | fields)


def check(case: Case, backend: str, **fields: Any) -> CheckRecord:
    """A record of one check."""
    return CheckRecord(**given(case, backend) | {"launch": 0} | fields)


def memory(case: Case, backend: str, **fields: Any) -> MemoryRecord:
    return MemoryRecord(**given(case, backend) | fields)


def trial(case: Case, backend: str, **fields: Any) -> TrialRecord:
    """A turn of a trial."""
    return TrialRecord(**given(case, backend) | {"launch": 0} | fields)


def training(case: Case, backend: str, seed: int, epochs: Sequence[TrainedEpoch], **fields: Any) -> TrainingRecord:
    """A training to 80 %; `start`, `import_`, `read` and `prepare` in seconds, everything else by keyword."""
    parts = {
        f"{name.rstrip('_')}_ns": round(fields.pop(name, 0.0) * 1e9) for name in ("start", "import_", "read", "prepare")
    }
    ended_ns = epochs[-1].at_ns if epochs else 0
    made = {
        "until": 0.8,
        "max_epochs": 5,
        "epochs": tuple(epochs),
        "ended_ns": ended_ns,
        "threads": 2,
        "others_share": 0.0,
    }
    return TrainingRecord(**given(case, backend) | {"seeds": Seeds(seed, 0, seed)} | made | parts | fields)


def end_of_epoch(at: float, accuracy: float, train: float = 0.5) -> TrainedEpoch:
    """An epoch that ended at `at` seconds and took `train`."""
    return TrainedEpoch(round(at * 1e9), round(train * 1e9), 10**8, 0.5, accuracy)


def given(case: Case, backend: str) -> dict[str, Any]:
    return {
        "case": case,
        "backend": backend,
        "run_id": "fake",
        "status": Status.OK,
        "mode": Mode.DEFAULT,
        "seeds": Seeds(0, 0, 0),
        "data_source": source_of(case.workload),
    }


def failure(case: Case, backend: str, status: Status, reason: str, **fields: Any) -> Record:
    """A check that failed, or a turn where a round is given."""
    return (record if "round" in fields else check)(case, backend, status=status, reason=reason, **fields)


def contract(backend: str) -> Contract:
    timed = {str(p): f"{backend}: its own {p}" for p in Pass}
    return Contract(2, "flushed" if backend in FLUSHES else "kept", False, timed)


def _errors(rng: np.random.Generator, dtype: DType, backend: str, wrong: bool) -> dict[str, ErrorOf]:
    limit = 1e-5 if dtype is DType.FLOAT32 else 1e-12
    errors = {name: ErrorOf(float(limit * 10 ** rng.uniform(-3, -0.7)), limit) for name in ARRAYS}
    errors["accuracy"] = ErrorOf(0.0, limit)
    if wrong:
        errors["grad W_hh"] = ErrorOf(0.31, limit)
        errors["grad b_h"] = ErrorOf(None, limit)
    return errors


def _costs(case: Case, backend: str, launch: int) -> Costs:
    step = STEP_S.get(case.workload, 1e-3) * SLOWNESS.get(backend, 5.0) * case.steps
    cold = launch == 0 or backend not in ("numba", "torch+compile")
    compile_s = COMPILE_S.get(backend, 1.0) * (1.0 if cold else 0.1)
    nanoseconds = (round(1e9 * s) for s in (IMPORT_S.get(backend, 1.0), 0.05, compile_s + step))
    return Costs(*nanoseconds, cache="cold" if cold else "warm")


def records_of(
    case: Case,
    backend: str,
    rng: np.random.Generator,
    *,
    launches: int = 3,
    rounds: int = 4,
    samples: int = 6,
    mode: Mode = Mode.DEFAULT,
    failed: tuple[Status, str] | None = None,
) -> list[Record]:
    """All rounds of one backend on one case, or its one failure."""
    if failed and failed[0] is not Status.WRONG:
        return [failure(case, backend, *failed, mode=mode)]
    if failed:
        errors = _errors(rng, case.dtype, backend, True)
        return [failure(case, backend, *failed, errors=errors, mode=mode, contract=contract(backend))]
    centre = STEP_S.get(case.workload, 1e-3) * SLOWNESS.get(backend, 5.0) * PASS_WORK[case.pass_] * case.steps
    if case.dtype is DType.FLOAT64:
        centre *= 1.9
    made = []
    for launch in range(launches):
        of_launch = centre * np.exp(rng.normal(0, 0.02))
        errors, costs = _errors(rng, case.dtype, backend, False), _costs(case, backend, launch)
        made.append(
            check(case, backend, launch=launch, errors=errors, costs=costs, mode=mode, contract=contract(backend))
        )
        for turn in range(rounds):
            noise = np.exp(rng.normal(0, 0.02) + rng.normal(0, 0.03, samples + 1) ** 2 * 20)
            noise[0] *= 3
            made.append(
                record(
                    case,
                    backend,
                    of_launch * noise,
                    launch=launch,
                    round=turn,
                    warmup=1,
                    peak_memory_bytes=int(2e8 * SLOWNESS.get(backend, 5.0)),
                    mode=mode,
                )
            )
    return made


def curves(workload: str, backend: str, rng: np.random.Generator, epochs: int = 5) -> list[Epoch]:
    """A believable training; the backends differ a little in the last digits."""
    made = []
    for n in range(epochs + 1):
        loss = 0.69 * 0.72**n + rng.normal(0, 0.002)
        accuracy = min(0.5 + 0.12 * n**0.7, 0.97) + rng.normal(0, 0.002)
        made.append(
            Epoch(
                run_id="fake",
                workload=workload,
                backend=backend,
                dtype="float32",
                seed=0,
                epoch=n,
                epochs=epochs,
                loss=None if n == 0 else loss,
                accuracy=None if n == 0 else accuracy,
                validation_loss=0.69 * 0.8**n + 0.02 * n + rng.normal(0, 0.002),
                validation_accuracy=min(0.5 + 0.1 * n**0.6, 0.81) + rng.normal(0, 0.003),
                seconds=0.0 if n == 0 else 0.16 * SLOWNESS.get(backend, 5.0),
                data_source=source_of(workload),
            )
        )
    return made


def make(
    workloads: Sequence[str] = ("parity", "imdb-50", "imdb-synthetic-200"),
    backends: Sequence[str] = BACKENDS,
    passes: Sequence[Pass] = USUAL_PASSES,
    dtypes: Sequence[DType] = (DType.FLOAT32,),
    truncations: Sequence[Truncation | None] = (None,),
    failures: Failures | None = None,
    mode: Mode = Mode.DEFAULT,
    seed: int = 0,
    **rounds: Any,
) -> Fake:
    """A whole run: every backend on every case, with the failures that are named."""
    rng, failures = np.random.default_rng(seed), failures or {}
    records, epochs = [], []
    for workload in workloads:
        for dtype in dtypes:
            for truncation in truncations:
                for pass_ in passes:
                    asked = case(workload, pass_, dtype, truncation)
                    for name in backends:
                        failed = failures.get((workload, name)) or failures.get(("*", name))
                        records += records_of(asked, name, rng, mode=mode, failed=failed, **rounds)
        for name in backends:
            if not (failures.get((workload, name)) or failures.get(("*", name))):
                epochs += curves(workload, name, rng)
    machine: dict[str, Any] = {"cpu": {"model": "Made-up CPU 9000", "cores": 2}, "os": "Linux 6", "python": "3.11.9"}
    rates = {
        dtype: [{"threads": n, "flops": n * flops, "read": n * 6e9, "mixed": n * 8e9} for n in (1, 2)]
        for dtype, flops in (("float32", 8e10), ("float64", 4e10))
    }
    machine["peak"] = {"method": "made up", "rates": rates}
    machine["libraries"] = {"numpy": "2.4.6", "torch": "2.13.0", "jax": "0.10.2"}
    run = {"run_id": "fake", "mode": str(mode), "command": "python -m rnnbench run", "started": "2026-01-02T03:04:05Z"}
    return Fake(records, epochs, machine, run)


MIXED: Failures = {
    ("*", "tensorflow"): (Status.UNAVAILABLE, "tensorflow not installed; pip install 'rnnbench[tensorflow]'"),
    ("imdb-50", "torch+compile"): (Status.TIMEOUT, "no answer within 120 s; raise --timeout"),
    ("imdb-synthetic-200", "tensorflow+xla"): (Status.CRASHED, "killed by signal 9\nlast line: |x| [red]$y$[/red]"),
    ("parity", "jax"): (Status.WRONG, "error of grad W_hh is 0.31, the limit is 1e-05; 2 of 8 arrays are over"),
}
