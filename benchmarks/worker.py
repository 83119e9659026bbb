"""One side of a comparison: a process that makes cases ready and times turns of them, told by JSON lines.

`python benchmarks/worker.py NAME TREE`, the tree in PYTHONPATH. Nothing here but the cases asks for the package, so an
older commit's can stand under it. Requests and replies go over a socket, whose number is in RNNBENCH_CHANNEL. The
process ends when the parent's end of it is closed.
"""

from __future__ import annotations

import gc
import json
import math
import os
import random
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cases import Case, Work, all_cases

LEAST_CALLS = 3


class Worker:
    """The operations, one method each; every reply is a dict that JSON can hold."""

    def __init__(self, tree: str, cases: Sequence[Case] | None = None) -> None:
        import rnnbench

        home = Path(rnnbench.__file__).resolve().parents[1]
        if home != Path(tree).resolve():
            raise RuntimeError(f"rnnbench was imported from {home} and not from {tree}; set PYTHONPATH to the tree")
        self.cases = {str(case): case for case in (all_cases() if cases is None else cases)}
        self.ready: dict[str, Work] = {}
        self.ballast: list[bytearray] = []

    def prepare(self, case: str) -> dict[str, Any]:
        """Make a case ready, compiling included. The norms of its first answer come back, by name."""
        work = self._work(case)
        work.before(0)
        work.call()
        return {"answer": {name: norm(value) for name, value in work.answer().items()}}

    def turn(self, case: str, seconds: float, calls: int) -> dict[str, Any]:
        """Nanoseconds of single calls, for `seconds` or `calls` of them, whichever is less, but for 3 at least.

        The call before them finds cold caches and sleeping threads and is not counted.
        """
        work = self._work(case)
        if self.cases[case].once:
            return {"samples_ns": [time_call(work)]}
        work.before(0)
        work.call()
        samples: list[int] = []
        gc.collect()
        gc.disable()
        try:
            end = time.perf_counter() + seconds
            while len(samples) < LEAST_CALLS or (len(samples) < calls and time.perf_counter() < end):
                work.before(len(samples) + 1)
                samples.append(time_call(work))
        finally:
            gc.enable()
        return {"samples_ns": samples}

    def _work(self, case: str) -> Work:
        if case not in self.ready:
            # Where arrays lie decides some per cent of a time, and would be the same in every process of one side.
            self.ballast.append(bytearray(random.randrange(512, 16_384)))
            self.ready[case] = self.cases[case].build()
        return self.ready[case]


def time_call(work: Work) -> int:
    """Nanoseconds of one call."""
    start = time.perf_counter_ns()
    work.call()
    return time.perf_counter_ns() - start


def norm(value: Any) -> float:
    """The Euclidean norm of an array or of a number."""
    import numpy as np

    return math.sqrt(float((np.asarray(value, np.float64) ** 2).sum()))


def stay_on_cores() -> None:
    """Stay on as many cores as the parent says."""
    wanted = os.environ.get("RNNBENCH_CORES")
    if wanted and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core) for core in wanted.split(",")})


def main(made: Callable[[str], Worker] = Worker) -> None:
    """Serve until the input ends, by a worker that is `made` for the tree."""
    channel = socket.socket(fileno=int(os.environ.pop("RNNBENCH_CHANNEL")))
    channel.set_inheritable(False)  # nothing started here holds it open
    stay_on_cores()
    worker: Worker | None = None
    for line in channel.makefile("rb"):
        request = json.loads(line)
        operation = request.pop("op")
        try:
            if worker is None:
                worker = made(sys.argv[2])
            reply = {"ok": True, **getattr(worker, operation)(**request)}
        except Exception as error:
            traceback.print_exc()
            text = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
            reply = {"ok": False, "kind": "error", "reason": f"{type(error).__name__}: {text}"[:300]}
        channel.sendall(json.dumps(reply).encode() + b"\n")


if __name__ == "__main__":
    main()
