"""The operations of a worker, in the process of its backend.

This module is imported after the backend, whose import is timed and loads NumPy and what else they share.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
import time
import weakref
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_info

import rnnbench
from rnnbench.backends.base import Backend
from rnnbench.backends.numpy import correct, emitted, loss_scale, losses
from rnnbench.contract import CUDA
from rnnbench.correctness import timing_audit
from rnnbench.data import shaped_targets
from rnnbench.harness.arrays import digest_of, load, rows_in, save_outputs
from rnnbench.harness.clock import DeviceTimes, Turn, begin_turn, call_of, time_call, time_steps, time_turn, warmups
from rnnbench.machine import energy, gpu, interference
from rnnbench.machine.contention import ContentionWatch, read_counters
from rnnbench.machine.cores import stay_on
from rnnbench.machine.known import known
from rnnbench.model import Case, DType, Pass, Problem

PROCESS = Path("/proc/self")


def _resident(field: str) -> int | None:
    """Bytes of a field of /proc/self/status; None where there is none, as on systems other than Linux."""
    try:
        return 1024 * int((PROCESS / "status").read_text().partition(f"{field}:")[2].split(maxsplit=1)[0])
    except (OSError, ValueError, IndexError):
        return None


def memory_before_a_pass() -> int | None:
    """Resident bytes of this process now, its peak put back to that; where that may not be, its peak so far."""
    try:
        (PROCESS / "clear_refs").write_text("5")  # proc(5): resets the peak resident set size
        return _resident("VmRSS")
    except OSError:
        return _resident("VmHWM")


def peak_memory() -> int:
    """The peak resident memory of this process, in bytes."""
    if (found := _resident("VmHWM")) is not None:
        return found
    # Not on Linux, where this counts what the parent had at the start.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _rows(order: list[int] | None) -> NDArray[np.int64] | None:
    return None if order is None else np.array(order, dtype=np.int64)


class Operations:
    """What the worker of a backend can be asked, one method each; every reply is a dict that JSON can hold."""

    def __init__(self, backend: Backend, import_ns: int) -> None:
        self.backend, self.import_ns = backend, import_ns
        self.session: Any = None
        self.arrays: dict[str, Any] = {}
        self.gpu: Any = None  # its driver's view of it, once a problem runs there
        self.meter: Any = None
        read_counters()  # what it imports is then there before the first turn

    def hello(self) -> dict[str, Any]:
        """The package, the libraries and the thread pools of this process."""
        pools = [{k: v for k, v in pool.items() if k != "filepath"} for pool in known(threadpool_info) or ()]
        return {
            "package": {"version": rnnbench.__version__, "file": os.path.realpath(rnnbench.__file__)},
            "import_ns": self.import_ns,
            "libraries": self.backend.libraries(),
            "built_for": self.backend.built_for(),
            "threadpools": pools,
        }

    def stay(self, cores: list[int]) -> dict[str, Any]:
        """Compute on these cores from now on."""
        stay_on(cores)
        return {}

    def unsupported(self, case: dict[str, Any]) -> dict[str, Any]:
        """Why a case cannot be done, or None; `unavailable` where no case can, on this machine."""
        if reason := self.backend.unavailable():
            return {"reason": reason, "unavailable": True}
        return {"reason": self.backend.unsupported(msgspec.convert(case, Case)), "unavailable": False}

    def contract(self, problem: dict[str, Any]) -> dict[str, Any]:
        """What a number of this backend would stand for."""
        return {"contract": msgspec.to_builtins(self.backend.contract(msgspec.convert(problem, Problem)))}

    def audit(self, dtype: str, passes: list[str]) -> dict[str, Any]:
        """All findings of the audit on the passes that the backend has, or the reason why it has none of them."""
        problem = timing_audit.audited_problem(DType(dtype))
        asked = [Pass(p) for p in passes]
        reasons = {p: self.backend.unsupported(Case(**vars(problem), pass_=p)) for p in asked}
        here = [p for p in asked if reasons[p] is None]
        if reason := self.backend.unavailable() or (None if here else next(iter(reasons.values()), None)):
            return {"reason": reason, "findings": []}
        found = timing_audit.audit(self.backend, problem.dtype, here)
        return {"reason": None, "findings": msgspec.to_builtins(list(found))}

    def prepare(self, problem: dict[str, Any], arrays: str) -> dict[str, Any]:
        """Stage a problem from an `.npz` of params, inputs and targets; it replaces the one before."""
        self.close()
        self.arrays = load(Path(arrays))
        params = {name.removeprefix("param "): a for name, a in self.arrays.items() if name.startswith("param ")}
        self.problem = msgspec.convert(problem, Problem)
        data = rows_in(self.arrays)
        start = time.perf_counter_ns()
        self.session = self.backend.prepare(self.problem, params, data)
        self.session.synchronize()
        prepare_ns = time.perf_counter_ns() - start
        self.batches = len(data.inputs) // self.problem.B
        contract = self.backend.contract(self.problem)
        if contract.device == CUDA and self.gpu is None:
            self.gpu = gpu.first()
        if self.meter is None:
            self.meter = energy.meter_of((lambda: energy.GpuEnergy(self.gpu)) if self.gpu else energy.Rapl)
        return {"prepare_ns": prepare_ns, "contract": msgspec.to_builtins(contract)}

    def first(self, pass_: str, order: list[int] | None, out: str, right: Sequence[str] = ()) -> dict[str, Any]:
        """The first call of a pass, from the initial parameters; its outputs go to `out`, unless the caller has found
        outputs with the same digest `right` before.
        """
        self.session.reset()
        self.session.select(0)
        rows = _rows(order)
        # With what `call_of` does, as single steps are packed, traced or compiled there
        first_call_ns = time_call(lambda: call_of(self.session, Pass(pass_), rows)(), self.session.synchronize)
        outputs = self.session.all_steps() if pass_ == Pass.STEP else self.session.fetch()
        digest = digest_of(outputs)
        if digest not in right:
            save_outputs(Path(out), outputs)
        gc.collect(1)  # what is older, a framework's half a million objects among it, takes 0.15 s
        gc.freeze()  # they stay: the collections of later turns pass them over
        return {"first_call_ns": first_call_ns, "digest": digest, **self._peaks()}

    def losses(self, steps: int) -> dict[str, Any]:
        """The loss before each of the first train steps, batch after batch."""
        self.session.reset()
        losses = []
        for step in range(steps):
            self.session.select(step % self.batches)
            self.session.train_step()
            self.session.synchronize()
            losses.append(float(self.session.fetch().loss))
        return {"losses": losses}

    def turn(self, pass_: str, turn: dict[str, Any], order: list[int] | None, idle_ns: int) -> dict[str, Any]:
        """Samples of one turn, and what it took beside them: parameters put back, batches chosen, time slept."""
        start = time.perf_counter_ns()
        slept_ns = begin_turn(self.session, idle_ns)
        ready = time.perf_counter_ns()
        rows = _rows(order)
        device = DeviceTimes(self.session.device_clock())
        states, before = self._device_states(), interference.read_clocks()
        with ContentionWatch() as watch, energy.Window(self.meter) as window:
            begun = time.perf_counter_ns()
            if pass_ == Pass.STEP:
                steps = time_steps(self.session, Turn(**turn))
                samples, counts, total = steps.samples, steps.counts, steps.total
            else:
                samples = time_turn(self.session, Pass(pass_), Turn(**turn), self.batches, rows, device=device)
                counts, total = [], sum(samples)
            ended = time.perf_counter_ns()
        disturbances = interference.disturbances_between(before, interference.read_clocks())
        joules = None if counts else window.energy(samples)
        return {
            "samples_ns": samples,
            "step_counts": counts,
            "calls_ns": total,
            "warmup": min(1, len(samples) - 1) if counts else warmups(samples),
            "staging_ns": ready - start - slept_ns + ended - begun - total,
            "slept_ns": slept_ns,
            "device_ns": device.ns,
            "device_states": states + self._device_states(),
            "energy": asdict(joules) if joules else None,
            "disturbances": disturbances,
            "contention": msgspec.to_builtins(watch.contention),
            **self._peaks(),
        }

    def _peaks(self) -> dict[str, Any]:
        return {"peak_memory_bytes": peak_memory(), "peak_device_bytes": self.session.peak_device_bytes()}

    def _device_states(self) -> list[dict[str, Any]]:
        """The GPU as it is now, where the passes run on one that tells."""
        return [] if self.gpu is None else [msgspec.to_builtins(self.gpu.state())]

    def memory(self, pass_: str, order: list[int] | None) -> dict[str, Any]:
        """The peak memory of one pass, called twice, and what the process had before."""
        call = call_of(self.session, Pass(pass_), _rows(order))
        self.session.reset()
        self.session.select(0)
        self.session.synchronize()
        gc.collect()
        before = memory_before_a_pass()
        for _ in range(2):
            call()
            self.session.synchronize()
        return {"memory_before_bytes": before, **self._peaks()}

    def epoch(self, seed: int) -> dict[str, Any]:
        """One epoch of a training over all staged rows, in the order of the seed."""
        order = np.random.default_rng(seed).permutation(len(self.arrays["inputs"]))
        call = self.session.epoch_of(order)
        start = time.perf_counter_ns()
        call()
        self.session.synchronize()
        seconds = (time.perf_counter_ns() - start) / 1e9
        outputs = self.session.fetch()
        return {"loss": outputs.loss, "accuracy": outputs.accuracy, "seconds": seconds}

    def evaluate(self, split: str) -> dict[str, Any]:
        """Loss and accuracy, as means over the rows of `inputs SPLIT`, with the parameters as they are."""
        rows, problem = rows_in(self.arrays, split), self.problem
        start = time.perf_counter_ns()
        logits = self.session.predict(rows.inputs, rows.lengths)
        seconds = (time.perf_counter_ns() - start) / 1e9
        logits = logits.astype("float64")
        model, targets = problem.model, shaped_targets(problem, rows.targets)
        found = correct(model, logits, targets)
        scale = loss_scale(model, rows.lengths, len(logits), problem.T)
        return {
            "loss": float(emitted(model, losses(model, logits, targets), rows.lengths).sum() * scale),
            "accuracy": None if found is None else float(emitted(model, found, rows.lengths).mean()),
            "seconds": seconds,
            "positive": float((emitted(model, logits, rows.lengths) > 0).mean()),
        }

    def close(self) -> dict[str, Any]:
        """Drop the session."""
        before, self.session, self.arrays = self.session, None, {}
        gc.unfreeze()
        if before is not None:
            before.close()
            kept = weakref.ref(before)
            del before
            if kept() is not None or self.gpu is not None:  # cycles keep it, or what counts in the next session's peak
                gc.collect()
        return {}
