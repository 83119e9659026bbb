"""The clock: time the calls of one turn, and nothing but the calls."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rnnbench.backends.base import DeviceClock, Session
from rnnbench.model import Pass
from rnnbench.records.steps import Counts, counted_steps

Clock = Callable[[], int]  # nanoseconds, never going back

WARMUP_NS = 10_000_000
MAX_WARMUPS = 3
STEP_WARMUP_NS = 10_000_000  # single steps that begin within so long are warm-ups, but for half of them
STEP_BLOCKS = 50  # in so many parts at most their medians are kept
SETTLE_NS = 5_000_000  # from one backend's turn to the next one's calls: its pools of threads fall asleep meanwhile


@dataclass(frozen=True)
class Turn:
    """How long a turn lasts: for `seconds` or `max_calls`, whichever is less, but for `min_calls` at least.

    Nor does it end by `max_calls` before `least` seconds, which short calls take to become steady.
    """

    seconds: float
    min_calls: int
    max_calls: int
    least: float = 0.0


def call_of(session: Session, pass_: Pass, order: NDArray[np.int64] | None) -> Callable[[], None]:
    """The one call that is timed for a pass; of `step` each call is the next time step of the current batch."""
    if pass_ is Pass.STEP:
        steps = session.begin_steps()
        inputs = itertools.cycle(steps.inputs)

        def one() -> None:
            steps.take(next(inputs))

        return one
    if pass_ is Pass.EPOCH:
        if order is None:
            raise ValueError("the epoch pass needs an order of rows; got None")
        return session.epoch_of(order)
    call: Callable[[], None] = getattr(session, str(pass_))
    return call


def time_call(call: Callable[[], None], synchronize: Callable[[], None], clock: Clock = time.perf_counter_ns) -> int:
    """Nanoseconds from before the call until its work is done; at least 1, where a coarse clock has not moved."""
    start = clock()
    call()
    synchronize()
    return max(1, clock() - start)


class DeviceTimes:
    """The calls of a turn in nanoseconds by the device's own clock; nothing where it has none.

    The marks stand inside the wall clock and are read outside it.
    """

    def __init__(self, clock: DeviceClock | None = None) -> None:
        self.clock = clock
        self.ns: list[int] = []

    def around(self, call: Callable[[], None]) -> Callable[[], None]:
        """The call between its two marks."""
        device = self.clock
        if device is None:
            return call

        def marked() -> None:
            device.start()
            call()
            device.stop()

        return marked

    def keep(self) -> None:
        """Read the marks of the call before, whose work is done."""
        if self.clock is not None:
            self.ns.append(max(1, self.clock.nanoseconds()))


def begin_turn(session: Session, idle_ns: int = 0) -> int:
    """Back to the initial parameters and the first batch, once other workers' threads sleep; returns ns slept.

    `idle_ns` is how long no worker has computed by then.
    """
    begun = time.perf_counter_ns()
    session.reset()
    session.select(0)
    session.synchronize()
    gc.collect()
    rest = max(0, SETTLE_NS - idle_ns - (time.perf_counter_ns() - begun))
    time.sleep(rest / 1e9)
    return rest


def time_turn(
    session: Session,
    pass_: Pass,
    turn: Turn,
    batches: int,
    order: NDArray[np.int64] | None = None,
    clock: Clock = time.perf_counter_ns,
    device: DeviceTimes | None = None,
) -> list[int]:
    """Samples of one turn in nanoseconds, one call each, warm-ups first.

    After `begin_turn` it goes round the staged batches, so that every backend meets the same numbers however many calls
    it makes. Choosing the batch stands outside the clock; the collector of garbage is off meanwhile. `device` keeps
    the same calls by the device's clock.
    """
    device = device or DeviceTimes()
    call = device.around(call_of(session, pass_, order))
    samples: list[int] = []
    gc.disable()
    try:
        begun = clock()
        least, end = (begun + int(seconds * 1e9) for seconds in (turn.least, turn.seconds))
        while len(samples) < turn.min_calls or clock() < (end if len(samples) < turn.max_calls else min(least, end)):
            session.select(len(samples) % batches)
            samples.append(time_call(call, session.synchronize, clock))
            device.keep()
    finally:
        gc.enable()
    return samples


@dataclass(frozen=True)
class StepTimes:
    """A turn of single time steps: `samples` are medians of successive steps, the first that of the warm-ups; `counts`
    of all other steps how many took how long; `total` nanoseconds of them all.
    """

    samples: list[int]
    counts: Counts
    total: int


def time_steps(session: Session, turn: Turn, clock: Clock = time.perf_counter_ns) -> StepTimes:
    """Time each step by itself, after `begin_turn`: the first batch's rows over and over, the states going on.

    Choosing the inputs of a step stands outside the clock.
    """
    (inputs, step), synchronize = session.begin_steps(), session.synchronize
    each: list[int] = []
    gc.disable()
    try:
        end = clock() + int(turn.seconds * 1e9)
        while len(each) < turn.min_calls or (len(each) < turn.max_calls and clock() < end):
            for x in inputs:
                start = clock()
                step(x)
                synchronize()
                each.append(max(1, clock() - start))
    finally:
        gc.enable()
    warm = min(_begun_within(each, STEP_WARMUP_NS), len(each) // 2)
    kept = each[warm:]
    block = -(-len(kept) // STEP_BLOCKS)
    blocks = [each[:warm]] * bool(warm) + [kept[i : i + block] for i in range(0, len(kept), block)]
    return StepTimes([max(1, round(float(np.median(part)))) for part in blocks], counted_steps(kept), sum(each))


def _begun_within(samples: Iterable[int], ns: int) -> int:
    """How many samples at the front were begun within so many nanoseconds of calls."""
    begun, count = 0, 0
    for sample in samples:
        if begun >= ns:
            break
        begun += sample
        count += 1
    return count


def warmups(samples: list[int]) -> int:
    """How many samples at the front are warm-ups: at most 3, begun in the first 10 ms of calls, never all of them."""
    return _begun_within(samples[: min(MAX_WARMUPS, len(samples) - 1)], WARMUP_NS)
