"""Observers: they show what runs, how far it is, and how long it will take."""

from __future__ import annotations

import sys
import time
from typing import IO, TYPE_CHECKING, Protocol

from rnnbench.units import rough_duration

if TYPE_CHECKING:
    from rnnbench.harness.plan import Estimate


class Observer(Protocol):
    """What shows a run as it goes, such as a line on a terminal."""

    def doing(self, what: str, estimate: Estimate, case: str = "") -> None:
        """`what` begins now, of a run that keeps an estimate of the time it needs; `case`: which one it times."""

    def show(self, what: str, fraction: float) -> None:
        """`what` begins now, where no estimate is kept."""

    def say(self, text: str) -> None:
        """A sentence for the user."""


class Silent:
    """An observer that shows nothing."""

    def doing(self, what: str, estimate: Estimate, case: str = "") -> None:
        pass

    def show(self, what: str, fraction: float) -> None:
        pass

    def say(self, text: str) -> None:
        pass


class Lines:
    """An observer for notebooks and logs: sentences as they come, a line for each case, and when ten seconds have gone.

    A line says how far it is, how long it takes still, and what runs.
    """

    every = 10.0

    def __init__(self, stream: IO[str] | None = None) -> None:
        self.stream, self.since, self.case = stream, time.monotonic(), ""

    def doing(self, what: str, estimate: Estimate, case: str = "") -> None:
        another = case not in ("", self.case)
        self.case = case or self.case
        if another or self._is_time():
            remaining = estimate.remaining
            fraction = estimate.spent / total if (total := estimate.spent + remaining) else 1.0
            self.say(f"{100 * fraction:3.0f} %, about {rough_duration(remaining)} left: {what}")

    def show(self, what: str, fraction: float) -> None:
        if self._is_time():
            self.say(f"{100 * fraction:3.0f} %: {what}")

    def say(self, text: str) -> None:
        self.since = time.monotonic()
        print(text, file=self.stream or sys.stderr, flush=True)

    def _is_time(self) -> bool:
        return time.monotonic() - self.since >= self.every
