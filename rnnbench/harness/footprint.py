"""What a problem takes in memory, in the parent and in each worker, and whether there is as much.

By hand, from the sizes alone, so that what is too large is refused before any of it is made. The factors are rounded
up from peaks that were measured over all backends; they are an estimate, and refuse nothing that is near the limit.
"""

from __future__ import annotations

import math
import sys

import psutil

from rnnbench import backends
from rnnbench.harness.plan import Plan
from rnnbench.machine import fingerprint
from rnnbench.machine.known import known
from rnnbench.model import Head, Problem, Truncation
from rnnbench.units import gibibytes

GIB = 1 << 30
PROCESS_BYTES = 350 << 20  # a worker with its library, before it has a problem
PARENT_BYTES = 150 << 20
EXACT = 8  # bytes of a number of the oracle
BLOCK_BYTES = 400  # of truncated BPTT: an object and what is kept beside it
MAKING = 28  # bytes a number of a row while rows are made: as integers, summed up, and as floats
PREDICTED = 512  # rows at a time
# Weights W_xh of so many numbers at most let each thread of the CPU kernels find tokens in a table of its own, 4 bytes
# for each of the vocabulary; rows of a table are of whole vectors.
OWN_TOKENS_WEIGHTS, TABLE_ITEM, VECTOR = 4096, 4, 16
ROW_NUMBER_BYTES = 100  # in an order of an epoch: in the parent, as text, and in the worker

# How many arrays of a kind live at once.
OF_ORACLE = {"states": 6, "inputs": 1, "outputs": 8, "params": 28}
OF_WORKER = {"states": 7, "inputs": 2, "outputs": 8, "params": 10}


def free() -> int:
    """Bytes that processes may still take: of the machine, or of the control group where that has less.

    Where nothing tells, any number of them.
    """
    left = (known(lambda: psutil.virtual_memory().available), known(fingerprint.memory_left))
    return min((found for found in left if found is not None), default=sys.maxsize)


def params_of(problem: Problem) -> int:
    """Numbers in the parameters."""
    return sum(math.prod(shape) for shape in problem.model.shapes.values())


def row_of(problem: Problem) -> int:
    """Numbers in a row and its targets."""
    model, T = problem.model, problem.T
    return T * (model.E if model.V is None else 1) + model.O * (T if model.head is Head.EVERY else 1)


def in_process(problem: Problem, item: int, kinds: dict[str, int], rows: int, threads: int = 1) -> int:
    """Bytes of a process that computes on `rows` rows at a time, its numbers of `item` bytes."""
    model, steps = problem.model, rows * problem.T
    outputs = model.O * (steps if model.head is Head.EVERY else rows)
    counts = {
        "states": steps * model.recurrence.width(model.H) * len(model.directions),
        "inputs": steps * (model.E + (model.layers - 1) * model.read),
        "outputs": outputs,
        "params": params_of(problem),
    }
    width = model.recurrence.width(model.H)
    own_tables = threads if threads > 1 and model.E * width <= OWN_TOKENS_WEIGHTS else 0
    numbers = item * sum(kinds[kind] * count for kind, count in counts.items())
    return numbers + _blocks(problem.truncation, problem.T) + TABLE_ITEM * own_tables * (model.V or 0)


def _projected(problem: Problem) -> int:
    """Bytes of the vocabulary, embedded and projected, from which our CPU kernels predict many rows."""
    model = problem.model
    widths = (model.E, *(model.recurrence.width(model.H) for _ in model.stack[0]))
    return problem.dtype.bytes * (model.V or 0) * sum(-(-width // VECTOR) * VECTOR for width in widths)


def _blocks(truncation: Truncation | None, T: int) -> int:
    return 0 if truncation is None else BLOCK_BYTES * -(-T // truncation.stride)


def workers_of(plan: Plan) -> int:
    """How many workers there will be at most at once: of those that may have fewer threads, two."""
    here = [name for name in plan.backends if backends.missing(name, plan.env) is None]
    return sum(1 if backends.entry_of(name).gpu else len(plan.counts) for name in here)


def bytes_needed(
    problem: Problem,
    made: int,
    staged: int,
    workers: int,
    *,
    predicts: bool = False,
    making: int = MAKING,
    threads: int = 1,
) -> int:
    """About what the parent and all workers of one problem take together, beside what they take without it.

    `made` rows are made or read in the parent, by `making` bytes a number; `staged` ones are handed to each worker,
    which computes on a batch of them, or, where it `predicts`, on PREDICTED of them.
    """
    row = row_of(problem)
    parent = made * row * making + staged * (row * EXACT + ROW_NUMBER_BYTES)
    parent += in_process(problem, EXACT, OF_ORACLE, problem.B)
    return parent + workers * in_worker(problem, staged, predicts=predicts, threads=threads)


def in_worker(problem: Problem, staged: int, *, predicts: bool = False, threads: int = 1) -> int:
    """About what one worker takes of it, or a session in a process of the user's."""
    rows = max(PREDICTED, problem.B) if predicts else problem.B
    table = _projected(problem) if predicts else 0
    own = in_process(problem, problem.dtype.bytes, OF_WORKER, rows, threads)
    return staged * (row_of(problem) * 12 + ROW_NUMBER_BYTES) + own + table


def too_large(needed: int, workers: int, room: int) -> str | None:
    """What would be needed and what there is, where that is less, or None.

    Workers take a part without any problem, which is less surely known: for that part alone nothing is refused.
    """
    alone = PARENT_BYTES + workers * PROCESS_BYTES
    if needed <= max(room - alone, room // 2):
        return None
    processes = "1 process" if workers <= 1 else f"{workers} processes"
    return f"needs about {gibibytes(needed + alone)} in {processes}, and {gibibytes(room)} are free"
