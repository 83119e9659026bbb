"""Do the claims of this project hold? `python validation/claims.py`: every percentage that its documents simulated.

Runs whose truth is known are drawn (`worlds.py`) and given to the functions of `rnnbench.analysis`; counted is how
often intervals hold the truth and alarms are false. The same seed prints the same figures.
"""

from __future__ import annotations

import math
import signal
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this tree's rnnbench, whichever is installed

from contended import LAUNCHES as CONTENDED_LAUNCHES
from contended import NAMES, OTHERS, RATIO, ROUNDS, Way, contended_run
from rnnbench.analysis.changepoints import LEVEL, steps
from rnnbench.analysis.compare import Ratio, Verdict, judge, launch_logs, launches_needed, ratio_of_runs
from rnnbench.analysis.diagnostics import BIMODAL, bimodal, drifts, separation
from rnnbench.analysis.noise import noise_of
from rnnbench.analysis.speeds import speeds_of
from rnnbench.analysis.stats import Basis, Interval, Metric, interval_of, ratio_of, summarise
from rnnbench.analysis.stop_rule import precise_enough
from rnnbench.analysis.trial import FEWEST_PAIRS, MOST_PAIRS, better
from rnnbench.harness.plan import EFFORTS
from rnnbench.records.record import Mode
from rnnbench.records.stops import DEFAULT_MIN_LAUNCHES, StopRule
from worlds import (
    BY,
    DISTURBED,
    NOISY,
    ONE_MODE,
    ONE_SPEED,
    QUIET,
    Floats,
    Rng,
    World,
    answer,
    drifting,
    in_time,
    run_of,
    series,
    side_by_side,
    spread_of_both,
    switching,
    turns_of,
    twins,
    worlds,
)

OK, BROKEN, USAGE, INTERRUPTED = 0, 1, 2, 130
MIN_RUNS = 10  # runs
Part = Callable[[int, int | None], Iterator["Table"]]  # seed; runs, None for as many as the documents state
LAUNCHES = (3, 5, 10, 20, 30)
MARGIN = 0.05
COVER = {"claimed": "95 %", "least": 0.90, "most": 0.99}  # more would be wider than it need be
SURE = 0.999  # confidence at which a bound counts as broken: of 100 rows one in ten thousand runs is so by chance


@dataclass(frozen=True)
class Found:
    """Of so many simulated runs those in which something held. `least` and `most`: the share that this project states.

    `claimed` is what the method promises; `more` is what else the same runs showed.
    """

    what: str
    world: str
    claimed: str
    hits: int
    runs: int
    least: float = 0.0
    most: float = 1.0
    more: str = ""

    @property
    def share(self) -> float:
        return self.hits / self.runs

    @cached_property
    def chance(self) -> tuple[float, float]:
        """The exact 95 % interval of the share (Clopper and Pearson, 1934)."""
        return self._interval(0.95)

    @property
    def broken(self) -> bool:
        """Whether the share surely lies outside its bounds, chance left aside."""
        low, high = self._interval(SURE)
        return high < self.least or low > self.most

    def _interval(self, confidence: float) -> tuple[float, float]:
        from scipy.stats import binomtest

        low, high = binomtest(self.hits, self.runs).proportion_ci(confidence, method="exact")
        return float(low), float(high)

    def row(self) -> dict[str, str]:
        """Its line of a table."""
        low, high = (percent(x) for x in self.chance)
        return {
            "what": self.what,
            "simulated": self.world,
            "claimed": self.claimed,
            "found": f"{percent(self.share)} % ({low} to {high})",
            "of": f"{self.runs:,}",
            "beside": self.more,
        }

    def complaint(self) -> str:
        """What is wrong, with the bound."""
        bound = f"at least {100 * self.least:g}" if self.share < self.least else f"at most {100 * self.most:g}"
        return f"{self.what}, {self.world}: {percent(self.share)} % of {self.runs:,}; {bound} % is stated"


@dataclass(frozen=True)
class Table:
    """A table of one part, with a row for each thing found."""

    title: str
    found: Sequence[Found]

    def markdown(self) -> str:
        from tabulate import tabulate

        rows = [one.row() for one in self.found]
        filled = [name for name in rows[0] if any(row[name] for row in rows)]
        table = tabulate([[row[name] for name in filled] for row in rows], filled, "pipe", disable_numparse=True)
        return f"**{self.title}**\n\n{table}\n"


def percent(share: float) -> str:
    """`94.7`, `0.25`: two figures below 1 %."""
    return f"{100 * share:.1f}" if share >= 0.01 or share == 0 else f"{100 * share:.2g}"


def rng_of(seed: int, what: str) -> np.random.Generator:
    """Chance of its own for each row, whatever other rows are drawn."""
    return np.random.default_rng([seed, zlib.crc32(what.encode())])


def holds(interval: Interval | Ratio | None, truth: float) -> bool:
    return interval is not None and interval.low <= truth <= interval.high


def a_time(rng: Rng, launches: int, rounds: int) -> bool:
    return holds(interval_of(turns_of(spread_of_both(rng, launches, rounds, 0.05))), 1)


def a_ratio(rng: Rng) -> bool:
    slow, fast = side_by_side(rng, 2.0)
    return holds(ratio_of(turns_of(slow), turns_of(fast)), 2)


def two_runs(rng: Rng) -> bool:
    base = launch_logs(run_of(rng, {"a": 1e-3}, "base", launches=3, **QUIET), Metric.MEDIAN)
    new = launch_logs(run_of(rng, {"a": 2e-3}, "new", launches=10, **NOISY), Metric.MEDIAN)
    return holds(ratio_of_runs(base, new), 2)


def two_equal_runs(rng: Rng) -> bool:
    return holds(ratio_of_runs(*rng.normal(0, 0.05, (2, 3)).tolist()), 1)


def intervals(seed: int, runs: int | None) -> Iterator[Table]:
    """Do intervals over launches hold the truth?"""
    runs = runs or 4_000
    simulated = {
        ("a time", "5 launches of 4 rounds, 5 % spread between and within launches"): lambda rng: a_time(rng, 5, 4),
        ("a ratio within rounds", "3 launches of 2 rounds, 30 % drift, 5 % own spread twice, every 20th turn disturbed "
         "by half"): a_ratio,
        ("a ratio of two runs", "3 launches against 10, spread 2 and 14 %, every 20th turn disturbed by "
         "half"): two_runs,
        ("a ratio of two runs", "3 launches against 3, spread 5 %"): two_equal_runs,
    }  # fmt: skip
    found = []
    for (what, world), one in simulated.items():
        rng = rng_of(seed, world)
        found.append(Found(what, world, hits=sum(one(rng) for _ in range(runs)), runs=runs, **COVER))
    yield Table("Intervals over launches", found)
    world, rng = "60 rounds of 1 launch, 5 % spread between and within launches", rng_of(seed, "one launch")
    one_launch = sum(a_time(rng, 1, 60) for _ in range(runs))
    yield Table("Of one launch, marked as too narrow", [Found("a time", world, "none", one_launch, runs, most=0.5)])
    found = []
    for name, world in worlds().items():
        for n in LAUNCHES:
            logs = world.draw(rng_of(seed, f"{name} {n}"), (runs, n))
            ends = [interval_of(turns_of(np.exp(row)[:, None])) for row in logs]
            hold = sum(holds(one, math.exp(world.median)) for one in ends)
            reach = math.sqrt(float(np.median([one.high / one.low for one in ends if one is not None]))) - 1
            what = f"{n} launches, {name}: {world.shape}"
            least = 0.93 if n > min(LAUNCHES) else 0.89
            found.append(Found("a time", what, "95 %", hold, runs, least, 0.99, more=f"half width {percent(reach)} %"))
    yield Table("Launches that differ in many ways", found)


def ended(rng: Rng, rule: StopRule, spread: float, rounds: int = 2) -> tuple[int, bool]:
    """Launches of a run that ends by the rule, and whether its interval then holds the truth."""
    turns = turns_of(spread_of_both(rng, rule.max_launches, rounds, spread))
    n = rule.min_launches
    while n < rule.max_launches and not precise_enough(rule, {k: v for k, v in turns.items() if k[1] < n}):
        n += 1
    return n, holds(interval_of({k: v for k, v in turns.items() if k[1] < n}), 1)


def stop(seed: int, runs: int | None) -> Iterator[Table]:
    """Do intervals hold the truth although the rule looks after each launch?"""
    runs = runs or 4_000
    for fewest, asked in ((5, [(0.05, s) for s in (0.01, 0.02, 0.05, 0.07, 0.1)] + [(0.02, 0.02)]),
                          (3, [(0.05, s) for s in (0.01, 0.02, 0.05, 0.07, 0.1)])):  # fmt: skip
        found = []
        for precision, spread in asked:
            rule, rng = StopRule(precision, fewest), rng_of(seed, f"{fewest} {precision} {spread}")
            launches, hold = zip(*(ended(rng, rule, spread) for _ in range(runs)), strict=True)
            capped = sum(n == rule.max_launches for n in launches) / runs
            more = f"{np.mean(launches):.1f} launches on average" + (
                f", {percent(capped)} % at the cap" if capped else ""
            )
            what = f"a time precise to {100 * precision:g} %"
            bounds = {**COVER, "least": 0.93 if fewest == DEFAULT_MIN_LAUNCHES else 0.89}
            found.append(Found(what, f"spread {100 * spread:g} %", hits=sum(hold), runs=runs, more=more, **bounds))
        yield Table(f"Launches end by the rule, {fewest} at least", found)


def noise(seed: int, runs: int | None) -> Iterator[Table]:
    """How often is a backend called different from itself, and what does the floor of such a run cover?"""
    runs, rng = runs or 200, rng_of(seed, "twins")
    names = [f"b{i}" for i in range(5)]
    found = [noise_of(twins(rng, names=names)) for _ in range(runs)]
    known = [(one.floor, pair) for one in found if one is not None for pair in one.pairs]
    pairs, world = len(known), "20 pairs a run, 3 launches of 2 rounds, 5 % spread between and within"
    within = sum(abs(math.log(pair.ratio.value)) <= math.log1p(floor) for floor, pair in known)
    own = sum(pair.excludes_one for _, pair in known)
    any_false = sum(one is not None and one.false_alarms > 0 for one in found)
    yield Table("A backend against itself", [
        Found("called different", world, "5 %", sum(pair.different for _, pair in known), pairs, most=0.05),
        Found("called different by its own interval", world, "5 %", own, pairs, most=0.07),
        Found("a run with any false alarm", world, "", any_false, runs),
        Found("within the floor", world, "95 %", within, pairs, 0.9, 0.99),
    ])  # fmt: skip


STEPS = ((10, 5, 1.1), (20, 10, 1.1), (20, 15, 1.1), (50, 45, 1.1), (20, 17, 1.1),
         (10, 5, 1.2), (20, 10, 1.2), (20, 15, 1.2), (50, 45, 1.2), (20, 17, 1.2))  # fmt: skip


def history(seed: int, runs: int | None) -> Iterator[Table]:
    """How often is a step found that is there, and one that is not?"""
    found = []
    for n, at, ratio in STEPS:
        rng, world = (
            rng_of(seed, f"{n} {at} {ratio}"),
            f"{n} runs, {100 * ratio - 100:.0f} % before run {at}, spread 3 %",
        )
        count = runs or 1_000
        seen = [steps(series(rng, n, at, ratio), MARGIN) for _ in range(count)]
        near = sum(any(abs(step.index - at) <= 1 for step in one) for one in seen)
        more = f"within 1 run of its place {percent(near / count)} %"
        found.append(Found("a step", world, "", sum(map(bool, seen)), count, more=more))
    yield Table("Steps that are there, every 20th run disturbed by half", found)
    found = []
    for k in (10, 15):
        rng, count = rng_of(seed, f"rose and fell {k}"), runs or 1_000
        seen = [steps(rose_and_fell(rng, k), MARGIN) for _ in range(count)]
        more = f"both steps {percent(sum(len(one) >= 2 for one in seen) / count)} %"
        world = f"three times {k} runs, the middle 20 % slower, spread 3 %"
        found.append(Found("a step", world, "", sum(map(bool, seen)), count, more=more))
    yield Table("A time that rose and fell again", found)
    found = []
    for margin, spread in ((MARGIN, 0.03), (MARGIN, 0.14), (1e-9, 0.03)):
        for n in (10, 20, 50):
            rng, count = rng_of(seed, f"none {n} {spread} {margin}"), runs or 2_000
            hits = sum(bool(steps(series(rng, n, spread=spread), margin)) for _ in range(count))
            world = f"{n} runs, spread {100 * spread:g} %, margin {100 * margin:.0f} %"
            found.append(Found("a step", world, f"{100 * LEVEL:g} %", hits, count, most=0.02))
    yield Table("Steps that are not there", found)


def rose_and_fell(rng: Rng, k: int) -> list[float]:
    values = np.array(series(rng, 3 * k))
    values[k : 2 * k] *= 1.2
    found: list[float] = values.tolist()
    return found


def alarms(seed: int, runs: int | None) -> Iterator[Table]:
    """How often are two modes or a drift told where there is none?"""
    found, count = [], runs or 1_000
    for kind, draw in ONE_MODE.items():
        rng = rng_of(seed, kind)
        over = sum(separation(np.log(draw(rng, 20)))[0] > BIMODAL for _ in range(count))
        found.append(Found("a turn with two modes", f"20 calls, {kind}", "2 %", over, count, most=0.02))
        few = max(1, count // 10)
        told = sum(bimodal(answer({(n // 2, n % 2): draw(rng, 27) for n in range(6)})) is not None for _ in range(few))
        found.append(Found("an answer with two modes", f"6 turns of 27 calls, {kind}", "", told, few, most=0.02))
    yield Table("Two modes", found)
    found = []
    for kind, machine in ONE_SPEED.items():
        rng = rng_of(seed, kind)
        told = sum(speeds_of(*in_time(rng, machine)) is not None for _ in range(count))
        found.append(Found("two speeds", f"300 turns at one speed and {kind}", "2 %", told, count, most=0.02))
    yield Table("Two speeds that are not there", found)
    found = []
    for share, stretch in ((0.2, 10), (0.3, 10), (0.3, 30), (0.5, 10), (0.5, 30), (0.7, 10), (0.7, 30)):
        rng = rng_of(seed, f"two speeds {share} {stretch}")
        seen = [speeds_of(*in_time(rng, lambda r, n, a=share, b=stretch: switching(r, n, a, b))) for _ in range(count)]
        known = [one for one in seen if one is not None]
        world = f"300 turns, {100 * share:g} % of them 1.45 times as long, in stretches of {stretch} on average"
        apart = np.median([one.apart for one in known]) if known else math.nan
        told = np.median([one.slow / one.turns for one in known]) if known else math.nan
        more = f"median {apart:.2f} times as long, {percent(told)} % of the turns"
        found.append(Found("two speeds", world, "", len(known), count, least=0.45, more=more))
    yield Table("Two speeds", found)
    found, count = [], runs or 2_000
    for launches, rounds in ((3, 2), (3, 4), (5, 2), (10, 6), (30, 6)):
        rng = rng_of(seed, f"steady {launches} {rounds}")
        told = sum(bool(drifts([drifting(rng, launches, rounds)])) for _ in range(count))
        world = f"{launches} launches of {rounds} rounds, 5 % spread between and 2 % within"
        found.append(Found("drift of a steady answer", world, "5 %", told, count, most=0.05))
    yield Table("Drift", found)


TRIED_LAUNCHES = EFFORTS[Mode.DEFAULT].launches


def with_trial(rng: Rng, ratio: float) -> tuple[int, Interval | None, float]:
    """The threads that a trial takes where 2 need `ratio` of the time of 1; the ranked time, and what it truly is.

    The ranked turns of the first launch are of the process that the trial was made in.
    """
    truth = {1: 1.0, 2: ratio}
    launches = {n: np.exp(rng.normal(math.log(t), 0.05, (TRIED_LAUNCHES, 1))) for n, t in truth.items()}
    busy = np.where(rng.random((MOST_PAIRS, 2)) < DISTURBED, BY, 1.0)
    turns = np.exp(rng.normal(0, 0.05, (MOST_PAIRS, 2))) * busy
    pairs = [{n: float(launches[n][0, 0] * t) for n, t in zip((1, 2), pair, strict=True)} for pair in turns]
    tried = FEWEST_PAIRS
    while (threads := better(pairs[:tried])) is None:
        tried += 1
    ranked = launches[threads] * np.exp(rng.normal(0, 0.05, (TRIED_LAUNCHES, 2)))
    return threads, interval_of(turns_of(ranked)), truth[threads]


def threads(seed: int, runs: int | None) -> Iterator[Table]:
    """Does a trial find the better number of threads, and does choosing by it bend the time that is ranked?"""
    runs, found, kept = runs or 4_000, [], []
    shape = "5 % spread between and within processes, every 20th turn of the trial disturbed by half"
    for ratio, bounds in ((0.8, {"most": 0.02}), (0.9, {"most": 0.15}), (1.0, {}), (1.1, {"least": 0.7}),
                          (1.25, {"least": 0.97})):  # fmt: skip
        rng = rng_of(seed, f"threads {ratio}")
        chosen, times, truths = zip(*(with_trial(rng, ratio) for _ in range(runs)), strict=True)
        world = f"2 threads need {ratio:g} of the time of 1; {shape}"
        loss = np.mean([math.log(t / min(1.0, ratio)) for t in truths])
        more = f"slower than the better by {percent(math.expm1(loss))} % on average"
        found.append(Found("1 thread is ranked", world, "", chosen.count(1), runs, more=more, **bounds))
        bias = np.mean([math.log(time.value / t) for time, t in zip(times, truths, strict=True) if time])
        hold = sum(holds(time, t) for time, t in zip(times, truths, strict=True))
        more = f"{percent(-math.expm1(bias))} % too short on average"
        world = f"{TRIED_LAUNCHES} launches of 2 rounds; 2 threads need {ratio:g}"
        kept.append(Found("the ranked time", world, hits=hold, runs=runs, more=more, **COVER))
    yield Table("The threads that a trial takes", found)
    yield Table("The time that is ranked", kept)


def of_spread(spread: float) -> Ratio:
    """A ratio of 10 launches against 10 whose interval is as wide as such a spread makes it on average."""
    from scipy.special import stdtrit

    high = math.exp(float(stdtrit(18, 0.975)) * spread * math.sqrt(2 / 10))
    return Ratio(1.0, 1 / high, high)


def verdict_of(rng: Rng, truth: float, launches: int, draw: Callable[[Rng, tuple[int, ...]], Floats]) -> Verdict:
    """Of one case alone, launches drawn that way."""
    base, new = draw(rng, (2, launches))
    ratio = ratio_of_runs(base.tolist(), (new + math.log(truth)).tolist())
    return judge(replace(ratio, q=ratio.p), MARGIN)


def verdicts(seed: int, runs: int | None) -> Iterator[Table]:
    """How often does a comparison of two runs decide, and right?"""
    runs = runs or 2_000
    found = []
    for spread in (0.01, 0.02, 0.05, 0.1, 0.14):
        launches = launches_needed(of_spread(spread), (10, 10), MARGIN)
        assert launches is not None  # far below MAX_LAUNCHES
        for truth, verdict in ((1.0, Verdict.SAME), (1.1, Verdict.SLOWER)):
            found.append(called(seed, runs, truth, launches, even(spread), verdict, least=0.9))
    yield Table("As many launches a side as are said to be needed", found)
    yield Table("Fewer launches", [
        called(seed, runs, 1.1, 10, even(0.05), Verdict.SLOWER, least=0.95),
        called(seed, runs, 1.1, 3, even(0.02), Verdict.SLOWER, least=0.9),
        called(seed, runs, 1.1, 3, even(0.14), Verdict.INCONCLUSIVE, least=0.85),
        called(seed, runs, 1.1, 10, even(0.14), Verdict.SLOWER),
        called(seed, runs, 1.0, 3, even(0.14), Verdict.SLOWER, most=0.05),
    ])  # fmt: skip
    found, known = [], worlds()
    for name, launches, least in (
        ("disturbed", 5, 0.5),
        ("disturbed", 10, 0.8),
        ("heavy-tailed", 10, 0.95),
        ("one in 5, 1.5x", 10, 0.5),
        ("one in 5, 700x", 10, 0.5),
        ("two speeds", 10, 0.0),
    ):
        found.append(called(seed, runs, 1.1, launches, known[name], Verdict.SLOWER, least=least))
        found.append(called(seed, runs, 1.0, launches, known[name], Verdict.SLOWER, most=0.05))
    yield Table("Launches that do not differ evenly", found)


def even(spread: float) -> World:
    return World(f"spread {100 * spread:g} %", lambda rng, size: rng.normal(0, spread, size), 0.0)


def called(seed: int, runs: int, truth: float, launches: int, world: World, verdict: Verdict, **bounds: float) -> Found:
    """How often a case that is so much slower in truth gets this verdict."""
    how = f"{launches} launches a side, {world.shape}, margin {100 * MARGIN:g} %"
    simulated = f"{100 * truth - 100:.0f} % slower, {how}"
    rng = rng_of(seed, simulated)
    hits = sum(verdict_of(rng, truth, launches, world.draw) is verdict for _ in range(runs))
    return Found(f"called {verdict}", simulated, "", hits, runs, **bounds)


def disturbed(seed: int, runs: int | None) -> Iterator[Table]:
    """Does it bend a ratio to measure disturbed turns again, and what does it bring?"""
    runs, found, kept = runs or 1_000, [], []
    shape = f"{CONTENDED_LAUNCHES} launches of {ROUNDS} rounds, two speeds, turns beside others twice as long"
    for others in OTHERS:
        for way in Way:
            rng = rng_of(seed, f"{others.name} {way}")
            ratios, more, silent, stood = [], [], 0, list[Interval]()
            for _ in range(runs):
                records, extra = contended_run(rng, others, way)
                slow, fast = (summarise([r for r in records if r.backend == name]) for name in NAMES[:2])
                ratio = ratio_of(slow.turns, fast.turns)
                ratios.append(ratio)
                more.append(extra)
                if ratio and not (ratio.noisy or slow.disturbed or fast.disturbed):
                    silent += abs(math.log(ratio.value / RATIO)) > math.log(1.25)
                    stood += [ratio] if ratio.basis is Basis.LAUNCHES else []
            logs = np.array([math.log(one.value / RATIO) for one in ratios if one])
            width = np.median([one.high / one.value - 1 for one in ratios if one and one.high == one.high])
            bent, far = percent(math.expm1(np.mean(logs))), percent(np.mean(np.abs(logs) > math.log(1.1)))
            said = percent(silent / runs)
            off = f"off by {bent} % on average, by over 10 % in {far} %, by over 25 % in silence in {said} %"
            beside = f"{off}; reaches {percent(width)} % up; {percent(np.mean(more))} % extra time"
            hits = sum(holds(one, RATIO) for one in ratios)
            least = 0.85 if way is Way.AGAIN and others.rest else 0.0
            world = f"others busy {others.name}: {way}"
            found.append(Found("a ratio within rounds", world, "95 %", hits, runs, least, more=beside))
            if way is Way.AGAIN and others.rest and stood:
                hits, alone = sum(holds(one, RATIO) for one in stood), f"{percent(1 - len(stood) / runs)} % of the runs"
                more = f"{alone} say that others disturbed it, or have no interval"
                kept.append(Found("a ratio that a run stands by", world, "95 %", hits, len(stood), 0.93, more=more))
    yield Table(f"Turns that others disturb: {shape}", found)
    yield Table("Of ratios that no run says to be disturbed or noisy", kept)


def planted(seed: int, runs: int | None) -> Iterator[Table]:
    """How often is a slow-down of 10 % found that was planted in real processes, and one called that is not there?"""
    from planted import CASES, planted_run

    done = [planted_run(seed + number, 0.1) for number in range(runs or 100)]
    world, found = "10 launches of 20 rounds, margin 3 %", []
    for case, bounds in zip(CASES, ({"least": 0.95}, {"most": 0.05}), strict=True):
        slower = sum(one[case][0].low > 1.03 for one in done)
        two = sum(judge(one[case][1], 0.03) is Verdict.SLOWER for one in done)
        ratios = [one[case][0].value for one in done]
        more = f"ratios {min(ratios):.3f} to {max(ratios):.3f}; taken as two runs {two}"
        found.append(Found(f"{case} called slower", world, "", slower, len(done), more=more, **bounds))
    yield Table("A busy loop for a tenth of each call, in real processes", found)


PARTS: dict[str, Part] = {
    "intervals": intervals,
    "stop": stop,
    "verdicts": verdicts,
    "noise": noise,
    "history": history,
    "alarms": alarms,
    "threads": threads,
    "disturbed": disturbed,
    "planted": planted,
}
SIMULATED = [part for part in PARTS if part != "planted"]  # what runs where none is named: minutes, and no processes


EPILOG = f"""\b
Parts: intervals, stop (launches end by a rule), verdicts (two runs compared), noise (a backend against itself),
history (steps), alarms (two modes, drift), threads (the better number of them), disturbed (turns measured again); all
of these unless some are named.
And planted: real processes, one slower.

\b
Examples:
  python validation/claims.py
  python validation/claims.py intervals stop --runs 500 --seed 1
  python validation/claims.py planted --runs 20

\b
Exit codes:
  {OK}  every share is within the bound that is stated, as far as can be told
  {BROKEN}  one surely is not
  {USAGE}  an option is wrong
  {INTERRUPTED}  interrupted
"""


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)), metavar="[PART]...")
@click.option(
    "--runs", type=click.IntRange(MIN_RUNS), help="Simulated runs of each row.  [default: 200 to 4000, by row]"
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the simulated runs.")
def main(parts: tuple[str, ...], runs: int | None, seed: int) -> None:
    """Print what is claimed, what is found, and of how many simulated runs, as Markdown.

    The interval beside a share is what chance leaves open of it, at 95 %.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    broken = []
    try:
        for part in dict.fromkeys(parts or SIMULATED):
            start = time.perf_counter()
            click.echo(f"## {part}\n")
            for table in PARTS[part](seed, runs):
                click.echo(table.markdown())
                broken += [one.complaint() for one in table.found if one.broken]
            click.echo(f"{part}: {time.perf_counter() - start:.0f} s", err=True)
    except KeyboardInterrupt:
        click.echo("Error: interrupted", err=True)
        sys.exit(INTERRUPTED)
    for complaint in broken:
        click.echo(f"Error: {complaint}", err=True)
    sys.exit(BROKEN if broken else OK)


if __name__ == "__main__":
    main()
