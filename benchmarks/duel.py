"""Two trees take turns: a process for each, started anew at every launch, cases in shuffled order; and the verdicts.

Processes, requests and limits are those of `rnnbench.harness`, ratios and intervals those of `rnnbench.analysis.stats`:
a ratio within each round, by the best call of each turn; its median over a launch; their median over launches, with
its interval by ranks. Both sides of a ratio ran one right after the other, so what the machine did to both falls out.
"""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cases import Case
from rnnbench.analysis.compare import Verdict
from rnnbench.analysis.stats import Basis, Interval, ratio_of
from rnnbench.harness.plan import shuffled
from rnnbench.harness.worker_client import Limit, WorkerClient, WorkerFailure
from rnnbench.machine.environment import environment
from rnnbench.records.record import Status, TurnKey

HERE = Path(__file__).resolve().parent
SERVE = (str(HERE / "worker.py"),)
SIDES = ("base", "new")
MIN_LAUNCHES = 3  # fewer have no interval
PAUSE = 0.005  # for the threads of the turn before to fall asleep
LIKE = 1e-3  # relative difference of norms: far above rounding, far below another task
OVER = "the time was over before enough was measured"

Turns = list[list[tuple[list[int], list[int]]]]  # by launch and round: the samples of base and of new, nanoseconds
Show = Callable[[str, float], None]


@dataclass(frozen=True)
class Effort:
    """How long a comparison looks: launches, rounds in each, and the length of a turn.

    `budget`: neither a round nor making a case ready begins later than so many seconds after the start.
    """

    launches: int
    rounds: int
    seconds: float = 0.05
    calls: int = 30
    budget: float | None = None


@dataclass
class Measured:
    """What came of a comparison: turns by case; and by case what REF does not have, and what went wrong."""

    turns: dict[str, Turns] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """A case's verdict. Seconds a call at base and at new, new / base, its interval; None where nothing was timed."""

    case: str
    verdict: Verdict
    base: float | None = None
    new: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str | None = None


class Side:
    """A tree and the process that measures it, which is replaced when it died."""

    def __init__(self, name: str, tree: Path, folder: Path, threads: int, timeout: float, serve: Sequence[str]) -> None:
        self.name, self.tree, self.timeout, self.serve = name, tree, timeout, serve
        self.log = folder / f"{name}.log"
        path = os.pathsep.join((str(tree), str(HERE)))  # the tree's package, and the cases that lie here
        self.env = environment(threads, folder / f"cache-{name}") | {"PYTHONPATH": path}
        self.worker: WorkerClient | None = None

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        """The reply. Raises WorkerFailure, whose reason begins with the name of the side."""
        if self.worker is None:
            env = self.env | {"RNNBENCH_PADDING": "x" * random.randrange(4096)}  # the stack starts after it
            self.worker = WorkerClient(self.name, str(self.tree), self.log, env, self.serve)
        try:
            return self.worker.ask(op, Limit(self.timeout), **arguments)
        except WorkerFailure as failure:
            if not failure.alive:
                self.worker = None
            raise WorkerFailure(failure.status, f"{self.name}: {failure.reason}", alive=failure.alive) from failure

    def end(self) -> None:
        """End the process and wait until it is gone."""
        if self.worker is not None:
            self.worker.kill()
            self.worker = None


def unlike(base: Mapping[str, float], new: Mapping[str, float]) -> str | None:
    """Why two answers, norms by name, are not of one task, or None."""
    if base.keys() != new.keys():
        return f"base answers {', '.join(base) or 'nothing'}; new answers {', '.join(new) or 'nothing'}"
    for name, ref in base.items():
        if not abs(new[name] - ref) <= LIKE * abs(ref):
            return f"the norm of {name} is {ref:.6g} at base and {new[name]:.6g} at new: not the same work"
    return None


class Duel:
    """A comparison of two trees over some cases."""

    def __init__(
        self, trees: tuple[Path, Path], folder: Path, threads: int, timeout: float = 300.0, serve: Sequence[str] = SERVE
    ) -> None:
        self.threads = threads
        self.sides = {n: Side(n, tree, folder, threads, timeout, serve) for n, tree in zip(SIDES, trees, strict=True)}

    def measure(self, cases: Sequence[Case], effort: Effort, seed: int, show: Show) -> Measured:
        """Turns of all cases, those left out that one side cannot do. All processes are gone afterwards."""
        measured = Measured()
        names = [str(case) for case in cases]
        rounds = effort.launches * effort.rounds
        end = math.inf if effort.budget is None else time.monotonic() + effort.budget
        for launch in range(effort.launches):
            if time.monotonic() >= end:
                break
            with self._processes():
                for i, name in enumerate(names):
                    if name not in measured.missing | measured.broken and time.monotonic() < end:
                        begun = (launch * effort.rounds + i / len(names) / 2) / (rounds + 0.5)
                        show(f"launch {launch + 1}: compile and check {name}", begun)
                        self._prepare(name, measured)
                for number in range(effort.rounds):
                    if time.monotonic() >= end:
                        break
                    show(f"launch {launch + 1}, round {number + 1}", (launch * effort.rounds + number + 0.5) / rounds)
                    self._round(names, effort, (seed, launch, number), measured)
        return measured

    @contextmanager
    def _processes(self) -> Iterator[None]:
        try:
            yield
        finally:
            for side in self.sides.values():
                side.end()

    def _prepare(self, name: str, measured: Measured) -> None:
        """Both sides at once: nothing is timed."""

        def answer(side: Side) -> Mapping[str, float] | WorkerFailure:
            try:
                return side.ask("prepare", case=name)["answer"]
            except WorkerFailure as failure:
                return failure

        with ThreadPoolExecutor(len(self.sides)) as pool:
            begun = [pool.submit(answer, side) for side in self.sides.values()]
            try:
                base, new = (one.result() for one in begun)
            except BaseException:
                for side in self.sides.values():
                    if (worker := side.worker) is not None:
                        worker.signal()  # whoever waits for its answer is told
                raise
        if isinstance(new, WorkerFailure):
            measured.broken[name] = new.reason
        elif isinstance(base, WorkerFailure):
            where = measured.missing if base.alive and base.status is Status.CRASHED else measured.broken
            where[name] = base.reason
        elif reason := unlike(base, new):
            measured.broken[name] = reason

    def _round(self, names: Sequence[str], effort: Effort, seed: tuple[int, int, int], measured: Measured) -> None:
        """One turn of each side in each case; what fails now is broken, and its turns are forgotten."""
        for name in shuffled(names, *seed):
            if name in measured.missing | measured.broken:
                continue
            samples: dict[str, list[int]] = {}
            try:
                for side in shuffled(SIDES, *seed, names.index(name)):
                    time.sleep(PAUSE)
                    reply = self.sides[side].ask("turn", case=name, seconds=effort.seconds, calls=effort.calls)
                    samples[side] = reply["samples_ns"]
            except WorkerFailure as failure:
                measured.broken[name] = failure.reason
                measured.turns.pop(name, None)
                continue
            launches = measured.turns.setdefault(name, [])
            launches += [[] for _ in range(seed[1] + 1 - len(launches))]
            launches[seed[1]].append((samples["base"], samples["new"]))


def seconds_of(turns: Turns, side: int) -> dict[TurnKey, float]:
    """Seconds a call of each turn of base (0) or new (1): its best call, which the machine disturbed least."""
    rounds = {TurnKey(0, i, j): r[side] for i, launch in enumerate(turns) for j, r in enumerate(launch)}
    return {key: max(min(samples), 1) * 1e-9 for key, samples in rounds.items()}


def placed(ratio: Interval, margin: float) -> Verdict:
    """Where the whole interval lies; inconclusive where it lies across a margin, or was not taken over launches."""
    over, under = 1 + margin, 1 / (1 + margin)
    if ratio.basis is not Basis.LAUNCHES:
        return Verdict.INCONCLUSIVE
    if ratio.low > over:
        return Verdict.SLOWER
    if ratio.high < under:
        return Verdict.FASTER
    return Verdict.SAME if ratio.low >= under and ratio.high <= over else Verdict.INCONCLUSIVE


def findings(names: Sequence[str], measured: Measured, margin: float) -> list[Finding]:
    """A finding for each case, in the order given."""
    found = []
    for name in names:
        base, new = (seconds_of(measured.turns.get(name, []), side) for side in (0, 1))
        ratio = ratio_of(new, base)
        if name in measured.missing:
            found.append(Finding(name, Verdict.MISSING, reason=measured.missing[name]))
        elif name in measured.broken:
            found.append(Finding(name, Verdict.NOT_COMPARABLE, reason=measured.broken[name]))
        elif ratio is None or ratio.basis is not Basis.LAUNCHES:
            found.append(Finding(name, Verdict.INCONCLUSIVE, reason=OVER))
        else:
            b, n = (float(np.median(list(side.values()))) for side in (base, new))
            found.append(Finding(name, placed(ratio, margin), b, n, ratio.value, ratio.low, ratio.high))
    return found


def confirmed(found: Sequence[Finding], again: Sequence[Finding]) -> list[Finding]:
    """What was called slower and was not when it was measured again is inconclusive."""
    repeated = {f.case: f for f in again}

    def settled(f: Finding) -> Finding:
        second = repeated.get(f.case)
        if f.verdict is not Verdict.SLOWER or second is None or second.verdict is Verdict.SLOWER:
            return f
        what = f"{second.ratio:.3f}, {second.verdict}" if second.ratio is not None else str(second.reason)
        return replace(f, verdict=Verdict.INCONCLUSIVE, reason=f"slower by {f.ratio:.3f}; measured again: {what}")

    return [settled(f) for f in found]
