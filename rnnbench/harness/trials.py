"""Before the rounds of a launch: with how many threads each answer is ranked, found by turns that are not.

In the first launch; where others disturbed that, in the next ones. docs/decisions/0033 and 0045 say why so.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import nullcontext
from typing import TYPE_CHECKING

from rnnbench import backends
from rnnbench.analysis.trial import MOST_PAIRS, decision_of
from rnnbench.harness.checker import Checker
from rnnbench.harness.plan import shuffled
from rnnbench.harness.repeats import MOST_ATTEMPTS
from rnnbench.harness.run_state import Choice, RunState, Slot, Task
from rnnbench.harness.stopping import Answer
from rnnbench.harness.worker_client import WorkerFailure
from rnnbench.model import Case
from rnnbench.records.account import TimeKind
from rnnbench.records.record import TrialRecord
from rnnbench.records.stops import MIN_LAUNCHES

if TYPE_CHECKING:
    from rnnbench.harness.run_loop import TurnTimer


class Trials:
    """Chooses for each answer of a task one of the plan's numbers of threads.

    A backend that fails with one of them is ranked with the other. What computes on a GPU, or with one thread however
    many it may use, has nothing to choose, and no process more than it had. Pairs that others disturb are measured
    again, as turns are; where that is in vain the next launches decide anew, as long as they are `MIN_LAUNCHES`.
    """

    def __init__(self, state: RunState, checker: Checker, timer: TurnTimer | None) -> None:
        self.state, self.checker, self.timer, self.plan = state, checker, timer, state.plan
        self.most = max(self.plan.counts)
        self.made: defaultdict[Answer, list[TrialRecord]] = defaultdict(list)

    def undecided(self, task: Task, name: str, launch: int) -> list[Case]:
        """The cases of a backend whose threads are to be found."""
        if len(self.plan.counts) == 1 or backends.entry_of(name).gpu or name.endswith(backends.REPLICA):
            return []
        state = self.state
        asked = [c for c in task.cases if state.asked(c, name)]
        if not launch:
            return [c for c in asked if (c, name) not in state.choices]
        if launch > self.plan.launches[0] - MIN_LAUNCHES:
            return []
        return [c for c in asked if (c, name) in state.doubtful and not state.stopping.done(c, name)]

    def run(self, task: Task, names: list[str], launch: int) -> None:
        """Make the processes of both numbers ready, let them take turns, and choose.

        Those with all threads come first.
        """
        cases = {name: found for name in names if (found := self.undecided(task, name, launch))}
        if not cases or self.timer is None:
            return
        if not launch:
            self._find(task, cases, launch)
            return
        ranked = defaultdict[tuple[str, int], list[Slot]](list)
        for slot in (Slot(task, case, name, launch) for name, found in cases.items() for case in found):
            ranked[slot.backend, self.state.threads_of(slot)].append(slot)
        self.checker.make_ready(ranked.values())  # are needed in any case
        self.timer.watch.refresh()
        with self.timer.repeats.again() as allowed:
            cases = self._affordable(task, cases, launch) if allowed else {}
            if cases:
                self._find(task, cases, launch)

    def _affordable(self, task: Task, cases: dict[str, list[Case]], launch: int) -> dict[str, list[Case]]:
        """As many as fit in the extra time, with the processes that would not be asked otherwise."""
        assert self.timer is not None
        found, seconds, of = {}, 0.0, self.state.estimate.of
        for name, open_ in cases.items():
            for threads in set(self.plan.counts) - {self.state.choice_of(case, name).threads for case in task.cases}:
                seconds += of(("start", name, threads)) + of(("check", name, threads, task.problem))
            seconds += sum(len(self.plan.counts) * MOST_PAIRS * of(("trial", name, case)) for case in open_)
            if seconds > self.timer.repeats.allowed:
                break
            found[name] = open_
        return found

    def _find(self, task: Task, cases: dict[str, list[Case]], launch: int) -> None:
        state = self.state
        state.open |= {(case, name) for name, found in cases.items() for case in found}
        try:
            self.checker.make_ready(self._items(task, cases, launch, self.most))
            for name, found in cases.items():
                prepared = state.pool.place(name).prepared
                for case in found:
                    if prepared and prepared[0].threads_in(case.pass_) <= 1:
                        failed = (case, name, self.most) in state.trial_failed
                        self._choose(task, case, name, launch, None if failed else self.most, tried=())
            with state.pool.counting(TimeKind.AGAIN if launch else TimeKind.TRIAL):
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
        """Pairs of turns, backend after backend, until each is decided. What others disturbed is measured again."""
        assert self.timer is not None
        for pair in range(MOST_PAIRS * MOST_ATTEMPTS):
            left = [name for name in names if (case, name) in self.state.open]
            if not left:
                return
            seconds = len(self.plan.counts) * sum(self.state.estimate.of(("trial", name, case)) for name in left)
            last = pair == MOST_PAIRS * MOST_ATTEMPTS - 1
            with nullcontext(True) if pair < MOST_PAIRS else self.timer.repeats.again(seconds) as allowed:
                for i, name in enumerate(shuffled(left, self.plan.seed, launch, number, pair)):
                    ready = all(case.key in self.state.pool.place(name, n).ready for n in self.plan.counts)
                    if allowed and ready and self._time_for(case, name):
                        for threads in shuffled(map(str, self.plan.counts), self.plan.seed, launch, number, pair, i):
                            slot = Slot(task, case, name, launch, threads=int(threads))
                            if (record := self._turn(slot, pair)) is None:
                                break
                            self.made[case, name].append(record)
                    over = last or not allowed or not self._time_for(case, name)
                    self._decide(task, case, name, launch, last=over)

    def _time_for(self, case: Case, name: str) -> bool:
        stopping = self.state.stopping
        return stopping.left > stopping.kept_back and not stopping.over(case, name)

    def _turn(self, slot: Slot, pair: int) -> TrialRecord | None:
        """One turn of a trial; None, and the number of threads is out, where it fails."""
        state, plan, threads = self.state, self.plan, self.state.threads_of(slot)
        assert self.timer is not None
        state.observer.doing(f"{slot.case.key}, which threads: {slot.backend} with {threads}", state.estimate)
        try:
            with state.stopwatch(("trial", slot.backend, slot.case)):
                turn = plan.effort.trial_of(slot.case.pass_)
                reply, contention, disturbed = self.timer.ask(slot, turn, plan.effort.rounds + pair)
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
            contention=contention,
            disturbed=disturbed,
        )
        state.emit(record)
        return record

    def _decide(self, task: Task, case: Case, name: str, launch: int, *, last: bool) -> None:
        """Choose where the pairs, or a failure, say which; after the `last` pair in any case.

        Where others disturbed too many of them, a choice that was made before stays.
        """
        state, answer = self.state, (case, name)
        able = [n for n in self.plan.counts if (case, name, n) not in state.trial_failed]
        if len(able) == len(self.plan.counts):
            found = decision_of(self.made[answer], last=last)
            if found is None and not last:
                return
            if found is None or found.sure:
                state.doubtful.discard(answer)
            else:
                state.doubtful.add(answer)
            known = state.choices.get(answer)
            able = [known.threads if known and answer in state.doubtful else found.threads if found else self.most]
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
