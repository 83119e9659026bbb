"""The peak memory of each pass: a process for each backend and case, which prepares, calls twice, and is asked.

It is untimed and comes after all launches; the backends go side by side.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import msgspec

from rnnbench.harness import arrays
from rnnbench.harness.checker import Checker, Task
from rnnbench.harness.plan import wanted
from rnnbench.harness.worker_client import WorkerFailure
from rnnbench.harness.worker_pool import WorkerPool
from rnnbench.model import Case
from rnnbench.records.record import MemoryRecord, Record, Status


def measure_memory(runner: Checker, before: list[Record]) -> None:
    """One `MemoryRecord` for each backend and case that did not fail; nothing where the plan does not ask.

    `before` are the records of an interrupted run: what they tell is not asked again. A process that fails says so in
    its record, and costs nothing else; one that no budget was left for is tried again. The budget of a case holds for
    its process anew.
    """
    if not runner.plan.memory:
        return
    done = {(r.backend, r.case) for r in before if isinstance(r, MemoryRecord) and r.status is not Status.SKIPPED}
    for task in runner.tasks:
        asked = {name: _asked(runner, task, name, done) for name in runner.plan.backends}
        names = [name for name, cases in asked.items() if cases]
        if names:
            _measure_task(runner, task, {name: asked[name] for name in names})


def _asked(runner: Checker, task: Task, name: str, done: set[tuple[str, Case]]) -> list[Case]:
    """The cases of a task that this backend can do and was not yet asked."""
    return [
        case
        for case in task.cases
        if wanted(runner.plan, case, name) and (case, name) not in runner.failed and (name, case) not in done
    ]


def _measure_task(runner: Checker, task: Task, asked: dict[str, list[Case]]) -> None:
    plan = runner.plan
    path = runner.folder / "arrays" / "memory.npz"
    arrays.save_problem(path, task.params, task.rows)
    cache, limit = runner.folder / "cache", runner.stopping.limit
    pool = WorkerPool(list(asked), runner.folder, plan.threads, plan.timeout, cache, limit=limit)

    def ask(name: str) -> None:
        for case in asked[name]:
            runner.observer.doing(f"peak memory of {case.key}: {name}", runner.estimate)
            record = _record(runner, task, pool, name, case, path)
            if pool.closed:  # whoever was ended with the run did not fail
                return
            with runner.writing:
                runner.emit(record)

    try:
        pool.side_by_side(ask, asked)
    finally:
        pool.kill()
        path.unlink(missing_ok=True)


def _record(runner: Checker, task: Task, pool: WorkerPool, name: str, case: Case, path: Path) -> Record:
    """The answer of a fresh process, or how it failed."""
    record = MemoryRecord(**runner.common_of(task, case, name))
    begun, stopping = time.monotonic(), runner.stopping
    if stopping.left <= 0:
        return replace(record, status=Status.SKIPPED, reason=f"its memory: not begun: {stopping.limit().budget}")
    try:
        problem, limit = msgspec.to_builtins(task.problem), stopping.limit(0.0)
        pool.ask(name, "prepare", limit, problem=problem, arrays=str(path))
        limit = stopping.limit(time.monotonic() - begun)
        reply = pool.ask(name, "memory", limit, pass_=case.pass_, order=runner.order_of(task, case))
    except WorkerFailure as failure:
        if not pool.closed:
            runner.observer.say(f"{name} on {case.key}, its memory: {failure.status}. {failure.reason}")
        return replace(record, status=failure.status, reason=f"its memory: {failure.reason}")
    finally:
        pool.dismiss(name)
    return replace(
        record,
        peak_memory_bytes=reply["peak_memory_bytes"],
        peak_device_bytes=reply["peak_device_bytes"],
        memory_before_bytes=reply["memory_before_bytes"],
    )
