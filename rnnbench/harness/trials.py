"""Before the rounds of a first launch: with how many threads each answer is ranked, found by turns that are not."""

from __future__ import annotations

from rnnbench import backends
from rnnbench.analysis.trial import MOST_PAIRS, better, pairs_of
from rnnbench.harness.checker import Checker
from rnnbench.harness.plan import shuffled
from rnnbench.harness.run_state import Choice, RunState, Slot, Task
from rnnbench.harness.worker_client import WorkerFailure
from rnnbench.model import Case
from rnnbench.records.account import TimeKind
from rnnbench.records.record import TrialRecord


class Trials:
    """Chooses for each answer of a task one of the plan's numbers of threads.

    A backend that fails with one of them is ranked with the other. What computes on a GPU, or with one thread however
    many it may use, has nothing to choose, and no process more than it had.
    """

    def __init__(self, state: RunState, checker: Checker) -> None:
        self.state, self.checker, self.plan = state, checker, state.plan
        self.most = max(self.plan.counts)

    def undecided(self, task: Task, name: str) -> list[Case]:
        """The cases of a backend whose threads are to be found."""
        if len(self.plan.counts) == 1 or backends.entry_of(name).gpu or name.endswith(backends.REPLICA):
            return []
        state = self.state
        return [c for c in task.cases if state.asked(c, name) and (c, name) not in state.choices]

    def run(self, task: Task, names: list[str], launch: int) -> None:
        """Make the processes of both numbers ready, let them take turns, and choose.

        Those with all threads come first.
        """
        state = self.state
        cases = {name: found for name in names if (found := self.undecided(task, name))}
        if not cases:
            return
        state.open |= {(case, name) for name, found in cases.items() for case in found}
        try:
            self.checker.make_ready(self._items(task, cases, launch, self.most))
            for name, found in cases.items():
                prepared = state.pool.place(name).prepared
                if prepared and prepared[0].threads <= 1:
                    for case in found:
                        failed = (case, name, self.most) in state.trial_failed
                        self._choose(task, case, name, launch, None if failed else self.most, tried=())
            with state.pool.counting(TimeKind.TRIAL):
                self._compare(task, cases, launch)
        finally:
            state.open.clear()
            self.checker.held.clear()

    def _items(self, task: Task, cases: dict[str, list[Case]], launch: int, threads: int) -> list[list[Slot]]:
        """What a process of each backend is to be ready for."""
        of = {name: [Slot(task, c, name, launch, threads=threads) for c in found] for name, found in cases.items()}
        return [slots for slots in of.values() if slots]

    def _open(self, cases: dict[str, list[Case]]) -> dict[str, list[Case]]:
        return {name: [case for case in found if (case, name) in self.state.open] for name, found in cases.items()}

    def _compare(self, task: Task, cases: dict[str, list[Case]], launch: int) -> None:
        for number, case in enumerate(task.cases):
            names = [name for name, found in self._open(cases).items() if case in found]
            if names:
                for threads in reversed(self.plan.counts):  # no process, or one that died on the case before
                    self.checker.make_ready(self._items(task, self._open(cases), launch, threads))
                self._take_turns(task, case, names, launch, number)

    def _take_turns(self, task: Task, case: Case, names: list[str], launch: int, number: int) -> None:
        """Pairs of turns, backend after backend, until each is decided."""
        state, trials = self.state, {name: list[TrialRecord]() for name in names}
        for pair in range(MOST_PAIRS):
            for i, name in enumerate(shuffled(names, self.plan.seed, launch, number, pair)):
                if (case, name) not in state.open:
                    continue
                ready = all(case.key in state.pool.place(name, n).ready for n in self.plan.counts)
                if ready and self._time_for(case, name):
                    for threads in shuffled(map(str, self.plan.counts), self.plan.seed, launch, number, pair, i):
                        slot = Slot(task, case, name, launch, threads=int(threads))
                        if (record := self._turn(slot, pair)) is None:
                            break
                        trials[name].append(record)
                last = pair == MOST_PAIRS - 1 or not self._time_for(case, name)
                self._decide(task, case, name, launch, trials[name], last=last)

    def _time_for(self, case: Case, name: str) -> bool:
        stopping = self.state.stopping
        return stopping.left > stopping.kept_back and not stopping.over(case, name)

    def _turn(self, slot: Slot, pair: int) -> TrialRecord | None:
        """One turn of a trial; None, and the number of threads is out, where it fails."""
        state, plan, threads = self.state, self.plan, self.state.threads_of(slot)
        state.observer.doing(f"{slot.case.key}, which threads: {slot.backend} with {threads}", state.estimate)
        try:
            with state.stopwatch(("trial", slot.backend, slot.case)):
                reply = self.checker.turn(slot, plan.effort.trial_of(slot.case.pass_), plan.effort.rounds + pair)
        except WorkerFailure as failure:
            state.fail_trial(slot, failure.status, failure.reason)
            return None
        record = TrialRecord(
            **state.common_of(slot.task, slot.case, slot.backend) | {"threads": threads, "tried": plan.counts},
            launch=slot.launch,
            pair=pair,
            samples_ns=tuple(reply["samples_ns"]),
            warmup=reply["warmup"],
            disturbances=tuple(reply["disturbances"]),
        )
        state.emit(record)
        return record

    def _decide(self, task: Task, case: Case, name: str, launch: int, trials: list[TrialRecord], *, last: bool) -> None:
        """Choose where the pairs, or a failure, say which; after the `last` pair in any case."""
        able = [n for n in self.plan.counts if (case, name, n) not in self.state.trial_failed]
        if len(able) == len(self.plan.counts):
            found = better(list(pairs_of(trials).values()), last=last)
            if found is None and not last:
                return
            able = [found or self.most]
        self._choose(task, case, name, launch, able[0] if able else None, tried=self.plan.counts)

    def _choose(
        self, task: Task, case: Case, name: str, launch: int, threads: int | None, *, tried: tuple[int, ...]
    ) -> None:
        """Rank an answer with these threads from now on; None: it failed with any number of them."""
        if (case, name) not in self.state.open:
            return
        self.state.open.discard((case, name))
        self.state.estimate.drop(("trial", name, case))
        if threads is None:
            status, reason = self.state.trial_failed[case, name, self.most]
            self.state.fail(Slot(task, case, name, launch, threads=self.most), status, reason)
            return
        self.state.choices[case, name] = Choice(threads, tried)
        self.checker.release(case, name, threads)
