"""How long a request may take, and what it means when it takes longer: the backend hangs, or a budget is spent."""

from __future__ import annotations

from dataclasses import dataclass

from rnnbench.records.record import Status


@dataclass(frozen=True)
class Limit:
    """Seconds from now. `budget` says which budget ends there, how much of it is spent, and the way out.

    Without it whoever takes longer hangs: that is a fault of the backend, where a spent budget is none.
    """

    seconds: float
    budget: str | None = None

    @property
    def status(self) -> Status:
        """Of a request that took longer."""
        return Status.TIMEOUT if self.budget is None else Status.SKIPPED

    def reason(self, op: str) -> str:
        """Why a request was ended."""
        if self.budget is None:
            return f"{op} took longer than the limit of {self.seconds:g} s; raise it with --timeout"
        return f"{op} was ended after {self.seconds:.3g} s: {self.budget}"
