"""The account of a run's time: a stopwatch for each kind, of which one runs at any moment."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rnnbench.records.account import TimeKind


class Ledger:
    """Seconds by kind, every one since it was made counted once.

    What is spent inside another kind is not counted there. It is the time of one thread, the one that made the ledger;
    what it waits for others is divided by what they do meanwhile (`wait`).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock, self.since = clock, clock()
        self.open: list[TimeKind] = [TimeKind.REST]
        self.spent: defaultdict[TimeKind, float] = defaultdict(float)
        self.thread = threading.get_ident()
        self.others: dict[int, Ledger] = {}  # by thread

    @contextmanager
    def spend(self, kind: TimeKind) -> Iterator[None]:
        """Count what happens inside as `kind`."""
        if (thread := threading.get_ident()) != self.thread:
            if thread not in self.others:
                self.others[thread] = Ledger(self.clock)
            with self.others[thread].spend(kind):
                yield
            return
        self._close()
        self.open.append(kind)
        try:
            yield
        finally:
            self._close()
            self.open.pop()

    @contextmanager
    def wait(self) -> Iterator[None]:
        """Count the time inside, in which others work, by the shares of what they do, if that is of any kind."""
        kind, begun = self.open[-1], self.clock()
        self.others.clear()
        yield
        waited, shares = self.clock() - begun, defaultdict[TimeKind, float](float)
        for other in self.others.values():
            for done, seconds in other.spent.items():
                shares[done] += seconds if done is not TimeKind.REST else 0.0
        for done, seconds in shares.items():
            if seconds:
                self.move(waited * seconds / sum(shares.values()), kind, done)

    def move(self, seconds: float, source: TimeKind, target: TimeKind) -> None:
        """Count some seconds of one kind as another: the reply to a request says what they were for."""
        if threading.get_ident() == self.thread:
            self.spent[source] -= seconds
            self.spent[target] += seconds

    def seconds(self, before: dict[TimeKind, float] | None = None) -> dict[str, float]:
        """Seconds by kind until now, and those of the parts of the run `before`; rounded to milliseconds."""
        self._close()
        kinds = {kind: self.spent[kind] + (before or {}).get(kind, 0.0) for kind in TimeKind}
        return {str(kind): round(s, 3) for kind, s in kinds.items() if s}

    def _close(self) -> None:
        now = self.clock()
        self.spent[self.open[-1]] += now - self.since
        self.since = now
