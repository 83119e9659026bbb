"""Everything that a report is made from, gathered once: records, curves, machine, run and reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from rnnbench.analysis.accuracy import ToReach, to_reach
from rnnbench.analysis.costs import break_evens
from rnnbench.analysis.devices import OnDevice, gpu_backends, on_device
from rnnbench.analysis.ranking import Ranking, choose_reference, rankings, speedups
from rnnbench.analysis.roofline import Peak, peak_of
from rnnbench.analysis.stats import Summary, disturbance_notes, problem_key, summaries
from rnnbench.analysis.warnings import Warned, warnings_of
from rnnbench.model import Case, Pass
from rnnbench.records.record import Epoch, Mode, Record, TrainingRecord
from rnnbench.records.store import Loaded
from rnnbench.report.text import Labels
from rnnbench.sizes import Sweep

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")


def main_pass(asked: Iterable[Pass]) -> Pass:
    """The train step, else the first that was asked for."""
    found = set(asked)
    return next(p for p in (Pass.TRAIN_STEP, *Pass) if p in found)


def by_times(cases: Iterable[Mapping[str, float]], backends: Iterable[str]) -> list[str]:
    """The backends, each once, the fastest first: by their times over the fastest's, the geometric mean over `cases`
    (backend -> time, in any unit). Those without a time come last.
    """
    behind: dict[str, list[float]] = {name: [] for name in backends}
    for times in cases:
        for name, time in times.items():
            behind[name].append(math.log(time / min(times.values())))
    return sorted(behind, key=lambda name: (not behind[name], fmean(behind[name] or [0.0])))


@dataclass(frozen=True)
class ProblemCases:
    """The cases of one workload, type and truncation: one table, one group of panels."""

    label: str
    cases: dict[Pass, Case]
    summaries: dict[Pass, dict[str, Summary]]  # pass -> backend -> its answer
    order: Sequence[str]  # of all backends of the run

    @property
    def backends(self) -> list[str]:
        """All backends that were asked, in the order of the run."""
        asked = {name for group in self.summaries.values() for name in group}
        return [name for name in self.order if name in asked]

    @property
    def timed(self) -> bool:
        """Whether any backend was timed."""
        return any(s.time for group in self.summaries.values() for s in group.values())

    @property
    def main(self) -> Pass:
        """The pass that stands for the others: the train step, else the first that was asked for."""
        return main_pass(self.cases)

    @property
    def keys(self) -> dict[str, str]:
        """What the filters of a page know it by."""
        case = self.cases[self.main]
        return {"network": self.label, "cell": case.model.cell, "dtype": str(case.dtype)}

    def get(self, pass_: Pass, backend: str) -> Summary | None:
        """A backend's answer to a pass, or None where it was not asked."""
        return self.summaries.get(pass_, {}).get(backend)


@dataclass(frozen=True)
class ReportData:
    """What was measured and where. `machine` and `run` are facts by name, nested or not.

    `wanted` is the backend that speed-ups are to be over, or None to have one chosen.
    """

    records: Sequence[Record]
    epochs: Sequence[Epoch] = ()
    machine: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)
    wanted: str | None = None
    trainings: Sequence[TrainingRecord] = ()

    @classmethod
    def of(cls, loaded: Loaded, wanted: str | None = None) -> ReportData:
        """Of a run's folder as it was read."""
        return cls(loaded.records, loaded.curves, loaded.machine, loaded.run, wanted, loaded.trainings)

    @cached_property
    def reference(self) -> str | None:
        """The backend that speed-ups are over; ValueError where the one asked for is not in the run."""
        return choose_reference(self.summaries, self.wanted)

    @cached_property
    def sweep(self) -> Sweep | None:
        """What was swept, or None where the run was none."""
        plan = self.run.get("plan")
        try:
            return msgspec.convert(plan["sweep"], Sweep) if plan else None
        except (KeyError, TypeError, msgspec.ValidationError):
            return None

    @cached_property
    def quick(self) -> bool:
        """Whether any of it is a smoke run."""
        return str(self.run.get("mode")) == Mode.QUICK or any(
            r.mode is Mode.QUICK for r in (*self.records, *self.trainings)
        )

    @cached_property
    def unlike(self) -> str | None:
        """A sentence on runs of unlike machines that are shown as one, or None where there are none."""
        found = self.run.get("unlike")
        return f"runs of unlike machines or versions: {'; '.join(found)}" if found else None

    @cached_property
    def disturbances(self) -> list[str]:
        """Disturbances of the machine during turns of the run, in sentences."""
        return disturbance_notes(self.records)

    @cached_property
    def sources(self) -> dict[str, str]:
        """Workload -> where its rows come from."""
        pairs = [(r.case.name, r.data_source) for r in (*self.records, *self.trainings)]
        pairs += [(e.workload, e.data_source) for e in self.epochs]
        found: dict[str, str] = {}
        for workload, source in pairs:
            found[workload] = found.get(workload) or source
        return found

    @cached_property
    def labels(self) -> Labels:
        """How cases are called here."""
        dtypes = {str(r.case.dtype) for r in (*self.records, *self.trainings)} | {e.dtype for e in self.epochs}
        return Labels(self.sources, len(dtypes) > 1)

    @cached_property
    def summaries(self) -> list[Summary]:
        """The summary of each case and backend."""
        return summaries(self.records)

    @cached_property
    def rankings(self) -> list[Ranking]:
        """The ranking of each case."""
        return rankings(self.summaries, self.reference)

    @cached_property
    def speedups(self) -> pd.DataFrame | None:
        """Speed-ups over the reference, by case and backend; None where there is no reference."""
        return speedups(self.summaries, self.reference) if self.reference is not None else None

    @cached_property
    def to_reach(self) -> list[ToReach]:
        """How long each backend takes to an accuracy, by problem, the fastest first."""
        return to_reach(self.trainings)

    @cached_property
    def break_evens(self) -> pd.DataFrame:
        """When each backend has paid for its start, by problem."""
        return break_evens(self.summaries, self.reference)

    @cached_property
    def warnings(self) -> list[Warned]:
        """The warnings of the run, most severe first."""
        return warnings_of(self.records, self.machine)

    @cached_property
    def peak(self) -> Peak | None:
        """The machine's measured ceilings, or None where they are not known."""
        return peak_of(self.machine)

    @cached_property
    def gpu_backends(self) -> list[str]:
        """The backends that were timed on a GPU, in order."""
        return gpu_backends(self.summaries)

    @cached_property
    def on_device(self) -> list[OnDevice]:
        """The timed answers of GPU backends, with what the device's own clock says."""
        return [on_device(s) for s in self.summaries if s.backend in self.gpu_backends and s.time]

    @cached_property
    def backends(self) -> list[str]:
        """All backends of the run, in the one order of its tables and figures.

        That is by their times over the fastest's in the main pass of each problem; those that have none come last.
        """
        times = []
        for group in self._groups.values():
            main = main_pass(s.case.pass_ for s in group)
            times.append({s.backend: s.time.value for s in group if s.case.pass_ is main and s.ranked and s.time})
        order = by_times(times, (s.backend for s in self.summaries))
        trained = [line.backend for of in (self.epochs, self.to_reach) for line in of]
        return list(dict.fromkeys([*order, *trained]))

    def in_order(self, found: Iterable[T], backend: Callable[[T], str] = attrgetter("backend")) -> list[T]:
        """What belongs to a backend each, in that order."""
        places = {name: place for place, name in enumerate(self.backends)}
        return sorted(found, key=lambda each: places[backend(each)])

    @cached_property
    def problems(self) -> list[ProblemCases]:
        """The summaries by problem, in order."""
        return [self._problem(key, group) for key, group in self._groups.items()]

    @cached_property
    def _groups(self) -> dict[tuple[str, str, str], list[Summary]]:
        groups: dict[tuple[str, str, str], list[Summary]] = {}
        for s in self.summaries:
            groups.setdefault(problem_key(s.case), []).append(s)
        return groups

    def _problem(self, key: tuple[str, str, str], group: Sequence[Summary]) -> ProblemCases:
        found: dict[Pass, dict[str, Summary]] = {}
        for s in group:
            found.setdefault(s.case.pass_, {})[s.backend] = s
        return ProblemCases(self.labels.problem(*key), {s.case.pass_: s.case for s in group}, found, self.backends)
