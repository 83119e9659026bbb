"""Runs beside other programs that come and go, by a clock of their own; what is measured again is up to the harness.

Turns of several backends are drawn, and handed to `harness.repeats` and `analysis.stats` as in a run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import SimpleNamespace
from typing import Any

from rnnbench.harness.repeats import Repeats
from rnnbench.harness.run_state import Slot
from rnnbench.records.record import TurnRecord
from worlds import Rng, turn

LAUNCHES, ROUNDS, PASSES = 5, 2, 4
NAMES = ("slow", "fast", "third", "fourth")  # of `RATIO` and 1, and two that take their time
RATIO = 2.0
TURN_SECONDS, READY_SECONDS = 0.1, 20.0  # of a turn, and of starting and checking before the turns of a launch
SPEEDS, SPEED_SECONDS = 1.45, 4.0  # between two speeds of all cores, each for so long on average
HARM, HARM_SPREAD = math.log(2), 0.8  # of what a turn takes beside others, as logarithms
UNHARMED = {"fast": 0.5}  # how often a backend steps aside
LIMIT, MISSED, FALSE = 0.1, 0.05, 0.005  # of its time; how often the judge errs


MADE = {name: turn(name, [1.0], 0, 0) for name in NAMES}
CASE = MADE["fast"].case


class Way(StrEnum):
    """What is done about disturbed turns."""

    COUNT = "they count"
    LEAVE = "left out"
    AGAIN = "measured again"
    ROUND = "their whole rounds again"


@dataclass(frozen=True)
class Others:
    """Programs that run for so many seconds on average, and then rest for so many; always where they never rest."""

    name: str
    busy: float
    rest: float


OTHERS = (Others("2 of 12 s", 2, 10), Others("20 of 60 s", 20, 40), Others("100 of 300 s", 100, 200),
          Others("always", 1, 0))  # fmt: skip


@dataclass
class World:
    """The machine at one moment: whether others are busy, and how fast its cores are."""

    rng: Rng
    others: Others
    now: float = 0.0
    busy: float | None = 0.0  # cores, as a watch has it
    fast: bool = True
    ends: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        others = self.others
        self.busy = float(self.rng.random() < others.busy / (others.busy + others.rest))
        self.look()

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.look()

    def look(self) -> None:
        """Change what has changed by now."""
        others = self.others
        while others.rest and self.now >= self.ends.setdefault("busy", self._until(others.busy, others.rest)):
            self.busy = 1.0 - (self.busy or 0.0)
            self.ends["busy"] += float(self.rng.exponential(others.busy if self.busy else others.rest))
        while self.now >= self.ends.setdefault("speed", float(self.rng.exponential(SPEED_SECONDS))):
            self.fast = not self.fast
            self.ends["speed"] += float(self.rng.exponential(SPEED_SECONDS))

    def _until(self, busy: float, rest: float) -> float:
        return float(self.rng.exponential(busy if self.busy else rest))

    def turn(self, slot: Slot, speed: float, attempt: int) -> TurnRecord:
        """What a backend that needs so long takes now, and whether that is called disturbed."""
        self.look()
        harm = 1.0
        if self.busy and self.rng.random() >= UNHARMED.get(slot.backend, 0.0):
            harm = math.exp(max(0.0, self.rng.normal(HARM, HARM_SPREAD)))
        seconds = speed * harm * (1.0 if self.fast else SPEEDS) * math.exp(self.rng.normal(0, 0.02))
        taken = 1 - 1 / harm
        judged = taken > LIMIT and self.rng.random() >= MISSED
        alarm = taken <= LIMIT and self.rng.random() < FALSE
        self.sleep(TURN_SECONDS)
        assert slot.round is not None
        return replace(
            MADE[slot.backend], launch=slot.launch, round=slot.round, samples_ns=(round(1e6 * seconds),),
            attempt=attempt, disturbed=taken if judged else 2 * LIMIT if alarm else 0.0,
        )  # fmt: skip


def contended_run(rng: Rng, others: Others, way: Way, extra: float = 0.25) -> tuple[list[TurnRecord], float]:
    """The turns of one pass of a run of `PASSES`, and the share of extra time that was spent."""
    world, kept = World(rng, others), list[tuple[int, TurnRecord]]()
    pass_ = 0
    speeds: dict[str, float] = {}

    def measure(slot: Slot, attempt: int = 0) -> None:
        for name in NAMES if attempt and way is Way.ROUND else (slot.backend,):
            one = replace(slot, backend=name)
            record = world.turn(one, speeds[name], attempt)
            kept.append((pass_, record))
            if record.disturbed and (not attempt or name == slot.backend):
                repeats.look_at(slot, record)

    repeats = Repeats(_state(world, extra), world, measure, world.sleep)  # type: ignore[arg-type]
    for launch in range(LAUNCHES):
        world.sleep(READY_SECONDS)
        for number in range(PASSES):
            pass_ = number
            own = rng.normal(0, 0.03, len(NAMES))
            speeds = {name: math.exp(x) * (RATIO if name == "slow" else 1.0)
                      for name, x in zip(NAMES, own, strict=True)}  # fmt: skip
            for round_ in range(ROUNDS):
                for name in rng.permutation(NAMES):
                    measure(Slot(None, CASE, str(name), launch, round_))  # type: ignore[arg-type]
                _again(repeats, way)
            _again(repeats, way)
            repeats.forget()
    found = [replace(r, disturbed=0.0) if way is Way.COUNT else r for p, r in kept if p == 0]
    return found, repeats.ended / (world.now - repeats.ended)


def _again(repeats: Repeats, way: Way) -> None:
    if way in (Way.AGAIN, Way.ROUND):
        repeats.run()


def _state(world: World, extra: float) -> Any:
    """What `Repeats` asks of the state of a run."""

    @contextmanager
    def spend(kind: Any) -> Iterator[None]:
        yield

    stopping = SimpleNamespace(now=lambda: world.now, left=math.inf, done=lambda case, name: False)
    return SimpleNamespace(
        stopping=stopping,
        plan=SimpleNamespace(effort=SimpleNamespace(extra=extra)),
        pool=SimpleNamespace(counting=spend),
        ledger=SimpleNamespace(spend=spend),
        observer=SimpleNamespace(doing=lambda what, estimate: None),
        estimate=SimpleNamespace(of=lambda part: TURN_SECONDS),
        place_of=lambda slot: SimpleNamespace(ready={CASE.key}),
        asked=lambda case, name: True,
    )
