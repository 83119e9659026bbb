"""Who is told what runs, how far it is, and how long it will take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rnnbench.harness.plan import Estimate


class Observer(Protocol):
    """Who is told, such as a line on a terminal."""

    def doing(self, what: str, estimate: Estimate) -> None:
        """`what` begins now, of a run that keeps an estimate of the time it needs."""

    def show(self, what: str, fraction: float) -> None:
        """`what` begins now, where no estimate is kept."""

    def say(self, text: str) -> None:
        """A sentence for the user."""


def readable(seconds: float) -> str:
    """A duration as people say it."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
