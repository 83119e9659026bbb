"""Observers: they show what runs, how far it is, and how long it will take."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Protocol, TextIO

from rnnbench.units import rough_duration

if TYPE_CHECKING:
    from rnnbench.harness.plan import Estimate


class Observer(Protocol):
    """What shows a run as it goes, such as a line on a terminal."""

    def doing(self, what: str, estimate: Estimate) -> None:
        """`what` begins now, of a run that keeps an estimate of the time it needs."""

    def show(self, what: str, fraction: float) -> None:
        """`what` begins now, where no estimate is kept."""

    def say(self, text: str) -> None:
        """A sentence for the user."""


class Silent:
    """An observer that shows nothing."""

    def doing(self, what: str, estimate: Estimate) -> None:
        pass

    def show(self, what: str, fraction: float) -> None:
        pass

    def say(self, text: str) -> None:
        pass


class Lines:
    """An observer for notebooks and logs: sentences as they come, and every ten seconds what runs and how far it is."""

    every = 10.0

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream, self.since = stream, time.monotonic()

    def doing(self, what: str, estimate: Estimate) -> None:
        self._now_and_then(f"{what}; about {rough_duration(estimate.remaining)} left")

    def show(self, what: str, fraction: float) -> None:
        self._now_and_then(f"{what} ({100 * fraction:.0f} %)")

    def say(self, text: str) -> None:
        print(text, file=self.stream or sys.stderr, flush=True)

    def _now_and_then(self, text: str) -> None:
        if time.monotonic() - self.since >= self.every:
            self.since = time.monotonic()
            self.say(text)
