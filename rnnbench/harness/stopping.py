"""When to stop: a plan's rule and budgets, held against what was measured and spent so far."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable

from rnnbench.analysis.stats import counted, turn_seconds
from rnnbench.analysis.stop_rule import precise_enough, stop_of
from rnnbench.harness.plan import Plan
from rnnbench.harness.worker_client import Limit
from rnnbench.model import Case
from rnnbench.records.record import Record, Status, TurnKey, TurnRecord, turns_in
from rnnbench.records.stops import Stop, Why
from rnnbench.units import exact_duration, percent

Answer = tuple[Case, str]  # a case and who answers it
GRACE = 1.0  # seconds that a request may go on after a budget is spent: a turn is not thrown away for less


def _seconds(spent: float) -> str:
    return f"{round(spent, 2):g} s"


class Stopping:
    """Counts turns and seconds, and says what need not be measured any more, and how long a request may take.

    Budgets count from here: a resumed run has them anew. `begun` is when the run did, by `now`. No request outlives a
    budget by more than `GRACE`. What is not a worker's goes on to its end: reading the data, one train step of
    the oracle, and the report.
    """

    def __init__(
        self,
        plan: Plan,
        before: Iterable[Record] = (),
        begun: float | None = None,
    ) -> None:
        self.plan = plan
        self.begun = self.now() if begun is None else begun
        self.timed: dict[Answer, dict[tuple[TurnKey, int], tuple[TurnRecord, float]]] = {}  # by turn and attempt
        self.seconds: defaultdict[Answer, float] = defaultdict(float)
        self.settled: set[Case] = set()
        self.given_up: set[Answer] = set()  # no budget was left for more of them
        self.kept_back = 0.0  # seconds of the run's budget that are not for the requests of now
        for record in turns_in(before):
            self.add(record)

    def now(self) -> float:
        """Seconds of a clock that never goes back."""
        return time.monotonic()

    def add(self, record: TurnRecord) -> None:
        """A turn was measured."""
        value = turn_seconds(record)
        if record.status is Status.OK and value is not None:
            self.timed.setdefault((record.case, record.backend), {})[record.key, record.attempt] = record, value

    def turns(self, answer: Answer) -> dict[TurnKey, float]:
        """Turn -> seconds a call, of the turns that count so far."""
        timed = self.timed.get(answer, {})
        return {r.key: timed[r.key, r.attempt][1] for r in counted(record for record, _ in timed.values())}

    def charge(self, case: Case, name: str, seconds: float) -> None:
        """So much of a case's budget is spent."""
        self.seconds[case, name] += seconds

    @property
    def left(self) -> float:
        """Seconds left of the run's budget; infinite where it has none."""
        return float("inf") if self.plan.budget is None else self.plan.budget - (self.now() - self.begun)

    def limit(self, *spent: float) -> Limit:
        """How long a request may take from now on.

        `spent` are the seconds that each of the cases that share it has taken of its budget: the request may go on
        until the last of them is spent.
        """
        plan, limits = self.plan, [Limit(self.plan.timeout)]
        if plan.budget is not None:
            gone = (
                f"{_seconds(self.now() - self.begun)} of the run's budget of {exact_duration(plan.budget)} had gone by"
            )
            left = self.left - self.kept_back if self.kept_back else self.left + GRACE
            limits.append(Limit(left, f"{gone} before; raise --budget, or go on with --resume"))
        if plan.case_budget is not None and spent:
            left = len(spent) * (plan.case_budget - min(spent)) + GRACE
            gone = f"{_seconds(min(spent))} of the case's budget of {exact_duration(plan.case_budget)} had gone by"
            limits.append(Limit(left, f"{gone} before; raise --case-budget, with --resume too"))
        return min(limits, key=lambda limit: limit.seconds)

    def limit_of(self, cases: Iterable[Case], name: str) -> Limit:
        """How long a request of one backend may take that these cases share."""
        return self.limit(*(self.seconds[case, name] for case in cases))

    def over(self, case: Case, name: str) -> bool:
        """Whether this backend has spent its budget for the case."""
        return self.plan.case_budget is not None and self.seconds[case, name] >= self.plan.case_budget

    def done(self, case: Case, name: str) -> bool:
        """Whether nothing more is to be measured of this backend in this case."""
        return case in self.settled or (case, name) in self.given_up or self.over(case, name)

    def settle(self, launch: int, answers: Iterable[Answer]) -> None:
        """Before a launch: the cases of which every answer is precise enough by the launches before it.

        `answers` are those that did not fail. A case goes on for all its backends or for none, so that their rounds
        stay pairs.
        """
        rule = self.plan.rule
        if rule is None or launch < rule.min_launches:
            return
        open_: dict[Case, bool] = {}
        for case, name in answers:
            if not self.done(case, name):
                before = {key: s for key, s in self.turns((case, name)).items() if key[1] < launch}
                open_[case] = open_.get(case, False) or not precise_enough(rule, before)
        self.settled |= {case for case, needs_more in open_.items() if not needs_more}

    def stops(self, answers: Iterable[Answer]) -> dict[str, dict[str, Stop]]:
        """Case key -> backend -> why it was measured no further, of those that were timed and did not fail.

        Of an interrupted run those are left out that were to be measured further.
        """
        found: dict[str, dict[str, Stop]] = {}
        for case, name in answers:
            if (case, name) in self.timed and (stop := self._stop(case, name)):
                found.setdefault(case.key, {})[name] = stop
        return found

    def _stop(self, case: Case, name: str) -> Stop | None:
        plan, turns = self.plan, self.turns((case, name))
        if plan.rule is not None and precise_enough(plan.rule, turns):
            return stop_of(Why.PRECISE, turns, percent(plan.rule.precision))
        if self.over(case, name):
            return stop_of(Why.CASE_BUDGET, turns, exact_duration(plan.case_budget or 0.0))
        # a launch that was resumed is one
        rounds = {(launch, round_) for (_, launch, round_), _ in self.timed[case, name]}
        if len(rounds) < plan.launches[1] * plan.effort.rounds:
            spent = self.left <= 0 or (case, name) in self.given_up
            return stop_of(Why.BUDGET, turns, exact_duration(plan.budget or 0.0)) if spent else None
        return stop_of(Why.ALL if plan.rule is None else Why.CAP, turns, f"{plan.launches[1]} launches")

    def why_skipped(self, case: Case, name: str) -> str:
        """The reason of an answer that has not been timed at all."""
        if self.over(case, name):
            limit, spent = exact_duration(self.plan.case_budget or 0.0), _seconds(self.seconds[case, name])
            return f"checks and compiling took {spent}, the budget of a case is {limit}; raise --case-budget"
        return (
            f"the budget of {exact_duration(self.plan.budget or 0.0)} was spent before its first round; "
            "raise --budget, or go on with --resume"
        )
