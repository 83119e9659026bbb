"""A sweep over two workers of which one is killed again and again, held against the same sweep without Dask.

    python validation/cluster.py                     # 200 problems, a worker killed every 20 s; what scheduling costs
    python validation/cluster.py --problems 24 --every 10
    python validation/cluster.py --only scheduled    # 5,000 planned problems whose work is simulated

Asserted: no turn is lost, none is twice, and scheduling costs less than 2 % of the time. The ratios of the two backends
of each problem are compared by their intervals; those of 95 % should overlap but for a few. A worker is a machine of
its own by its name and core.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from distributed import Client

from cluster_work import simulated
from rnnbench.analysis.stats import by_case, ratio_of, summaries
from rnnbench.api import sweep as sizes
from rnnbench.api.planning import plan_of
from rnnbench.api.run import execute
from rnnbench.cluster import dispatch
from rnnbench.cluster.dispatch import Dispatch, KindQueue
from rnnbench.cluster.roster import RESOURCE, Roster
from rnnbench.cluster.run import execute_on_cluster
from rnnbench.cluster.unit import Job
from rnnbench.harness.observer import Lines, Silent
from rnnbench.records.record import Mode, turns_in
from rnnbench.workloads.made_up import made_up
from rnnbench.workloads.resolve import Asked, resolve

PLANNED = 5_000


class Workers:
    """A scheduler and workers as processes, each worker by its name and one core."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.stack, self.running = folder, ExitStack(), dict[str, subprocess.Popen[bytes]]()
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{found.getsockname()[1]}"
        self._start("scheduler", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port",
                    self.address.rpartition(":")[2], "--no-dashboard")  # fmt: skip

    def _start(self, name: str, *arguments: str, core: int | None = None) -> None:
        runtime = self.folder / f"runtime-{name}"
        runtime.mkdir(exist_ok=True)
        paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "RNNBENCH_MACHINE": name,
            "XDG_RUNTIME_DIR": str(runtime),
        }
        self.running[name] = subprocess.Popen(
            [sys.executable, "-m", *arguments], env=env, start_new_session=True, stderr=subprocess.DEVNULL,
            preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),
        )  # fmt: skip

    def worker(self, name: str, core: int) -> None:
        self._start(name, "distributed.cli.dask_worker", self.address, "--nthreads", "1", "--name", name, "--resources",
                    f"{RESOURCE}=1", "--no-nanny", "--no-dashboard", "--local-directory",
                    str(self.folder / f"local-{name}"), core=core)  # fmt: skip

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def close(self) -> None:
        self.stack.close()
        for name in list(self.running):
            self.kill(name)

    def client(self, workers: int) -> Client:
        client = self.stack.enter_context(Client(self.address, timeout=60, set_as_default=False))
        client.wait_for_workers(workers, timeout=60)
        return client


def planned(problems: int, backends: list[str]) -> tuple[Any, dict[str, Any]]:
    """So many problems of made-up rows along H and B, each by these backends, forward and gradient."""
    (base,) = resolve(["made-up"], Asked())
    H, B = max(2, round(problems**0.5)), max(2, -(-problems // max(2, round(problems**0.5))))
    swept = sizes.sweep_of({"H": tuple(range(8, 8 + H)), "B": tuple(range(4, 4 + B)), "T": (10,)}, None, True, base)
    found = sizes.swept_workloads(swept, base)[:problems]
    plan = plan_of(found, backends, ["forward", "gradient"], mode=Mode.DEFAULT, sweep=swept, seed=0, timeout=300.0,
                   threads=1)  # fmt: skip
    return plan, {w.name: w for w in found}


def _slots(records: list[Any]) -> Counter[tuple[Any, ...]]:
    """How often each turn is there; a disturbed one that was measured again is another attempt."""
    return Counter((r.case.key, r.backend, r.launch, r.round, r.attempt) for r in turns_in(records))


def killed(folder: Path, problems: int, every: float, backends: list[str]) -> None:
    plan, given = planned(problems, backends)
    began = time.monotonic()
    alone = execute(plan, folder / "alone", "validation", Silent(), given=given)
    print(f"without Dask: {problems} problems in {time.monotonic() - began:.0f} s", flush=True)
    workers = Workers(folder)
    names = ["left", "right"]
    for core, name in enumerate(names):
        workers.worker(name, core % (os.cpu_count() or 1))
    over, deaths = threading.Event(), list[str]()

    def reap() -> None:
        while not over.wait(every):
            name = random.choice(names)
            deaths.append(name)
            workers.kill(name)
            workers.worker(name, names.index(name) % (os.cpu_count() or 1))

    try:
        client = workers.client(2)
        reaper = threading.Thread(target=reap, daemon=True)
        reaper.start()
        began = time.monotonic()
        result = execute_on_cluster(plan, folder / "cluster", "validation", Lines(), client, threads=1, given=given)
        took = time.monotonic() - began
    finally:
        over.set()
        reaper.join(timeout=10)
        workers.close()
    (of,) = result.kinds.values()
    wanted, found = _slots(alone.loaded.records), _slots(of.loaded.records)
    asked = [s for s in wanted if not s[-1]]
    lost, twice = [s for s in asked if s not in found], [s for s, n in found.items() if n > 1]
    again = [sum(slot[-1] > 0 for slot in slots) for slots in (found, wanted)]
    print(f"over two workers, {len(deaths)} killed: {took:.0f} s, exit code {result.code}; of {len(asked)} turns "
          f"{len(lost)} lost, {len(twice)} twice; {again[0]} measured again as disturbed, without Dask {again[1]}",
          flush=True)  # fmt: skip
    _compared(alone.loaded.records, of.loaded.records, backends)
    assert not lost
    assert not twice


def _compared(alone: list[Any], cluster: list[Any], backends: list[str]) -> None:
    """The ratio of the two backends in each case: do the intervals of the two runs overlap?"""
    overlap = total = 0
    groups = [by_case(summaries(records)) for records in (alone, cluster)]
    for key in groups[0]:
        ratios = []
        for group in groups:
            turns = {s.backend: s.turns for s in group.get(key, ())}
            ratios.append(ratio_of(turns.get(backends[1], {}), turns.get(backends[0], {})))
        if ratios[0] and ratios[1]:
            total += 1
            overlap += ratios[0].low <= ratios[1].high and ratios[1].low <= ratios[0].high
    print(f"the intervals of the ratio {backends[1]} / {backends[0]} overlap in {overlap} of {total} cases")


class _Counts:
    """Keeps nothing."""

    def keep(self, number: int, file: str, lines: Any) -> int:
        return len(lines)

    def kept(self, number: int) -> dict[str, Any]:
        return {}

    def facts(self, message: Any) -> None:
        pass

    def finished(self, number: int) -> None:
        pass


def scheduled(folder: Path, problems: int) -> None:
    """So many planned problems, whose work is one record that is there already."""
    workers = Workers(folder)
    try:
        for core, name in enumerate(("left", "right")):
            workers.worker(name, core % (os.cpu_count() or 1))
        client = workers.client(2)
        began = time.monotonic()
        model = resolve(["made-up"], Asked())[0].model
        specs = [made_up(model, 1 + n, 10).spec for n in range(problems)]
        plan, _ = planned(4, ["numpy"])
        roster = Roster(client, "simulated", {}, {}, lambda text: None)
        roster.look()
        (kind,) = {host.kind for host in roster.hosts.values()}
        job = Job("simulated", kind, "simulated", f"{RESOURCE}-{kind}", plan, {"machine_id": kind})
        queue = KindQueue(job, specs, set(range(problems)), _Counts())
        planning = time.monotonic() - began
        Dispatch(roster, "simulated", {kind: queue}, Silent(), work=simulated).run()
        took = time.monotonic() - began
        own = resource.getrusage(resource.RUSAGE_SELF)
        import psutil

        scheduler = psutil.Process(workers.running["scheduler"].pid)
        print(f"{problems} problems: {took:.1f} s ({planning:.1f} s of it for planning and looking at the workers), "
              f"{1e3 * (took - planning) / problems:.2f} ms each; at most {own.ru_maxrss / 1024:.0f} MB here, the "
              f"scheduler {scheduler.memory_info().rss / 2**20:.0f} MB")  # fmt: skip
        assert not queue.left
    finally:
        workers.close()


def cost(folder: Path, backends: list[str], problems: int = 12) -> None:
    """Of the time from the first problem to the last one: how much no problem was measured, one worker alone.

    Twice: each problem in a task of its own, and all of them in one, where they share processes.
    """
    plan, given = planned(problems, backends)
    workers = Workers(folder)
    try:
        workers.worker("left", 0)
        client = workers.client(1)
        took, dispatched = [], Dispatch.run

        def timed(self: Dispatch) -> None:
            began = time.monotonic()
            dispatched(self)
            took.append(time.monotonic() - began)

        for words, few in {"each in a task of its own": problems + 1, "all in one task": 1}.items():
            with patch.object(Dispatch, "run", timed), patch.object(dispatch, "FEW", few):
                result = execute_on_cluster(plan, folder / f"cost-{few}", "validation", Silent(), client, threads=1,
                                            given=given)  # fmt: skip
            (of,) = result.kinds.values()
            busy = sum(of.loaded.run["seconds"].values())
            print(f"{problems} problems on one worker, {words}: of {took[-1]:.1f} s {busy:.1f} s were the harness's; "
                  f"scheduling took {100 * (1 - busy / took[-1]):.2f} %", flush=True)  # fmt: skip
    finally:
        workers.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--every", type=float, default=20.0, help="seconds between two deaths")
    parser.add_argument("--backends", default="numpy,torch")
    parser.add_argument("--only", choices=("killed", "scheduled", "cost"), help="one of the three parts")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # workers are ended then, too
    backends = asked.backends.split(",")
    parts = {
        "killed": lambda at: killed(at, asked.problems, asked.every, backends),
        "scheduled": lambda at: scheduled(at, PLANNED),
        "cost": lambda at: cost(at, backends),
    }
    for work in [parts[asked.only]] if asked.only else parts.values():
        with tempfile.TemporaryDirectory(prefix="rnnbench-validation-") as folder:
            work(Path(folder))


if __name__ == "__main__":
    main()
