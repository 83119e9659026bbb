"""The peak memory of each pass: a process for each backend and case, which prepares, calls twice, and is asked.

It is untimed and comes after all launches; the backends go side by side.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import msgspec

from rnnbench.harness import arrays
from rnnbench.harness.run_state import RunState, Task
from rnnbench.harness.worker_client import WorkerFailure
from rnnbench.harness.worker_pool import WorkerPool
from rnnbench.model import Case
from rnnbench.records.record import MemoryRecord, Status


def measure_memory(tasks: list[Task], state: RunState) -> None:
    """One `MemoryRecord` for each backend and case that did not fail; nothing where the plan does not ask.

    What an interrupted run has measured is not asked again. A process that fails says so in its record, and costs
    nothing else; one that no budget was left for is tried again. The budget of a case holds for its process anew.
    """
    if not state.plan.memory:
        return
    done = {(r.case, r.backend) for r in state.before if isinstance(r, MemoryRecord) and r.status is not Status.SKIPPED}
    for task in tasks:
        every = {
            name: [case for case in task.cases if state.asked(case, name) and (case, name) not in done]
            for name in state.plan.backends
        }
        if asked := {name: cases for name, cases in every.items() if cases}:
            _measure_task(task, asked, state)


def _measure_task(task: Task, asked: dict[str, list[Case]], state: RunState) -> None:
    plan, folder, limit = state.plan, state.folder, state.stopping.limit
    path = folder / "arrays" / "memory.npz"
    arrays.save_problem(path, task.params, task.rows)
    pool = WorkerPool(list(asked), folder, plan.threads, plan.timeout, folder / "cache", limit=limit, env=plan.env)

    def ask(name: str) -> None:
        for case in asked[name]:
            state.observer.doing(f"peak memory of {case.key}: {name}", state.estimate)
            record = _record(task, case, name, pool, path, state)
            if pool.closed:  # what ends with the run did not fail
                return
            state.emit(record)

    try:
        pool.side_by_side(ask, asked)
    finally:
        pool.kill()
        path.unlink(missing_ok=True)


def _record(task: Task, case: Case, name: str, pool: WorkerPool, path: Path, state: RunState) -> MemoryRecord:
    """The answer of a fresh process, or how it failed."""
    record = MemoryRecord(**state.common_of(task, case, name))
    begun, stopping = time.monotonic(), state.stopping
    if stopping.left <= 0:
        return replace(record, status=Status.SKIPPED, reason=f"its memory: not begun: {stopping.limit().budget}")
    try:
        problem, limit = msgspec.to_builtins(task.problem), stopping.limit(0.0)
        pool.ask(name, "prepare", limit, threads=record.threads, problem=problem, arrays=str(path))
        limit = stopping.limit(time.monotonic() - begun)
        order = state.order_of(task, case)
        reply = pool.ask(name, "memory", limit, threads=record.threads, pass_=case.pass_, order=order)
    except WorkerFailure as failure:
        if not pool.closed:
            state.observer.say(f"{name} on {case.key}, its memory: {failure.status}. {failure.reason}")
        return replace(record, status=failure.status, reason=f"its memory: {failure.reason}")
    finally:
        pool.dismiss(name, record.threads)
    return replace(record, **reply)
