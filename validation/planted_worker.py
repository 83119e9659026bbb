"""A side with two cases of the `numpy` backend, one of which is slower at `new`, by a busy loop.

`python validation/planted_worker.py NAME TREE`, as `worker.py`. RNNBENCH_PLANTED is the share of its own time for which
a call of "planted ..." spins after its work; "unchanged ..." is the same on both sides.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from cases import Case, Work, pass_of
from worker import Worker, main

WORKLOAD, PASS = "parity", "forward"
PLANTED, UNCHANGED = (f"{group} {WORKLOAD} {PASS}" for group in ("planted", "unchanged"))


def slowed(call: Callable[[], object], share: float) -> Callable[[], object]:
    """The call, and after it a busy loop for that share of the time that it took."""

    def run() -> None:
        start = time.perf_counter_ns()
        call()
        end = time.perf_counter_ns()
        end += int(share * (end - start))
        while time.perf_counter_ns() < end:
            pass

    return run


def planted_cases(share: float) -> list[Case]:
    """Both cases; `share` 0 leaves them alike."""

    def unchanged() -> Work:
        return pass_of(WORKLOAD, PASS, "numpy")

    def planted() -> Work:
        work = unchanged()
        return replace(work, call=slowed(work.call, share)) if share else work

    return [Case("planted", f"{WORKLOAD} {PASS}", planted), Case("unchanged", f"{WORKLOAD} {PASS}", unchanged)]


class PlantedWorker(Worker):
    """The worker of a comparison, with these cases for its own."""

    def __init__(self, tree: str) -> None:
        share = float(os.environ["RNNBENCH_PLANTED"]) if sys.argv[1] == "new" else 0.0
        super().__init__(tree, planted_cases(share))


if __name__ == "__main__":
    main(PlantedWorker)
