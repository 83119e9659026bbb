"""The whole protocol of our CPU kernels at random, every array between two pages that may not be touched.

    python -m tests.kernels.fuzz --problems 2000 --seed 1

Any cell, structure, size, type and number of threads; up to three sessions at once; calls in any order, wrong ones
among them, some of two Python threads together. Each array that kernels see begins right after such a page or ends
right before one, so that the first number read or written outside of it ends the process. What sessions compute after
all that is compared with the oracle. Decision 0047.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import mmap
import random
import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from rnnbench import data as data_module
from rnnbench.backends import numba as backend_module
from rnnbench.backends.base import Session
from rnnbench.backends.numba import NumbaBackend, NumbaSubnormalBackend
from rnnbench.kernels.cpu import pass_record
from rnnbench.model import DType, Head, Loss, Optimizer, Problem, StepSum, Train, Truncation
from tests.helpers import assert_agrees, oracle, random_data, random_params, small_problem, threads

PAGE = mmap.PAGESIZE
_mprotect = ctypes.CDLL(None, use_errno=True).mprotect
_mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_sides = random.Random(0)


def guarded(shape: Any, dtype: Any = np.float64) -> np.ndarray:
    """Zeros right after a page that may not be touched, or right before one: now this, now that."""
    shape = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
    kind = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    pages = max(1, -(-size // PAGE))
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (address, address + (pages + 1) * PAGE):
        if _mprotect(page, PAGE, 0):  # PROT_NONE
            raise OSError(ctypes.get_errno(), "mprotect")
    start = PAGE if _sides.random() < 0.5 else (pages + 1) * PAGE - size
    return np.ndarray(shape, kind, memory, start)


def _copied(array: Any) -> np.ndarray:
    made = guarded(array.shape, array.dtype)
    made[...] = array
    return made


class GuardedNumpy:
    """NumPy, but for what makes arrays: those are guarded."""

    MAKES = ("zeros", "ones", "full", "empty", "array", "arange", "ascontiguousarray", "concatenate")

    def __getattr__(self, name: str) -> Any:
        real = getattr(np, name)
        return (lambda *given, **named: _copied(real(*given, **named))) if name in self.MAKES else real


def guard() -> None:
    """From now on what sessions give to kernels is guarded: buffers, records, data, states, orders."""
    for module in (backend_module, data_module, pass_record):
        module.np = GuardedNumpy()  # type: ignore[attr-defined]
    for module in (backend_module, pass_record):
        module.aligned = guarded  # type: ignore[attr-defined]
    backend_module.cast = lambda params, dtype: {n: np.array(v, str(dtype)) for n, v in params.items()}  # type: ignore[attr-defined]


def any_problem(rng: random.Random) -> Problem:
    """Sizes around those of vectors, tiles and blocks; now and then weights so wide that threads share columns."""
    wide = rng.random() < 0.05
    both, T = rng.random() < 0.25, rng.choice([1, 2, 3, 7, 16, 17, 40])
    cut = None
    if not both and rng.random() < 0.3:
        stride = rng.randint(1, T + 1)
        cut = Truncation(stride + rng.choice([0, 0, 1, 5]), stride)
    return small_problem(
        B=rng.choice([1, 2, 5, 8, 24, 25, 33]), T=T, E=rng.choice([1, 2, 3, 8, 15, 16, 17, 33, 65]),
        H=rng.choice([257, 300]) if wide else rng.choice([1, 2, 7, 8, 15, 16, 17, 31, 33, 64]),
        O=rng.choice([1, 1, 2, 3, 16, 17]), V=rng.choice([None, None, 1, 2, 11, 60, 3000]),
        head=rng.choice(list(Head)), loss=rng.choice(list(Loss)), dtype=rng.choice(list(DType)), truncation=cut,
        mean_length=T / 2 if rng.random() < 0.3 else None, cell=rng.choice(["rnn", "gru", "lstm"]),
        layers=rng.choice([1, 1, 1, 2, 3]), bidirectional=both, step_sum=rng.choice(list(StepSum)),
        train=rng.choice([
            Train(Optimizer.SGD, learning_rate=1e-3), Train(epsilon=1e-4), Train(epsilon=1e-4, clip_norm=0.1),
            Train(clip_value=0.1),
        ]),
    )  # fmt: skip


def broken(rng: random.Random, array: np.ndarray) -> np.ndarray:
    """The array with something about it that is wrong, or only unusual."""
    kind = rng.randrange(7)
    if kind == 0:
        return array[..., :-1]
    if kind == 1:
        return np.concatenate([array, array])
    if kind == 2:
        return array.astype(rng.choice([np.int8, np.uint64, np.float16, np.complex64, bool]))
    if kind == 3 and array.size:
        bad = array.astype(np.int64) if array.dtype.kind in "iu" else array.copy()
        bad.ravel()[rng.randrange(bad.size)] = rng.choice([-1, 2**31 - 1, -(2**31), 2**20])
        return bad
    if kind == 4:
        return array[None]
    return np.asfortranarray(array) if kind == 5 else array[::-1]


def any_call(rng: random.Random, session: Session) -> None:
    """One call of the protocol, right or wrong."""
    problem, model, staged = session.problem, session.problem.model, session.staged
    match rng.randrange(9):
        case 0 | 1 | 2:
            getattr(session, rng.choice(["forward", "gradient", "train_step"]))()
        case 3:
            order = np.array([rng.randrange(staged) for _ in range(rng.randrange(2 * problem.B + 2))], np.int64)
            session.train_epoch(broken(rng, order) if rng.random() < 0.3 else order)
        case 4 | 5:
            rows = random_data(problem, rows=rng.choice([0, 1, 3, 23, 24, 25, 100]), seed=rng.randrange(99))
            wrong = rng.random() < 0.3
            lengths = rows.lengths
            if wrong and lengths is not None and rng.random() < 0.5:
                lengths = broken(rng, lengths)
            with threads(rng.randint(1, 4)):
                session.predict(broken(rng, rows.inputs) if wrong else rows.inputs, lengths)
        case 6:
            states = {name: np.full((problem.B, model.H), 0.5, str(problem.dtype)) for name in model.states}
            if rng.random() < 0.3:
                name = rng.choice(model.states)
                states[name] = broken(rng, states[name])
            session.start_from(rng.choice([states, states, None, {}]))
        case 7:
            session.select(rng.choice([-1, 0, 1, 2, 3, 10**9]))
        case 8:
            rng.choice([session.fetch, session.reset, session.poison])()


def some_calls(seed: int, session: Session, count: int) -> None:
    rng = random.Random(seed)
    for _ in range(count):
        with suppress(ValueError):
            any_call(rng, session)


def together(rng: random.Random, sessions: list[Session]) -> None:
    """Calls of two Python threads at once, of the same session or of two."""
    failed: list[BaseException] = []

    def work(seed: int, session: Session) -> None:
        try:
            some_calls(seed, session, 6)
        except BaseException as error:
            failed.append(error)

    each = [threading.Thread(target=work, args=(rng.randrange(1 << 30), rng.choice(sessions))) for _ in range(2)]
    for thread in each:
        thread.start()
    for thread in each:
        thread.join()
    if failed:
        raise failed[0]


def work_on(seed: int, kept: list[tuple[Session, Any]]) -> None:
    """A session of a new problem beside up to two that are kept; calls of any of them; then one against the oracle."""
    rng = random.Random(seed)
    problem = any_problem(rng)
    data = random_data(problem, seed=rng.randrange(99))
    backend, count = rng.choice([NumbaBackend, NumbaSubnormalBackend])(), rng.randint(1, 4)
    with threads(count):
        kept.append((backend.prepare(problem, random_params(problem), data), data))
    del kept[:-3]
    for _ in range(4):
        some_calls(rng.randrange(1 << 30), rng.choice(kept)[0], 4)
    if rng.random() < 0.3:
        together(rng, [session for session, _ in kept])
    session, data = rng.choice(kept)
    session.reset()
    session.start_from(None)
    exact = oracle(session.problem, random_params(session.problem), data)
    for each in (session, exact):
        each.select(1)
        each.gradient()
    ref, got = exact.fetch(), session.fetch()
    if session.problem.dtype is DType.FLOAT32:  # a loss or gradient may cancel; states do not
        ref, got = (replace(out, loss=None, grads={}) for out in (ref, got))
    assert_agrees(ref, got, session.problem.dtype)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    faulthandler.enable()
    guard()
    kept: list[tuple[Session, Any]] = []
    end, done = time.monotonic() + asked.seconds, 0
    while done < asked.problems and time.monotonic() < end:
        seed = asked.seed * 1_000_003 + done
        print(f"\r{seed}", end="", flush=True)
        work_on(seed, kept)
        done += 1
    print(f"\r{done} problems: nothing outside, nothing wrong")


if __name__ == "__main__":
    main()
