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
from pathlib import Path
from typing import Any

from cases import Work, all_cases

MIN_CALLS = 3


class Server:
    """The requests, one method each; every reply is a dict that JSON can hold."""

    def __init__(self, tree: str) -> None:
        import rnnbench

        home = Path(rnnbench.__file__).resolve().parents[1]
        if home != Path(tree).resolve():
            raise RuntimeError(f"rnnbench was imported from {home} and not from {tree}; set PYTHONPATH to the tree")
        self.cases = {str(case): case for case in all_cases()}
        self.ready: dict[str, Work] = {}
        self.ballast: list[bytearray] = []

    def prepare(self, case: str) -> dict[str, Any]:
        """Make a case ready, compiling included. The norms of its first answer come back, by name."""
        import numpy as np

        # Where arrays lie decides some per cent of a time, and would be the same in every process of one side.
        self.ballast.append(bytearray(random.randrange(512, 16_384)))
        work = self.ready[case] = self.cases[case].build()
        work.before(0)
        work.call()
        answer = {name: np.asarray(value, np.float64) for name, value in work.answer().items()}
        return {"answer": {name: math.sqrt(float((value**2).sum())) for name, value in answer.items()}}

    def turn(self, case: str, seconds: float, calls: int) -> dict[str, Any]:
        """Nanoseconds of single calls, for `seconds` or `calls` of them, whichever is less, but for 3 at least.

        The call before them finds cold caches and sleeping threads and is not counted.
        """
        if case not in self.ready:  # the process before this one died
            self.prepare(case)
        work, once = self.ready[case], self.cases[case].once
        if not once:
            work.before(0)
            work.call()
        samples: list[int] = []
        gc.collect()
        gc.disable()
        try:
            end = time.perf_counter() + seconds
            while len(samples) < (1 if once else MIN_CALLS) or (
                not once and len(samples) < calls and time.perf_counter() < end
            ):
                work.before(len(samples) + 1)
                start = time.perf_counter_ns()
                work.call()
                samples.append(time.perf_counter_ns() - start)
        finally:
            gc.enable()
        return {"samples_ns": samples}


def main() -> None:
    """Serve until the input ends, on as many cores as the parent says."""
    channel = socket.socket(fileno=int(os.environ.pop("RNNBENCH_CHANNEL")))
    channel.set_inheritable(False)  # nothing started here holds it open
    if (cores := os.environ.get("RNNBENCH_CORES")) and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    server: Server | None = None
    for line in channel.makefile("rb"):
        request = json.loads(line)
        operation = request.pop("op")
        try:
            if server is None:
                server = Server(sys.argv[2])
            reply = {"ok": True, **getattr(server, operation)(**request)}
        except Exception as error:
            traceback.print_exc()
            text = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
            reply = {"ok": False, "kind": "error", "reason": f"{type(error).__name__}: {text}"[:300]}
        channel.sendall(json.dumps(reply).encode() + b"\n")


if __name__ == "__main__":
    main()
