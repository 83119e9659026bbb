"""Made-up records of a run and of a sweep with GPU backends. Nothing here was measured, and no such GPU exists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import msgspec
import numpy as np

from rnnbench.contract import CUDA, Contract
from rnnbench.model import Case, DType, Pass
from rnnbench.records.record import DeviceState, Record
from rnnbench.sizes import Sizes, Sweep
from tests.helpers import made_up_problem
from tests.report.fake import Fake, case, check, contract, make, record

GPUS = ("cuda", "torch-cuda", "torch-cuda+tf32", "jax-cuda")
LAUNCH_S = {"cuda": 25e-6, "torch-cuda": 110e-6, "torch-cuda+tf32": 105e-6, "jax-cuda": 60e-6}
STEP_S = {"cuda": 0.7e-6, "torch-cuda": 0.9e-6, "torch-cuda+tf32": 0.7e-6, "jax-cuda": 6e-6}
CPU_RATE = {"numba": 5e10, "torch": 2e10, "jax": 2.5e10}  # operations a second
CPU_CALL_S = {"numba": 8e-6, "torch": 150e-6, "jax": 40e-6}
SWEEP = Sweep(H=(16, 32, 64, 128, 256, 512), B=(1, 8, 32, 128), centre=Sizes(128, 32, 100))
HOT = "power cap"


def state_of(rng: np.random.Generator, hot: bool = False) -> DeviceState:
    mhz = 1500 if hot else 1980
    return DeviceState(
        "Made-up GPU 100", "580.65.06", mhz, 2619, int(rng.integers(38, 52)), float(rng.uniform(90, 310)),
        HOT if hot else "",
    )  # fmt: skip


def contract_of(name: str) -> Contract:
    """With the device of a GPU backend."""
    made = contract(name)
    return replace(made, threads=1, tf32="tf32" in name, device=CUDA) if name in GPUS else made


def seconds_of(asked: Case, name: str) -> tuple[float, float | None]:
    """Wall and device time of a call."""
    H, B, T, work = asked.model.H, asked.B, asked.T, 1 if asked.pass_ is Pass.FORWARD else 3
    flops = 2 * work * B * T * H * (H + asked.model.E)
    if name in CPU_RATE:
        return CPU_CALL_S[name] + flops / CPU_RATE[name], None
    device = work * STEP_S[name] * T * (1 + (H / 300) ** 1.5) + flops / 2e13
    wall = device * 0.97 + LAUNCH_S[name] * (1 if asked.pass_ is Pass.FORWARD else 1.8)
    return asked.steps * wall, None if name == "jax-cuda" else asked.steps * device


def records_of(asked: Case, name: str, rng: np.random.Generator, launches: int = 3) -> list[Record]:
    """The check and two rounds of each launch."""
    wall, device = seconds_of(asked, name)
    common = {"data_source": "made up"}
    made = [check(asked, name, contract=contract_of(name), **common)]
    for launch, turn in product(range(launches), range(2)):
        noise = np.exp(rng.normal(0, 0.02, 6))
        of_device = {}
        if name in GPUS:
            of_device = {
                "device_ns": () if device is None else tuple(round(1e9 * device * x) for x in noise),
                "device_states": (state_of(rng), state_of(rng, hot=name == "jax-cuda" and turn == 1)),
                "peak_device_bytes": 3 << 20,
            }
        made.append(record(asked, name, wall * noise, launch=launch, round=turn, warmup=1, **of_device, **common))
    return made


def make_gpu(
    workloads: Sequence[str] = ("parity", "imdb-200"),
    backends: Sequence[str] = ("numba", "torch", *GPUS),
    passes: Sequence[Pass] = (Pass.FORWARD, Pass.GRADIENT, Pass.TRAIN_STEP),
) -> Fake:
    """A whole run on processor and GPU."""
    rng, empty = np.random.default_rng(0), make(("parity",), ("numpy",), (Pass.FORWARD,))
    records = [
        r
        for workload, pass_, name in product(workloads, passes, backends)
        for r in records_of(case(workload, pass_), name, rng)
    ]
    return Fake(records, [], empty.machine, empty.run)


def sweep_gpu(
    backends: Sequence[str] = ("numba", "torch", "jax", *GPUS),
    sweep: Sweep = SWEEP,
    passes: Sequence[Pass] = (Pass.FORWARD, Pass.GRADIENT),
) -> Fake:
    """A sweep on processor and GPU, one launch each."""
    rng = np.random.default_rng(0)
    records = [
        r
        for sizes, pass_, name in product(sweep.cases, passes, backends)
        for r in records_of(
            Case(**vars(made_up_problem(sizes, sweep.E, DType.FLOAT32)), pass_=pass_), name, rng, launches=1
        )
    ]
    run = {"run_id": "fake", "mode": "default", "plan": {"sweep": msgspec.to_builtins(sweep)}}
    return Fake(records, [], make(("parity",), ("numpy",), (Pass.FORWARD,)).machine, run)
