"""Simulated runs whose truth is known: what the tests and `claims.py` hold the statistics of this project against.

Times are drawn as logarithms, so that a spread of 0.05 is one of 5 %. L launches, R rounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rnnbench.analysis.stats import Summary, summarise
from rnnbench.model import USUAL_PASSES, Case, DType, Model, Pass, Train
from rnnbench.records.record import Mode, Record, Status, TurnKey, TurnRecord

Floats = NDArray[np.float64]
Rng = np.random.Generator

DISTURBED, BY = 0.05, 1.5  # every 20th, by half
QUIET = {"launch": 0.02, "round_": 0.03}
NOISY = {"launch": 0.14, "round_": 0.12}  # as of the runs that docs/decisions/0011 looks at


def turn(
    backend: str, seconds: Sequence[float] | Floats, launch: int, round_: int, run_id: str = "simulated",
    pass_: Pass = Pass.TRAIN_STEP,
) -> TurnRecord:  # fmt: skip
    """A record of a turn whose calls took so many seconds; the case is always the same but for its pass."""
    case = Case("imdb-50", DType.FLOAT32, Model(V=10_000, E=2, H=32, O=1), Train(), B=32, T=50, pass_=pass_)
    return TurnRecord(run_id=run_id, case=case, backend=backend, status=Status.OK, mode=Mode.DEFAULT, launch=launch,
                      round=round_, samples_ns=tuple(round(s * 1e9) for s in seconds))  # fmt: skip


def turns_of(times: Floats | Sequence[Sequence[float]]) -> dict[TurnKey, float]:
    """Seconds (L, R) as turns."""
    return {(0, i, j): float(t) for i, row in enumerate(times) for j, t in enumerate(row)}


def spread_of_both(rng: Rng, launches: int, rounds: int, spread: float) -> Floats:
    """Times (L, R) of truth 1, with so much spread between launches and as much within."""
    return np.exp(rng.normal(0, spread, (launches, 1)) + rng.normal(0, spread, (launches, rounds)))


def side_by_side(rng: Rng, ratio: float, launches: int = 3, rounds: int = 2) -> tuple[Floats, Floats]:
    """Two backends (L, R) that share rounds, the first `ratio` times as slow.

    A drift that both share, 5 % spread of each between and within launches, every 20th turn on a busy core.
    """
    drift = rng.normal(0, 0.3, (launches, 1)) + rng.normal(0, 0.1, (launches, rounds))
    own = rng.normal(0, 0.05, (2, launches, 1)) + rng.normal(0, 0.05, (2, launches, rounds))
    busy = np.where(rng.random(own.shape) < DISTURBED, math.log(BY), 0)
    slow, fast = np.exp(drift + own + busy) * np.array([ratio, 1.0]).reshape(2, 1, 1)
    return slow, fast


def run_of(
    rng: Rng,
    times: Mapping[str, float],
    run_id: str,
    *,
    launches: int,
    rounds: int = 2,
    launch: float = 0.02,
    round_: float = 0.03,
    bursts: float = DISTURBED,
) -> list[Record]:
    """Records of one run: a speed for each process, a spread for each round, and now and then a busy core."""
    made = []
    for name, seconds in times.items():
        for i in range(launches):
            speed = rng.normal(0, launch)
            busy = np.where(rng.random(rounds) < bursts, BY, 1.0)
            turns = seconds * np.exp(speed + rng.normal(0, round_, rounds)) * busy
            made += [turn(name, [t], i, j, run_id) for j, t in enumerate(turns)]
    return made


def twins(
    rng: Rng,
    *,
    names: Sequence[str],
    launches: int = 3,
    rounds: int = 2,
    spread: float = 0.05,
    drift: float = 0.1,
    twin: float = 1.0,
) -> list[Record]:
    """Records of an A/A run in all passes: drift that all share, and a spread of each process and each turn."""
    made = []
    for i in range(launches):
        for pass_ in USUAL_PASSES:
            shared = rng.normal(0, drift, rounds)
            for name in names:
                for own, scale in ((name, 1.0), (f"{name}#2", twin)):
                    turns = scale * np.exp(shared + rng.normal(0, spread) + rng.normal(0, spread, rounds))
                    made += [turn(own, [1e-3 * t], i, j, pass_=pass_) for j, t in enumerate(turns)]
    return made


def series(
    rng: Rng, n: int, at: int | None = None, ratio: float = 1.0, spread: float = 0.03, bursts: float = DISTURBED
) -> list[float]:
    """Times of n runs, now and then one on a busy machine; `ratio` times as long from run `at` on."""
    values = np.exp(rng.normal(0, spread, n)) * np.where(rng.random(n) < bursts, BY, 1.0)
    if at is not None:
        values[at:] *= ratio
    found: list[float] = values.tolist()
    return found


def answer(turns: Mapping[tuple[int, int], Sequence[float] | Floats], backend: str = "numba") -> Summary:
    """`turns`: (launch, round) -> seconds of its calls."""
    return summarise([turn(backend, seconds, *key) for key, seconds in turns.items()])


def drifting(
    rng: Rng, launches: int, rounds: int, drift_rounds: float = 0.0, drift_launches: float = 0.0
) -> Summary:  # fmt: skip
    """One answer with 5 % spread between launches and 2 % within, and so much drift in all over either."""
    turns = {}
    for launch in range(launches):
        own = 0.05 * rng.normal() + drift_launches * launch / max(1, launches - 1)
        for r in range(rounds):
            turns[launch, r] = [np.exp(own + drift_rounds * r / max(1, rounds - 1) + 0.02 * rng.normal())] * 3
    return answer(turns)


# Seconds of n calls of one turn, all with one mode.
ONE_MODE: dict[str, Callable[[Rng, int], Floats]] = {
    "normal": lambda rng, n: 1 + 0.05 * rng.normal(size=n),
    "log-normal": lambda rng, n: np.exp(0.5 * rng.normal(size=n)),
    "exponential": lambda rng, n: 1 + rng.exponential(0.2, n),
    "uniform": lambda rng, n: rng.uniform(1, 1.5, n),
    "every 20th disturbed": lambda rng, n: np.exp(0.02 * rng.normal(size=n)) * (1 + 0.5 * (rng.random(n) < 0.05)),
    "wandering": lambda rng, n: np.exp(0.05 * np.cumsum(rng.normal(size=n)) / np.sqrt(n)),
}


CASES, BACKENDS, LAUNCHES, ROUNDS = 3, 5, 5, 4  # of the runs that are looked at for two speeds: 300 turns


def in_time(rng: Rng, machine: Callable[[Rng, int], Floats]) -> tuple[Floats, NDArray[np.int_]]:
    """Log seconds of N turns in the order of time, and of which answer each is; 5 % between launches and 3 % within.

    `machine` draws what it adds to each of N turns, whosever it is.
    """
    places = [(launch, case) for launch in range(LAUNCHES) for case in range(CASES) for _ in range(ROUNDS)]
    order = [rng.permutation(BACKENDS) for _ in places]
    answers = np.concatenate([case * BACKENDS + names for (_, case), names in zip(places, order, strict=True)])
    launches = np.repeat([launch for launch, _ in places], BACKENDS)
    own = rng.normal(0, 0.05, (CASES * BACKENDS, LAUNCHES))[answers, launches] + rng.normal(0, 0.03, len(answers))
    return own + rng.normal(0, 2, CASES * BACKENDS)[answers] + machine(rng, len(answers)), answers


def switching(rng: Rng, n: int, share: float, stretch: float, slow: float = 1.45) -> Floats:
    """What a machine of two speeds adds: `share` of its turns slow, in stretches of so many on average."""
    change = {False: 1 / (2 * stretch * (1 - share)), True: 1 / (2 * stretch * share)}
    states, state = [], bool(rng.random() < share)
    for chance in rng.random(n):
        states.append(state)
        state ^= bool(chance < change[state])
    return math.log(slow) * np.array(states, float)


def _bursts(rng: Rng, n: int, stretch: float) -> Floats:
    """One turn in 50 begins a stretch, so long on average, in which all take up to e times as long."""
    added, i = np.zeros(n), 0
    while i < n:
        length = rng.geometric(1 / stretch) if rng.random() < 0.02 else 0
        added[i : i + length] = rng.uniform(0, 1)
        i += max(1, length)
    return added


# What a machine of one speed adds to N turns.
ONE_SPEED: dict[str, Callable[[Rng, int], Floats]] = {
    "nothing": lambda rng, n: np.zeros(n),
    "a drift of 30 %": lambda rng, n: np.linspace(0, 0.3, n),
    "a wave of 20 %": lambda rng, n: 0.1 * np.sin(np.linspace(0, 8 * np.pi, n)),
    "a random walk that ends 30 % away": lambda rng, n: 0.3 * np.cumsum(rng.normal(size=n)) / math.sqrt(n),
    "every 20th turn disturbed by half": lambda rng, n: math.log(BY) * (rng.random(n) < DISTURBED),
    "every 5th turn disturbed by half": lambda rng, n: math.log(BY) * (rng.random(n) < 0.2),
    "stretches of 4 turns, up to 2.7 times as long": lambda rng, n: _bursts(rng, n, 4),
    "stretches of 10 turns, up to 2.7 times as long": lambda rng, n: _bursts(rng, n, 10),
}


@dataclass(frozen=True)
class World:
    """How launches differ: logarithms of launch values of any shape, and their median over all launches."""

    shape: str
    draw: Callable[[Rng, tuple[int, ...]], Floats]
    median: float


def _mixed(spread: float, ratio: float, share: float, shape: str) -> World:
    """Launches with a spread, of which a share take `ratio` times as long."""
    from scipy.optimize import brentq
    from scipy.special import ndtr

    step = math.log(ratio)

    def draw(rng: Rng, size: tuple[int, ...]) -> Floats:
        logs: Floats = rng.normal(0, spread, size) + step * (rng.random(size) < share)
        return logs

    def over_half(x: float) -> float:
        return float((1 - share) * ndtr(x / spread) + share * ndtr((x - step) / spread)) - 0.5

    return World(f"spread {100 * spread:g} %, {shape} {ratio:g} times as long", draw, brentq(over_half, -spread, step))


def _disturbed_turns(spread: float, ratio: float, share: float, rounds: int = 4) -> World:
    """Launches with a spread, medians of rounds with as much, of which a share take `ratio` times as long."""

    def draw(rng: Rng, size: tuple[int, ...]) -> Floats:
        busy = rng.random((*size, rounds)) < share
        turns = rng.normal(0, spread, (*size, rounds)) + math.log(ratio) * busy
        logs: Floats = rng.normal(0, spread, size) + np.median(turns, axis=-1)
        return logs

    shape = (
        f"spread {100 * spread:g} % between and within launches of {rounds} rounds, one in 5 {ratio:g} times as long"
    )
    return World(shape, draw, float(np.median(draw(np.random.default_rng(0), (1_000_000,)))))


def worlds() -> dict[str, World]:
    """How launches may differ, by name."""
    return {
        "lognormal": World("spread 5 %", lambda rng, shape: rng.normal(0, 0.05, shape), 0.0),
        "skewed": World(
            "exponential tail, mean 5 %", lambda rng, shape: rng.exponential(0.05, shape), 0.05 * math.log(2)
        ),
        "heavy-tailed": World(
            "Student's t, 3 degrees of freedom, scale 3 %", lambda rng, shape: 0.03 * rng.standard_t(3, shape), 0.0
        ),
        "two modes": _mixed(0.02, 1.2, 0.3, "3 of 10 launches"),
        "two speeds": _mixed(0.02, 1.45, 0.4, "4 of 10 launches"),
        "disturbed": _mixed(0.05, BY, DISTURBED, "every 20th launch"),
        **{f"one in {n}, {by:g}x": _mixed(0.05, by, 1 / n, f"one launch in {n}")
           for n in (5, 3) for by in (1.5, 10, 700)},
        "turns": _disturbed_turns(0.05, 10, 0.2),
    }  # fmt: skip
