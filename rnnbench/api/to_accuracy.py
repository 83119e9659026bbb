"""Time to accuracy: every backend of a run trains each workload, from several seeds, until an accuracy is reached.

docs/decisions/0054 says what is inside the clock, and what is the same for all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rnnbench import backends
from rnnbench.analysis.accuracy import UNTRAINED
from rnnbench.harness.plan import Plan, matches, shuffled
from rnnbench.harness.run_state import RunState
from rnnbench.harness.tasks import load_rows, refused_sizes, workload_of
from rnnbench.harness.to_accuracy import ToAccuracy, case_of
from rnnbench.harness.train import Training
from rnnbench.harness.worker_pool import WorkerPool
from rnnbench.model import Case, DType, Problem
from rnnbench.params import cast, init_params
from rnnbench.records.account import TimeKind
from rnnbench.records.record import COLD, WARM, Mode, Record, Status, TrainingRecord
from rnnbench.units import percent
from rnnbench.workloads.base import MADE_UP, Dataset, Workload

SEEDS = 5
GIVEN_UP = 2  # trainings of one backend that failed: the others would, and each may take long
ENDED = (Status.OK, Status.SKIPPED)  # by itself, or by its budget; with any other status it failed

Emit = Callable[[TrainingRecord], None]


def with_seeds(plan: Plan, seeds: int | None) -> Plan:
    """The plan with the number of its trainings to an accuracy. Raises ValueError for what cannot be trained so."""
    until = plan.until_accuracy
    if until is None:
        if seeds is not None:
            raise ValueError(f"{seeds} seeds are of no use without an accuracy to train to; give --until-accuracy too")
        return plan
    if not 0 < until <= 1:
        raise ValueError(f"the accuracy is {until:g}; it must be above 0 and at most 1, such as 0.8")
    if seeds is not None and seeds < 1:
        raise ValueError(f"seeds = {seeds}; it must be at least 1")
    for spec in plan.workloads:
        if not spec.model.loss.has_accuracy:
            raise ValueError(f"{spec.name} has the loss {spec.model.loss}, which has no classes, so it has no accuracy")
        if spec.made_up or spec.origin == MADE_UP:
            raise ValueError(f"{spec.name} has random rows, with nothing to learn; give a workload of real rows")
    return replace(plan, seeds=seeds or (1 if plan.mode is Mode.QUICK else SEEDS))


def names_of(plan: Plan, problem: Problem) -> list[str]:
    """The backends that the plan has trained, which its filter may leave out."""
    line = f"{problem.name} {problem.dtype}"
    return [n for n in plan.backends if not n.endswith(backends.REPLICA) and matches(plan.filter, f"{line} {n}")]


def asked_trainings(plan: Plan) -> Iterator[tuple[str, str]]:
    """What is trained to which accuracy, and each backend that is asked to."""
    for spec in plan.workloads if plan.until_accuracy else ():
        for dtype in plan.dtypes:
            problem = spec.problem(dtype, plan.truncation)
            for name in names_of(plan, problem):
                yield f"{problem.name} {dtype} to {percent(plan.until_accuracy or 0.0)}", name


def trainings_to_accuracy(
    state: RunState,
    emit: Emit,
    before: Sequence[TrainingRecord],
    answers: Sequence[Record],
    given: Mapping[str, Workload],
    run_folder: Path,
) -> None:
    """All trainings that the plan asks for and that are not among those `before`, while there is a budget for them.

    `answers` are those to the passes, where the run has any: what was wrong there is not trained.
    """
    plan, observer = state.plan, state.observer
    if plan.until_accuracy is None:
        return
    refused = refused_sizes(plan, trained=True)
    for number, spec in enumerate(plan.workloads):
        with state.ledger.spend(TimeKind.DATA):
            workload, dataset = load_rows(workload_of(spec, given, run_folder), plan.seed, plan.data_dir, observer.say)
        for dtype in plan.dtypes:
            if reason := refused.get((spec.name, dtype)):
                observer.say(f"{spec.name} was not trained: {reason}")
                continue
            cache = state.folder / "cache" / f"to-accuracy-{number}-{dtype}"
            OneProblem(state, emit, before, answers, plan.until_accuracy, workload, dataset, dtype, cache).run()


@dataclass
class OneProblem:
    """The trainings of one workload in one type, by all backends but those with a wrong answer to a pass.

    `cache` is where compilers keep code, for these trainings alone.
    """

    state: RunState
    emit: Emit
    before: Sequence[TrainingRecord]
    answers: Sequence[Record]
    until: float
    workload: Workload
    dataset: Dataset
    dtype: DType
    cache: Path
    failures: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.problem = self.workload.spec.problem(self.dtype, self.state.plan.truncation, self.dataset.train)
        self.case: Case = case_of(self.training(self.state.plan.seed))
        wrong = [r for r in self.answers if r.status is Status.WRONG and r.case.dtype is self.dtype]
        self.wrong = {r.backend for r in wrong if r.case.name == self.problem.name}
        self.mine = [r for r in self.before if r.case == self.case]
        for r in self.mine:
            self._count(r)

    @property
    def label(self) -> str:
        """The workload and the accuracy: `imdb-50 to 80 %`."""
        return f"{self.problem.name} to {percent(self.until)}"

    def training(self, seed: int) -> Training:
        """That of one seed, which parameters and order come from; the rows are those of the run."""
        workload = self.workload
        params = cast(init_params(workload.model, workload.init, seed), self.dtype)
        return Training(self.problem, params, self.dataset, workload.epochs, seed, self.state.run_id, workload.expect)

    def run(self) -> None:
        """All that are left, in turns: each seed by every backend, in shuffled order."""
        state, plan = self.state, self.state.plan
        pool = WorkerPool(
            plan.backends, state.folder, plan.threads, plan.timeout, self.cache, state.ledger, state.stopping.limit,
            plan.env,
        )  # fmt: skip
        part = 1 + max((r.part for r in (*state.before, *self.before)), default=-1)
        common = {"mode": plan.mode, "machine_id": state.machine_id, "part": part}
        trainer = ToAccuracy(pool, self.until, plan.case_budget, common)
        todo = list(self._todo())
        try:
            with pool.counting(TimeKind.TRAINING):
                for number, (name, seed, cache) in enumerate(todo):
                    if self.failures[name] >= GIVEN_UP:
                        continue
                    if state.stopping.left <= 0:
                        return
                    how = "with cold caches" if cache == COLD else f"seed {seed}"
                    state.observer.show(f"training {self.label}, {how}: {name}", number / len(todo))
                    record = trainer.train(self.training(seed), name, plan.seed, cache)
                    if record.status is Status.SKIPPED and state.stopping.left <= 0:
                        return  # the run has ended, which says nothing of the training
                    self._keep(record)
        finally:
            pool.kill()
            for name, facts in pool.libraries.items():
                state.pool.libraries.setdefault(name, facts)

    def _todo(self) -> Iterator[tuple[str, int, str]]:
        """Backend, seed and cache of each training to come; what is missing here gets its record."""
        plan = self.state.plan
        names = names_of(plan, self.problem)
        for name in names:
            if self.failures[name]:
                continue
            if name in self.wrong:
                self._keep(self._untrained(name, Status.WRONG, "its answer to a pass was not the oracle's"))
            elif reason := backends.missing(name, plan.env):
                self._keep(self._untrained(name, Status.UNAVAILABLE, reason))
        done = {(r.backend, r.seeds.params, r.cache) for r in self.mine}
        kept = self.cache.is_dir()
        for name in names:
            entry = backends.entry_of(name)
            compiles = entry.caches and (entry.compiles or entry.compiler)
            if compiles and not (kept and (name, plan.seed, COLD) in done):
                yield name, plan.seed, COLD
        for seed in range(plan.seed, plan.seed + plan.seeds):
            for name in shuffled(names, plan.seed, seed):
                if (name, seed, WARM) not in done:
                    yield name, seed, WARM

    def _untrained(self, name: str, status: Status, reason: str) -> TrainingRecord:
        plan, state = self.state.plan, self.state
        return TrainingRecord(
            run_id=state.run_id, case=self.case, backend=name, status=status, reason=reason,
            mode=plan.mode, machine_id=state.machine_id, data_source=self.dataset.source,
            until=self.until, max_epochs=self.workload.epochs,
        )  # fmt: skip

    def _keep(self, record: TrainingRecord) -> None:
        self._count(record)
        self.emit(record)
        if record.status not in (Status.OK, *UNTRAINED):
            which = f"{record.backend} in training {self.label}, {record.moment}"
            self.state.observer.say(f"{which}: {record.status}. {record.reason}")

    def _count(self, record: TrainingRecord) -> None:
        if record.status not in ENDED:
            self.failures[record.backend] += GIVEN_UP if record.status in UNTRAINED else 1
