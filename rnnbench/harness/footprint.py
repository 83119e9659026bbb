"""What a problem takes in memory, in the parent and in each worker, and whether there is as much.

By hand, from the sizes alone, so that what is too large is refused before any of it is made. The factors are rounded
up from peaks that were measured over all backends; they are an estimate, and refuse nothing that is near the limit.
"""

from __future__ import annotations

import math

import psutil

from rnnbench import backends
from rnnbench.harness.plan import Plan
from rnnbench.machine import fingerprint
from rnnbench.model import Head, Problem, Truncation
from rnnbench.units import gibibytes

GIB = 1 << 30
PROCESS_BYTES = 350 << 20  # a worker with its library, before it has a problem
PARENT_BYTES = 150 << 20
EXACT = 8  # bytes of a number of the oracle
BLOCK_BYTES = 400  # of truncated BPTT: an object and what is kept beside it
MAKING = 28  # bytes a number of a row while rows are made: as integers, summed up, and as floats
PREDICTED = 512  # rows at a time
ROW_NUMBER_BYTES = 100  # in an order of an epoch: in the parent, as text, and in the worker

# How many arrays of a kind live at once.
OF_ORACLE = {"states": 6, "inputs": 1, "outputs": 8, "params": 28}
OF_WORKER = {"states": 7, "inputs": 2, "outputs": 8, "params": 10}


def free() -> int:
    """Bytes that processes may still take: of the machine, or of the control group where that has less."""
    left = psutil.virtual_memory().available
    group = fingerprint.memory_left()
    return left if group is None else min(left, group)


def params_of(problem: Problem) -> int:
    """Numbers in the parameters."""
    return sum(math.prod(shape) for shape in problem.model.shapes.values())


def row_of(problem: Problem) -> int:
    """Numbers in a row and its targets."""
    model, T = problem.model, problem.T
    return T * (model.E if model.V is None else 1) + model.O * (T if model.head is Head.EVERY else 1)


def in_process(problem: Problem, item: int, kinds: dict[str, int], rows: int) -> int:
    """Bytes of a process that computes on `rows` rows at a time, its numbers of `item` bytes."""
    model, steps = problem.model, rows * problem.T
    outputs = model.O * (steps if model.head is Head.EVERY else rows)
    counts = {
        "states": steps * model.recurrence.width(model.H) * len(model.directions),
        "inputs": steps * (model.E + (model.layers - 1) * model.read),
        "outputs": outputs,
        "params": params_of(problem),
    }
    return item * sum(kinds[kind] * count for kind, count in counts.items()) + _blocks(problem.truncation, problem.T)


def _blocks(truncation: Truncation | None, T: int) -> int:
    return 0 if truncation is None else BLOCK_BYTES * -(-T // truncation.stride)


def workers_of(plan: Plan) -> int:
    """How many workers there will be at most at once: of those that may have fewer threads, two."""
    here = [name for name in plan.backends if backends.missing(name, plan.env) is None]
    return sum(1 if backends.entry_of(name).gpu else len(plan.counts) for name in here)


def bytes_needed(
    problem: Problem, made: int, staged: int, workers: int, *, at_once: int = 0, making: int = MAKING
) -> int:
    """About what the parent and all workers of one problem take together, beside what they take without it.

    `made` rows are made or read in the parent, by `making` bytes a number; `staged` ones are handed to each worker,
    which computes on a batch of them, or on `at_once`.
    """
    item, row, rows = problem.dtype.bytes, row_of(problem), max(at_once, problem.B)
    parent = made * row * making + staged * (row * EXACT + ROW_NUMBER_BYTES)
    parent += in_process(problem, EXACT, OF_ORACLE, problem.B)
    each = staged * (row * 12 + ROW_NUMBER_BYTES) + in_process(problem, item, OF_WORKER, rows)
    return parent + workers * each


def too_large(needed: int, workers: int, room: int) -> str | None:
    """What would be needed and what there is, where that is less, or None.

    Workers take a part without any problem, which is less surely known: for that part alone nothing is refused.
    """
    alone = PARENT_BYTES + workers * PROCESS_BYTES
    if needed <= max(room - alone, room // 2):
        return None
    processes = "1 process" if workers == 1 else f"{workers} processes"
    return f"needs about {gibibytes(needed + alone)} in {processes}, and {gibibytes(room)} are free"
