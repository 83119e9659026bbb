"""Disturbed turns, measured again in the same launch: when it is quiet, and for no more than a share of the run's time.

docs/decisions/0039 says why so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from rnnbench.analysis.stats import left_out
from rnnbench.harness.run_state import RunState, Slot
from rnnbench.machine.contention import OthersWatch
from rnnbench.records.account import TimeKind
from rnnbench.records.record import TurnRecord
from rnnbench.units import number

MOST_ATTEMPTS = 4  # of one turn
QUIET_CORES = 0.2  # that others use at most while it is quiet
LONGEST_WAIT = 3.0  # seconds at a time
LOOK_SECONDS = 0.1  # between two looks


class Attempt(NamedTuple):
    """The turn of a slot, and the number of its last attempt, from 0."""

    slot: Slot
    attempt: int


class Repeats:
    """The turns of a task that others disturbed, or in which the machine was suspended, until they are measured well.

    After each round those that are left are measured again, if it is quiet then or becomes so within `LONGEST_WAIT`.
    Where it did not, nobody waits again until a look finds it quiet: such a machine is busy for longer.
    """

    def __init__(
        self,
        state: RunState,
        watch: OthersWatch,
        measure: Callable[[Slot, int], object],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.state, self.watch, self.measure, self.sleep = state, watch, measure, sleep
        self.left: list[Attempt] = []
        self.now = state.stopping.now
        self.begun = self.now()
        self.ended: float = 0.0  # seconds of those that are over
        self.since: float | None = None
        self.patient = True

    @property
    def allowed(self) -> float:
        """Seconds that may still be spent: `extra` of what the run took otherwise so far."""
        spent = self.ended + (0.0 if self.since is None else self.now() - self.since)
        return self.state.plan.effort.extra * (self.now() - self.begun - spent) - spent

    def look_at(self, slot: Slot, record: TurnRecord) -> None:
        """A turn was measured: keep whether it is to be measured again."""
        if (record.disturbed or left_out(record)) and record.attempt + 1 < MOST_ATTEMPTS:
            self.left.append(Attempt(slot, record.attempt))

    def run(self) -> None:
        """Measure again what is left, once each; what is disturbed again is left for the next time."""
        if not self.left:
            return
        with self.again() as allowed:
            if not allowed:
                return
            todo, self.left = self.left, []
            for slot, attempt in todo:
                if self._affords(slot):
                    self.measure(slot, attempt + 1)
                else:
                    self.left.append(Attempt(slot, attempt))

    def forget(self) -> None:
        """The task ends, and with it the processes of its launch."""
        self.left.clear()

    @contextmanager
    def again(self, seconds: float = 0.0) -> Iterator[bool]:
        """Whether so many seconds may be spent in measuring again now, in quiet. What is done inside counts as that."""
        if not self.state.plan.effort.extra:
            yield False
            return
        with self._account():
            yield self.allowed > seconds and self._is_quiet()

    @contextmanager
    def _account(self) -> Iterator[None]:
        if self.since is not None:
            yield
            return
        self.since = self.now()
        try:
            with self.state.pool.counting(TimeKind.AGAIN):
                yield
        finally:
            self.ended, self.since = self.ended + self.now() - self.since, None

    def _affords(self, slot: Slot) -> bool:
        state, seconds = self.state, self.state.estimate.of(("turn", slot.backend, slot.case))
        ready = state.asked(slot.case, slot.backend) and slot.case.key in state.place_of(slot).ready
        in_budget = state.stopping.left > seconds and not state.stopping.done(slot.case, slot.backend)
        return ready and in_budget and self.allowed > seconds

    def _is_quiet(self) -> bool:
        """Now, or after a wait. Where the system does not tell, it is taken for quiet."""
        busy, end = self.watch.busy, self.now() + min(LONGEST_WAIT, self.allowed, self.state.stopping.left)
        while self.patient and busy is not None and busy > QUIET_CORES and self.now() < end:
            text = f"waiting for quiet: other programs use {number(busy)} cores"
            self.state.observer.doing(text, self.state.estimate)
            with self.state.ledger.spend(TimeKind.QUIET):
                self.sleep(LOOK_SECONDS)
            self.watch.look()
            busy = self.watch.busy
        self.patient = busy is None or busy <= QUIET_CORES
        return self.patient
