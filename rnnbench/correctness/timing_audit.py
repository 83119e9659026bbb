"""Does a time mean what it says? Checks that a timed call does all of its work, does it then, and as its contract says.

They need the protocol alone, so that they hold for any backend. Each gives findings: a number and the most it may be.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from rnnbench import backends
from rnnbench.backends.base import Backend, Outputs, Session
from rnnbench.backends.numpy import NumpyBackend
from rnnbench.correctness.tolerances import arrays_of, errors_of, precision_of
from rnnbench.data import Data
from rnnbench.harness.clock import Clock, call_of, time_call
from rnnbench.model import Case, DType, Head, Loss, Model, Pass, Problem, Train
from rnnbench.params import Array, Init, Params, cast, init_params

REPEATS = 5  # of what is timed
ATTEMPTS = 3  # at a figure that a busy machine may spoil
MAX_SAVED = 0.5  # of a call's time, where its batch was the one before
MAX_LATE = 0.25  # of a call's time, that fetching takes beyond copying
MAX_STAGED = 2.0  # times a forward pass, that choosing its batch takes: moving it to where it is computed
MAX_THREAD_USE = 1.1  # processor time over wall time, for each thread of the contract
BUSY_SECONDS = 0.1  # of calls, over which processor time is counted
MAX_IN_PYTHON = 0.5  # calls of Python for each time step, by what a compiler made
SHORT, LONG = 4, 12  # steps of the rows that they are counted over
MAX_LOST = 0.5  # of the subnormal numbers of the oracle, where a contract keeps them
PROBE_STEPS = 64


@dataclass(frozen=True)
class Finding:
    """What a check found for a pass: `value`, which may be `limit` at most; None is no number. `what`: its meaning."""

    check: str
    pass_: Pass
    value: float | None
    limit: float
    what: str

    @property
    def ok(self) -> bool:
        """Whether the value is a number within the limit."""
        return self.value is not None and self.value <= self.limit


def audited_problem(dtype: DType, *, B: int = 32, T: int = 100, V: int = 50, E: int = 16, H: int = 64) -> Problem:
    """Work enough that a call takes milliseconds, with outputs so small that copying them does not."""
    model = Model(E=E, H=H, O=1, V=V, head=Head.LAST, loss=Loss.BINARY_CROSS_ENTROPY)
    return Problem("audit", dtype, model, Train(epsilon=1e-5), B, T)


def does(backend: Backend, problem: Problem, pass_: Pass) -> bool:
    """Whether the backend has this pass on the problem."""
    return backend.unsupported(Case(**vars(problem), pass_=pass_)) is None


class Subject:
    """A session under audit and the oracle's, on the same numbers: two batches of random rows."""

    def __init__(self, backend: Backend, problem: Problem, params: Params | None = None, data: Data | None = None):
        rng = np.random.default_rng(0)
        self.backend, self.problem, n = backend, problem, 2 * problem.B
        params = init_params(problem.model, Init.TORCH, 0) if params is None else params
        if data is None:
            tokens = rng.integers(0, problem.model.V or 1, (n, problem.T), dtype=np.int32)
            data = Data(tokens, rng.integers(0, 2, (n, problem.model.O)).astype(str(problem.dtype)))
        self.params = params = cast(params, problem.dtype)
        self.session = backend.prepare(problem, params, data)
        self.precision = precision_of(problem.dtype, backend.contract(problem).tf32)
        self.oracle = NumpyBackend().prepare(replace(problem, dtype=DType.FLOAT64), params, data)
        self.orders = [rng.permutation(len(data.inputs)).astype(np.int64) for _ in range(2)]

    def both(self) -> tuple[Session, Session]:
        """The oracle's session, and the one under audit."""
        return self.oracle, self.session

    def call(self, pass_: Pass, which: int) -> int:
        """Time a pass on batch `which`, or an epoch in order `which`, as a turn does; nanoseconds."""
        return _call(self.session, pass_, which, self.orders)


def _call(session: Session, pass_: Pass, which: int, orders: list[NDArray[np.int64]]) -> int:
    if pass_ is not Pass.EPOCH:
        session.select(which)
    call = call_of(session, pass_, orders[which])
    if pass_ is Pass.STEP:  # all of a row: one may be over before Python has fetched anything
        call = partial(_repeated, call, session.problem.T)
    return time_call(call, session.synchronize)


def _repeated(call: Callable[[], None], times: int) -> None:
    for _ in range(times):
        call()


def _worst(check: str, pass_: Pass, precision: str, pairs: Iterable[tuple[Outputs, Outputs]]) -> Finding:
    """The error that is nearest to its limit, or furthest over it, among all arrays of all pairs (oracle, got)."""
    errors = [item for ref, got in pairs for item in errors_of(ref, got, precision, pass_).items()]
    infinity = float("inf")
    name, e = max(errors, key=lambda item: infinity if item[1].error is None else item[1].error / item[1].limit)
    return Finding(check, pass_, e.error, e.limit, f"error of {name}")


def answers(subject: Subject, pass_: Pass) -> Iterator[Finding]:
    """Right after the other batch, and after all that the pass must write was made NaN; in the type that was asked."""
    pairs = []
    for session in subject.both():
        session.reset()
    for which in (1, 0, 0, 1):
        subject.session.poison()
        for session in subject.both():
            _call(session, pass_, which, subject.orders)
        pairs.append((_copied(subject.oracle.fetch()), _copied(subject.session.fetch())))
    yield _worst("answers anew", pass_, subject.precision, pairs)
    arrays = [(name, a) for name, a in arrays_of(pairs[-1][1]) if isinstance(a, np.ndarray)]
    others = [f"{name} is {a.dtype}" for name, a in arrays if a.dtype != str(subject.problem.dtype)]
    yield Finding("dtype", pass_, len(others), 0, "arrays of another type" + f": {', '.join(others)}" * bool(others))


def _copied(outputs: Outputs) -> Outputs:
    """Copies, out of the reach of the next pass."""
    named = (outputs.states, outputs.grads, outputs.params)
    states, grads, params = ({name: a.copy() for name, a in arrays.items()} for arrays in named)
    logits = None if outputs.logits is None else outputs.logits.copy()
    return replace(outputs, logits=logits, states=states, grads=grads, params=params)


def follows_parameters(subject: Subject, pass_: Pass) -> Iterator[Finding]:
    """Nothing that depends on parameters was done by `prepare`, `select` or `reset`: a train step changes the answer.

    The passes after the step are on the same batch, which is not selected again; after `reset` the first answer is
    the initial one.
    """
    pairs = []
    for session in subject.both():
        session.reset()
        session.select(0)
    for step in (pass_, Pass.TRAIN_STEP, pass_, None, pass_):
        for session in subject.both():
            if step is None:
                session.reset()
            else:
                call_of(session, step, subject.orders[0])()
                session.synchronize()
        pairs.append((_copied(subject.oracle.fetch()), _copied(subject.session.fetch())))
    yield _worst("new parameters", pass_, subject.precision, (pairs[0], pairs[2], pairs[4]))


def _at_best(limit: float, measure: Callable[[], float]) -> float:
    """The smallest of a few measurements, none after the first within the limit: others' work only ever adds."""
    best = measure()
    for _ in range(ATTEMPTS - 1):
        if best <= limit:
            break
        best = min(best, measure())
    return best


def remembers_nothing(subject: Subject, pass_: Pass) -> Iterator[Finding]:
    """A call on the batch, or in the order, of the call before takes as long as on another.

    By wall time or by processor time, whichever saves less: another program may lengthen the one, but not both.
    """

    def saved() -> float:
        taken: tuple[list[tuple[int, int]], ...] = ([], [])
        for _ in range(REPEATS):
            for calls in taken:
                start = time.process_time_ns()
                calls.append((subject.call(pass_, 0), time.process_time_ns() - start))
            subject.call(pass_, 1)
        fresh, again = ([min(times) for times in zip(*calls, strict=True)] for calls in taken)
        return min(1 - b / max(1, a) for a, b in zip(fresh, again, strict=True))

    subject.session.reset()
    subject.call(pass_, 1)
    found = _at_best(MAX_SAVED, saved)
    yield Finding("no memory", pass_, found, MAX_SAVED, "share of the time that a second call saves")


def leaves_nothing_to_fetch(subject: Subject, pass_: Pass) -> Iterator[Finding]:
    """When the clock stops nothing is outstanding: fetching takes as long as copying what is fetched.

    Lower quartiles: another program may lengthen most of them, or let what is outstanding end before a few are timed.
    """

    def late() -> float:
        calls, fetches, copies = [], [], []
        for i in range(REPEATS):
            calls.append(subject.call(pass_, i % 2))
            start = time.perf_counter_ns()
            outputs = subject.session.fetch()
            middle = time.perf_counter_ns()
            _copied(outputs)
            fetches.append(middle - start)
            copies.append(time.perf_counter_ns() - middle)
        call, fetch, copy = (float(np.percentile(times, 25)) for times in (calls, fetches, copies))
        return (fetch - copy) / max(1.0, call)

    subject.session.reset()
    subject.call(pass_, 1)
    yield Finding("nothing outstanding", pass_, _at_best(MAX_LATE, late), MAX_LATE, "fetching, as a share of the call")


def stages_little(subject: Subject, pass_: Pass) -> Iterator[Finding]:
    """Choosing a batch, which stands outside the clock, is not where the work is done."""

    def share() -> float:
        chosen, calls = [], []
        for i in range(2 * REPEATS):
            start = time.perf_counter_ns()
            subject.session.select(i % 2)
            chosen.append(time.perf_counter_ns() - start)
            calls.append(time_call(call_of(subject.session, pass_, None), subject.session.synchronize))
        return min(chosen) / max(1, min(calls))

    subject.session.reset()
    subject.session.synchronize()
    found = _at_best(MAX_STAGED, share)
    yield Finding("staging", pass_, found, MAX_STAGED, "choosing a batch, as a share of the call")


def keeps_to_its_threads(
    subject: Subject, pass_: Pass, wall: Clock = time.perf_counter_ns, processor: Clock = time.process_time_ns
) -> Iterator[Finding]:
    """No more processor time than the contract's threads can use. A busy machine may hide more, but not feign it."""
    threads = subject.backend.contract(subject.problem).threads_in(pass_)
    subject.session.reset()
    subject.call(pass_, 0)
    start, busy = wall(), processor()
    while wall() < start + BUSY_SECONDS * 1e9:
        subject.call(pass_, 0)
    cores = (processor() - busy) / (wall() - start)
    yield Finding("threads", pass_, cores, MAX_THREAD_USE * threads, f"cores in use, by a contract of {threads}")


def count_subnormals(x: Array) -> int:
    """How many numbers are subnormal, by their bits: a comparison may flush them."""
    integer = np.dtype(f"int{8 * x.itemsize}")
    smallest = np.finfo(x.dtype).tiny.view(integer)
    magnitude = np.ascontiguousarray(x).view(integer) & np.iinfo(integer).max
    return int(((magnitude > 0) & (magnitude < smallest)).sum())


def vanishing(dtype: DType) -> tuple[Problem, dict[str, Array], Data]:
    """A word to each step and a recurrence so weak that the gradients of early words vanish through all subnormals."""
    T, H = PROBE_STEPS, 8
    problem = audited_problem(dtype, B=2, T=T, V=T, E=8, H=H)
    params = cast(init_params(problem.model, Init.TORCH, 0), DType.FLOAT64)
    orthogonal, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((H, H)))
    params["W_hh"] = orthogonal * float(np.finfo(str(dtype)).tiny) ** (1 / (0.75 * T))
    targets = np.zeros((2, 1), str(dtype))
    return problem, params, Data(np.tile(np.arange(T, dtype=np.int32), (2, 1)), targets)


def treats_subnormals_as_said(backend: Backend, dtype: DType) -> Iterator[Finding]:
    """The gradients of vanishing words hold subnormal numbers where the contract keeps them, and none where not."""
    problem, params, data = vanishing(dtype)
    subject = Subject(backend, problem, params, data)
    for session in subject.both():
        session.gradient()
        session.synchronize()
    exact = subject.oracle.fetch().grads["embedding"]
    with np.errstate(under="ignore"):
        expected = count_subnormals(exact.astype(str(dtype)))
    share = count_subnormals(subject.session.fetch().grads["embedding"]) / expected
    said = backend.contract(problem).subnormals
    subject.session.close()
    if said.startswith("kept"):
        yield Finding("subnormals", Pass.GRADIENT, 1 - share, MAX_LOST, f"share that is lost, by a contract of {said}")
    else:
        yield Finding("subnormals", Pass.GRADIENT, share, 0, f"share that is kept, by a contract of {said}")


def calls_in_python(call: Callable[[], object]) -> int:
    """How many functions this thread calls by way of the interpreter: of Python, and of C from lines of Python."""
    count = 0

    def seen(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
        call()
    finally:
        sys.setprofile(None)
    return count


def is_compiled(backend: Backend, dtype: DType, pass_: Pass, compiler: str) -> Iterator[Finding]:
    """A row of more steps takes no more calls in the interpreter: whichever compiler the name promises was at work."""
    counts = []
    for T in (SHORT, LONG):
        subject = Subject(backend, audited_problem(dtype, B=2, T=T, E=8, H=8))
        for _ in range(2):
            subject.call(pass_, 0)
        counts.append(min(calls_in_python(partial(subject.call, pass_, 0)) for _ in range(REPEATS)))
        subject.session.close()
    found = (counts[1] - counts[0]) / (LONG - SHORT)
    yield Finding("compiled", pass_, found, MAX_IN_PYTHON, f"calls in Python for each step, compiled by {compiler}")


Check = Callable[[Subject, Pass], Iterator[Finding]]


def answer_checks(subject: Subject) -> tuple[Check, ...]:
    """What is asked of a pass's answers: where there is a train step, that they follow the parameters too."""
    return (answers, follows_parameters) if does(subject.backend, subject.problem, Pass.TRAIN_STEP) else (answers,)


OF_TIMES: tuple[Check, ...] = (remembers_nothing, leaves_nothing_to_fetch, keeps_to_its_threads)


def audit(backend: Backend, dtype: DType, passes: Iterable[Pass], problem: Problem | None = None) -> Iterator[Finding]:
    """All findings on a backend: pass by pass, then what does not depend on a pass."""
    subject = Subject(backend, problem or audited_problem(dtype))
    for pass_ in passes:
        for check in (*answer_checks(subject), *OF_TIMES):
            yield from check(subject, pass_)
    yield from stages_little(subject, Pass.FORWARD)
    subject.session.close()
    entry = backends.REGISTRY.get(backend.name)
    if entry is not None and entry.compiler:
        here = (pass_ for pass_ in (Pass.GRADIENT, Pass.FORWARD) if does(backend, subject.problem, pass_))
        yield from is_compiled(backend, dtype, next(here), entry.compiler)
    if does(backend, subject.problem, Pass.GRADIENT):
        yield from treats_subnormals_as_said(backend, dtype)
