"""The worker process: one backend that answers requests, JSON lines.

`rnnbench.harness.worker NAME MODULE:CLASS`, started by `harness.worker_client`. Requests and replies go over a socket
of their own, whose number is in RNNBENCH_CHANNEL: what libraries and hooks print is no reply. The process ends when
the parent's end of the socket is closed.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import queue
import resource
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

OUT_OF_MEMORY_WORDS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "resource_exhausted",
    "out_of_memory",
    "oom",
)


PROCESS = Path("/proc/self")


def limit_cores() -> None:
    """Stay on as many cores as the parent says. XLA's thread pool is limited in no other way."""
    wanted = os.environ.get("RNNBENCH_CORES")
    if wanted and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core) for core in wanted.split(",")})


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


class Worker:
    """The operations, one method each; every reply is a dict that JSON can hold."""

    def __init__(self, name: str, target: str) -> None:
        start = time.perf_counter_ns()
        from rnnbench.backends import class_of

        self.backend = class_of(target)()
        self.import_ns = time.perf_counter_ns() - start
        self.session: Any = None
        self.arrays: dict[str, Any] = {}
        self.gpu: Any = None  # its driver's view of it, once a problem runs there
        self.meter: Any = None

    def hello(self) -> dict[str, Any]:
        """The package, the libraries and the thread pools of this process."""
        from threadpoolctl import threadpool_info

        import rnnbench

        pools = [{k: v for k, v in pool.items() if k != "filepath"} for pool in threadpool_info()]
        return {
            "package": {"version": rnnbench.__version__, "file": os.path.realpath(rnnbench.__file__)},
            "import_ns": self.import_ns,
            "libraries": self.backend.libraries(),
            "built_for": self.backend.built_for(),
            "threadpools": pools,
        }

    def unsupported(self, case: dict[str, Any]) -> dict[str, Any]:
        """Why a case cannot be done, or None; `unavailable` where no case can, on this machine."""
        import msgspec

        from rnnbench.model import Case

        if reason := self.backend.unavailable():
            return {"reason": reason, "unavailable": True}
        return {"reason": self.backend.unsupported(msgspec.convert(case, Case)), "unavailable": False}

    def contract(self, problem: dict[str, Any]) -> dict[str, Any]:
        """What a number of this backend would stand for."""
        import msgspec

        from rnnbench.model import Problem

        return {"contract": msgspec.to_builtins(self.backend.contract(msgspec.convert(problem, Problem)))}

    def audit(self, dtype: str, passes: list[str]) -> dict[str, Any]:
        """All findings of the audit, or the reason why this backend cannot be audited."""
        import msgspec

        from rnnbench.correctness import audit
        from rnnbench.model import Case, DType, Pass

        problem = audit.audited_problem(DType(dtype))
        asked = [Pass(p) for p in passes]
        reasons = (self.backend.unsupported(Case(**vars(problem), pass_=p)) for p in asked)
        if reason := self.backend.unavailable() or next(filter(None, reasons), None):
            return {"reason": reason, "findings": []}
        found = audit.audit(self.backend, problem.dtype, asked)
        return {"reason": None, "findings": msgspec.to_builtins(list(found))}

    def prepare(self, problem: dict[str, Any], arrays: str) -> dict[str, Any]:
        """Stage a problem from an `.npz` of params, inputs and targets; it replaces the one before."""
        import msgspec
        import numpy as np

        from rnnbench.contract import CUDA
        from rnnbench.data import Data
        from rnnbench.machine import energy, gpu
        from rnnbench.model import Problem

        self.close()
        with np.load(arrays) as file:
            self.arrays = {name: file[name] for name in file.files}
        params = {name.removeprefix("param "): a for name, a in self.arrays.items() if name.startswith("param ")}
        self.problem = msgspec.convert(problem, Problem)
        data = Data(self.arrays["inputs"], self.arrays["targets"])
        start = time.perf_counter_ns()
        self.session = self.backend.prepare(self.problem, params, data)
        self.session.synchronize()
        prepare_ns = time.perf_counter_ns() - start
        self.batches = len(data.inputs) // self.problem.B
        contract = self.backend.contract(self.problem)
        if contract.device == CUDA and self.gpu is None:
            self.gpu = gpu.first()
        if self.meter is None:  # not before the backend was imported: this imports NumPy
            self.meter = energy.meter_of((lambda: energy.GpuEnergy(self.gpu)) if self.gpu else energy.Rapl)
        return {"prepare_ns": prepare_ns, "contract": msgspec.to_builtins(contract)}

    def first(self, pass_: str, order: list[int] | None, out: str) -> dict[str, Any]:
        """The first call of a pass, from the initial parameters; its outputs go to `out`."""
        import numpy as np

        from rnnbench.harness.arrays import save_outputs
        from rnnbench.harness.clock import call_of, time_call
        from rnnbench.model import Pass

        self.session.reset()
        self.session.select(0)
        rows = None if order is None else np.array(order, dtype=np.int64)
        first_call_ns = time_call(call_of(self.session, Pass(pass_), rows), self.session.synchronize)
        save_outputs(Path(out), self.session.fetch())
        gc.collect()
        gc.freeze()  # a framework's half a million objects stay: the collections of later turns pass them over
        return {"first_call_ns": first_call_ns, **self._peaks()}

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
        import numpy as np

        from rnnbench.harness.clock import DeviceTimes, Turn, begin_turn, time_turn, warmups
        from rnnbench.machine import energy, interference
        from rnnbench.model import Pass

        start = time.perf_counter_ns()
        slept_ns = begin_turn(self.session, idle_ns)
        ready = time.perf_counter_ns()
        rows = None if order is None else np.array(order, dtype=np.int64)
        device = DeviceTimes(self.session.device_clock())
        states, before = self._device_states(), interference.read_clocks()
        with energy.Window(self.meter) as window:
            begun = time.perf_counter_ns()
            samples = time_turn(self.session, Pass(pass_), Turn(**turn), self.batches, rows, device=device)
            ended = time.perf_counter_ns()
        disturbances = interference.disturbances_between(before, interference.read_clocks())
        joules = window.energy(samples)
        return {
            "samples_ns": samples,
            "warmup": warmups(samples),
            "staging_ns": ready - start - slept_ns + ended - begun - sum(samples),
            "slept_ns": slept_ns,
            "device_ns": device.ns,
            "device_states": states + self._device_states(),
            "energy": asdict(joules) if joules else None,
            "disturbances": disturbances,
            **self._peaks(),
        }

    def _peaks(self) -> dict[str, Any]:
        return {"peak_memory_bytes": peak_memory(), "peak_device_bytes": self.session.peak_device_bytes()}

    def _device_states(self) -> list[dict[str, Any]]:
        """The GPU as it is now, where the passes run on one that tells."""
        import msgspec

        return [] if self.gpu is None else [msgspec.to_builtins(self.gpu.state())]

    def memory(self, pass_: str, order: list[int] | None) -> dict[str, Any]:
        """The peak memory of one pass, called twice, and what the process had before."""
        import numpy as np

        from rnnbench.harness.clock import call_of
        from rnnbench.model import Pass

        call = call_of(self.session, Pass(pass_), None if order is None else np.array(order, dtype=np.int64))
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
        import numpy as np

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
        from rnnbench.backends.numpy import correct, losses
        from rnnbench.data import shaped_targets

        start = time.perf_counter_ns()
        logits = self.session.predict(self.arrays[f"inputs {split}"])
        seconds = (time.perf_counter_ns() - start) / 1e9
        logits = logits.astype("float64")
        targets = shaped_targets(self.problem, self.arrays[f"targets {split}"])
        found = correct(self.problem.model, logits, targets)
        scale = self.problem.model.loss_scale(len(logits), self.problem.T)
        return {
            "loss": float(losses(self.problem.model, logits, targets).sum() * scale),
            "accuracy": None if found is None else float(found.mean()),
            "seconds": seconds,
            "positive": float((logits > 0).mean()),
        }

    def close(self) -> dict[str, Any]:
        """Drop the session."""
        before, self.session, self.arrays = self.session, None, {}
        gc.unfreeze()
        if before is not None:
            before.close()
            del before
            if self.gpu is not None:  # what a framework's cycles keep there would count in the next session's peak
                gc.collect()
        return {}


def failure(error: BaseException) -> dict[str, Any]:
    """A reply that says what went wrong, in one line, and the whole of it on standard error."""
    with contextlib.suppress(OSError):  # of a full disk, which the reply says
        traceback.print_exc()
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return {"ok": False, "kind": "disk_full", "reason": error.strerror, "errno": error.errno}
    lines = [line for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0].strip() if lines else 'no message'}"
    memory = isinstance(error, MemoryError) or any(word in text.lower() for word in OUT_OF_MEMORY_WORDS)
    return {"ok": False, "kind": "out_of_memory" if memory else "error", "reason": text[:500]}


def channel() -> socket.socket:
    """The socket to the parent. What this process starts does not get it, and so does not hold it open."""
    found = socket.socket(fileno=int(os.environ.pop("RNNBENCH_CHANNEL")))
    found.set_inheritable(False)
    return found


def requests(lines: socket.socket) -> queue.Queue[dict[str, Any]]:
    """Requests as they come. A thread reads them, so that the process ends at once when its parent is gone."""
    waiting: queue.Queue[dict[str, Any]] = queue.Queue()

    def read() -> None:
        with contextlib.suppress(OSError):
            for line in lines.makefile("rb"):
                waiting.put(json.loads(line))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return waiting


def serve(make: Callable[[], Any]) -> None:
    """Answer requests, each by the method of its name, until the parent is gone. What has them is made at the first."""
    replies = channel()
    limit_cores()
    waiting = requests(replies)
    served = None
    while True:
        request = waiting.get()
        operation = request.pop("op")
        try:
            if served is None:
                served = make()
            reply = {"ok": True, **getattr(served, operation)(**request)}
        except Exception as error:
            reply = failure(error)
        replies.sendall(json.dumps(reply).encode() + b"\n")


if __name__ == "__main__":
    serve(lambda: Worker(sys.argv[1], sys.argv[2]))
