"""What a worker does with one problem: all backends together by the harness, every record sent as it is made.

A record goes to the scheduler, and from there to who asked, before it is written into the machine's own journal. That
journal is what a worker that is started again on the same machine goes on from.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import msgspec
from distributed import Worker, get_worker
from distributed.utils import sync

from rnnbench import backends
from rnnbench.analysis.roofline import Peak
from rnnbench.api.errors import told
from rnnbench.api.run_session import RunSession
from rnnbench.api.verify import tasks_with_truncation
from rnnbench.cluster.known import Known
from rnnbench.cluster.machine import ends, hold_host, machine_name, run_folder, stopped
from rnnbench.files import temporary_folder
from rnnbench.harness.checker import Checker
from rnnbench.harness.plan import Estimate, Plan
from rnnbench.harness.run_loop import RunLoop
from rnnbench.harness.run_state import RunState
from rnnbench.harness.timers import Ledger
from rnnbench.harness.worker_pool import WorkerPool
from rnnbench.machine.interference import Neighbours
from rnnbench.records import store
from rnnbench.records.folder import ARRAYS, CACHE, SCRATCH, clear_scratch, scratch_of
from rnnbench.records.record import Epoch, Record, TrainingRecord
from rnnbench.workloads import files
from rnnbench.workloads.base import Spec, Workload

EVERY = 1.0  # seconds between two messages that only show what is done now
FILES = store.ANSWERS


@dataclass(frozen=True)
class Job:
    """What the problems of a run have in common that machines of one kind measure.

    `plan` has no workloads. `rows`: name of a user's own rows in the plan -> sha256 of their file. `resource` marks the
    workers of this kind.
    """

    run_id: str
    kind: str
    topic: str
    resource: str
    plan: Plan
    machine: Mapping[str, Any]
    rows: Mapping[str, str] = field(default_factory=dict)
    only_checks: bool = False


@dataclass(frozen=True)
class WorkUnit:
    """One problem's turn at a machine: its number in the plan, the how many-th time, and the lines that are kept."""

    number: int
    spec: Spec
    attempt: int = 0
    before: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)


class Messenger:
    """Sends what happens with a unit to the topic of its run. An observer."""

    def __init__(self, worker: Worker, job: Job, unit: WorkUnit) -> None:
        self.worker, self.job, self.unit = worker, job, unit
        self.lines, self.since = 0, 0.0

    def post(self, op: str, *topics: str, **rest: Any) -> None:
        """One message."""
        message = {"op": op, "kind": self.job.kind, "unit": self.unit.number, "attempt": self.unit.attempt}
        self.worker.log_event([self.job.topic, *topics], {**message, "machine": machine_name(), **rest})

    def post_lines(self, file: str, lines: list[bytes]) -> None:
        """Lines for one of the files of the run."""
        self.lines += len(lines)
        self.post("lines", file=file, lines=lines)

    def doing(self, what: str, estimate: Estimate, case: str = "") -> None:
        self.show(what, 0.0)

    def show(self, what: str, fraction: float) -> None:
        if time.monotonic() - self.since >= EVERY:
            self.since = time.monotonic()
            self.post("doing", text=what)

    def say(self, text: str) -> None:
        self.post("say", text=text)


class SentJournal:
    """A journal whose lines are sent before they are written: those that a full disk does not take are not lost."""

    def __init__(self, to: Messenger, journal: store.Journal) -> None:
        self.to, self.journal = to, journal

    def append(self, items: Iterable[Record | Epoch | TrainingRecord]) -> None:
        items = list(items)
        self.to.post_lines(self.journal.path.name, [store.encode(item) for item in items])
        self.journal.append(items)
        if self.to.job.topic in stopped:
            raise KeyboardInterrupt


@lru_cache(maxsize=4)
def _job(pickled: bytes) -> Job:
    found: Job = pickle.loads(pickled)
    return found


def measure_units(
    pickled: bytes, job_pickled: bytes, work: Callable[[Job, WorkUnit, Messenger], None] | None = None
) -> None:
    """Measure what is left of some problems, one after the other. All answers are messages; `work` stands in for it.

    Units and job come pickled, as the scheduler would unpickle and pickle each of them again.
    """
    units: tuple[WorkUnit, ...] = pickle.loads(pickled)
    job, worker = _job(job_pickled), get_worker()
    numbers = [unit.number for unit in units]
    first = Messenger(worker, job, units[0])
    own = f"{job.topic}/{job.kind}/{units[0].number}/{units[0].attempt}"
    if sync(worker.loop, worker.scheduler.events, topic=own):  # Dask gave it out anew, as a worker died over it
        first.post("again", units=numbers)
        return
    first.post("begun", own, at=worker.address, units=numbers)
    with Measuring() as measuring:
        for unit in units:
            if not _answered(unit, job, Messenger(worker, job, unit), work or measuring.measure):
                return


def _answered(unit: WorkUnit, job: Job, to: Messenger, work: Callable[[Job, WorkUnit, Messenger], None]) -> bool:
    """Whether this machine may go on with the next problem after this one."""
    try:
        if job.topic in stopped:
            raise KeyboardInterrupt
        work(job, unit, to)
        to.post("done", count=to.lines)
    except KeyboardInterrupt:
        to.post("stopped")
    except (OSError, store.StoreError) as error:
        sync(to.worker.loop, to.worker.set_resources, **{job.resource: 0})
        to.post("unfit", text=_unfit(error))
        return False
    except Exception as error:
        if meant := told(error):
            to.post("failed", text=meant.text)
        else:
            logging.getLogger("distributed.worker").exception("a fault of rnnbench")
            said = f"this is a fault of rnnbench, {type(error).__name__}: {error}"
            to.post("failed", fault=True, text=f"{said}; the log of the worker at {to.worker.address} shows where")
    return True


def _unfit(error: Exception) -> str:
    return f"{error.filename or 'a file'}: {error.strerror}" if isinstance(error, OSError) else str(error)


def _plan_of(job: Job, unit: WorkUnit) -> Plan:
    """The plan of this problem alone, with what is left of the run's budget."""
    budget = max(1e-3, ends[job.topic] - time.monotonic()) if job.topic in ends else None
    training = tuple(name for name in job.plan.training if name == unit.spec.name)
    return replace(job.plan, workloads=(unit.spec,), training=training, budget=budget)


def _given(job: Job, unit: WorkUnit, folder: Path) -> dict[str, Workload]:
    """A workload of the user's own, with the rows that were sent."""
    if unit.spec.origin:
        return {}
    sent = replace(unit.spec, kept=job.rows[unit.spec.kept])
    return {unit.spec.name: replace(files.kept_workload(folder, sent), kept=unit.spec.kept)}


def shares_processes(plan: Plan) -> bool:
    """Whether problems may share the processes of their backends, as those of a sweep on one machine do.

    A second launch is in new ones, and what measures in processes of its own wants no others beside it.
    """
    return plan.launches[1] == 1 and not (plan.memory or plan.training or plan.until_accuracy)


class Measuring:
    """Measures the problems of a task. From the first to the last one it holds the host, and keeps the processes that
    they share.
    """

    def __init__(self) -> None:
        self.stack, self.held = ExitStack(), False
        self.pool: WorkerPool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_processes()
        self.stack.close()

    def measure(self, job: Job, unit: WorkUnit, to: Messenger) -> None:
        """One problem."""
        for target in job.plan.own_backends:
            backends.add(target)
        if not self.held:
            self.stack.enter_context(hold_host(job.topic, to.say))
            self.held = True
        if job.only_checks:
            _check(job, unit, to)
            return
        if self.pool is None and shares_processes(job.plan):
            plan, scratch = job.plan, run_folder(to.worker, job.run_id) / SCRATCH
            self.pool = WorkerPool(plan.backends, scratch, plan.threads, plan.timeout, scratch / CACHE, env=plan.env)
        try:
            _time(job, unit, to, self.pool)
        except BaseException:
            self._end_processes()  # whatever they were at
            raise

    def _end_processes(self) -> None:
        if self.pool is not None:
            self.pool.kill()
            self.pool = None


def _check(job: Job, unit: WorkUnit, to: Messenger) -> None:
    """What `verify` does."""
    plan, folder = _plan_of(job, unit), run_folder(to.worker, job.run_id)

    def emit(record: Record) -> None:
        to.post_lines(store.RECORDS, [store.encode(record)])
        if job.topic in stopped:
            raise KeyboardInterrupt

    with temporary_folder("rnnbench-verify-") as scratch:
        tasks = tasks_with_truncation(plan, _given(job, unit, folder), to)
        state = RunState(plan, Path(scratch), emit, to, run_id="verify", machine_id=job.machine["machine_id"])
        RunLoop(tasks, state, Checker(state)).run()


def _time(job: Job, unit: WorkUnit, to: Messenger, pool: WorkerPool | None) -> None:
    """What `run` does. Compiled code, the peak and the journal are in the folder of the run on this machine."""
    plan, folder = _plan_of(job, unit), run_folder(to.worker, job.run_id)
    own = folder / f"{job.kind}-{unit.number}"
    own.mkdir(parents=True, exist_ok=True)
    scratch = scratch_of(folder)
    journals = {file: store.Journal(own, file) for file in FILES}
    try:
        session = RunSession(
            plan, folder, {"run_id": job.run_id, "beside": []}, dict(job.machine), _before(unit, own, to), Ledger(), to,
            time.monotonic(), _given(job, unit, folder), _peak_of(folder), pool,
        )  # fmt: skip
        if session.peak is None and plan.passes:
            _look_for_peak(session, folder)
        sinks = {file: SentJournal(to, journal) for file, journal in journals.items()}
        with Neighbours(f"run {job.run_id} on a cluster") as neighbours:
            loop = session.loop_of(neighbours, sinks[store.RECORDS], scratch)
            session.answer(
                loop, neighbours, sinks[store.CURVES], sinks[store.TRAININGS],
                lambda: [*session.before.records, *store.load_run(own).records],
            )  # fmt: skip
        to.post(
            "facts", seconds=session.ledger.seconds(), stops=msgspec.to_builtins(loop.stops),
            workers=loop.pool.libraries, peak=msgspec.to_builtins(session.peak), beside=session.run["beside"],
        )  # fmt: skip
    finally:
        for journal in journals.values():
            journal.close()
        clear_scratch(scratch, ARRAYS)


def _before(unit: WorkUnit, own: Path, to: Messenger) -> store.Loaded:
    """What is kept of this problem: by who asked, and, of a worker that died here, in the journal of this machine."""
    known, found = Known(), dict[str, list[Any]]()
    for file in FILES:
        sent = unit.before.get(file, ())
        here = (own / file).read_bytes().splitlines()
        kept = [(line, known.add(file, line)) for line in (*sent, *here)]
        found[file] = [item for _, item in kept if item is not None]
        if more := [line for line, item in kept[len(sent) :] if item is not None]:
            to.post_lines(file, more)
    return store.Loaded(found[store.RECORDS], found[store.CURVES], {}, {}, [], found[store.TRAININGS])


def _peak_of(folder: Path) -> Peak | None:
    path = folder / "peak.json"
    return msgspec.json.decode(path.read_bytes(), type=Peak) if path.exists() else None


def _look_for_peak(session: RunSession, folder: Path) -> None:
    session.look_for_peak()
    if session.peak is not None:
        store.write_json(folder / "peak.json", msgspec.to_builtins(session.peak))
