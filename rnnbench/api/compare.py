"""`rnnbench compare`: find and read the two sides, choose the margin, compare, and the exit code of what was found."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from msgspec import Meta

from rnnbench.analysis.comparable import Side
from rnnbench.analysis.compare import Comparison, Gate, Ratio, Verdict, compare_sides
from rnnbench.analysis.noise import MIN_MARGIN, NOISE
from rnnbench.api.exit_codes import BROKEN, NO_BASELINE, NOTHING, OK, SLOWER, UNDECIDED
from rnnbench.api.runs import place_of, places_of, side_of
from rnnbench.harness.plan import matches
from rnnbench.records import store
from rnnbench.records.record import Mode
from rnnbench.records.stops import MIN_LAUNCHES
from rnnbench.report.comment import comment
from rnnbench.report.data import ReportData
from rnnbench.units import MAX_PERCENT

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class Compared:
    """The findings, what they were made with, and sentences on what to bear in mind."""

    findings: Sequence[Comparison]
    gate: Gate
    base: Side
    new: Side
    notes: Sequence[str] = ()

    @property
    def backends(self) -> list[str]:
        """All backends, in the order of a report of the new side."""
        asked = {f.backend for f in self.findings}
        found = [name for side in (self.new, self.base) for name in ReportData(side.records).backends]
        return [name for name in dict.fromkeys(found) if name in asked]

    @property
    def comment(self) -> str:
        """The comparison as a comment on a pull request: Markdown of fewer than 60 lines."""
        return comment(self.findings, self.gate, self.notes, self.base, self.new, self.backends)

    def write(self, folder: str | Path) -> list[Path]:
        """Write `compare.html` and `compare.md` there; the paths. OSError where that cannot be."""
        from rnnbench.report.compare_page import write_comparison

        return write_comparison(Path(folder), self.findings, self.gate, self.notes, self.base, self.new, self.backends)

    @property
    def table(self) -> pd.DataFrame:
        """One row for each case and backend: verdict, reason, ratio new over base with its interval, seconds a call."""
        import pandas as pd

        rows = []
        for f in self.findings:
            ratio = f.ratio or Ratio(math.nan)
            rows.append((f.case.key, f.case.workload, str(f.case.pass_), str(f.case.dtype), f.backend, str(f.verdict),
                         f.reason or "", ratio.value, ratio.low, ratio.high, f.base, f.new, *f.launches))  # fmt: skip
        columns = ["case", "workload", "pass", "dtype", "backend", "verdict", "reason", "ratio", "low", "high",
                   "base_seconds", "new_seconds", "base_launches", "new_launches"]  # fmt: skip
        return pd.DataFrame(rows, columns=columns)

    def __repr__(self) -> str:
        shown = self.table[["case", "backend", "verdict", "ratio", "low", "high"]]
        return "\n".join([shown.to_string(index=False, float_format="{:.3f}".format), *self.notes])

    def _repr_html_(self) -> str:
        shown = self.table[["case", "backend", "verdict", "ratio", "low", "high", "reason"]]
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return shown.to_html(index=False, float_format="{:.3f}".format) + notes

    def code(self, require_baseline: bool, fail_inconclusive: bool = False) -> int:
        """One of EXIT_CODES: of several the first, in the order slower, broken, no baseline, nothing, inconclusive."""
        if any(f.verdict is Verdict.SLOWER for f in self.findings):
            return SLOWER
        if any(f.broken for f in self.findings):
            return BROKEN
        if require_baseline and any(f.no_baseline for f in self.findings):
            return NO_BASELINE
        if not any(f.has_interval for f in self.findings):
            return NOTHING
        return UNDECIDED if fail_inconclusive and any(f.verdict is Verdict.INCONCLUSIVE for f in self.findings) else OK


def compared(
    base: str, new: str, gate: Gate | None, words: str, say: Callable[[str], None], noise: str | None = None
) -> Compared:
    """Compare two sides by name, each a run or several with commas between.

    StoreError for what cannot be read; ValueError where the filter leaves nothing, or for what cannot be pooled.

    `gate` None takes the noise of the machine for the margin, by the A/A run `noise` or one that lies beside the two.
    """
    near = (base, new)
    a, b = (kept(side_of(name, say, near), words) for name in near)
    if not (a.records or b.records):
        raise ValueError(f"the filter {words!r} leaves no case of either side")
    gate, said = (gate, []) if gate else gate_of(noise, [*places_of(new, near), *places_of(base, near)], a, b)
    return Compared(compare_sides(a, b, gate), gate, a, b, [*said, *_notes(a, b)])


def kept(side: Side, words: str) -> Side:
    """What a filter leaves of a side."""
    return replace(side, records=[r for r in side.records if matches(words, f"{r.case.key} {r.backend}")])


def _notes(base: Side, new: Side) -> list[str]:
    notes = []
    if any(r.mode is Mode.QUICK for side in (base, new) for r in side.records):
        notes.append("one of them is a quick run: a smoke test, not for quoting")
    if shared := {r.run_id for r in base.records} & {r.run_id for r in new.records}:
        notes.append(f"both hold records of run {', '.join(sorted(shared))}: their launches are not independent")
    return notes


def gate_of(asked: str | None, places: Sequence[Path], base: Side, new: Side) -> tuple[Gate, list[str]]:
    """The gate by the noise of the machine, and a sentence on where it is from; the usual one where none is known.

    Raises StoreError where the A/A run that was asked for holds no noise, or that of another machine.
    """
    machines = {r.machine_id for side in (base, new) for r in side.records}
    damaged: list[str] = []
    if asked is not None:
        folder = place_of(asked)
        found = _checked(folder, machines)
    elif (newest := _newest(places, machines, damaged)) is not None:
        folder, found = newest
    else:
        return Gate(), damaged
    margin = float(f"{max(MIN_MARGIN, found['floor']):.3g}")
    pairs = len(found["pairs"])
    said = f"margin {100 * margin:.3g} %: the noise of {pairs} pairs, {found['launches']} launches each, in {folder}"
    if found["floor"] < MIN_MARGIN:
        said += f" (it is {100 * found['floor']:.2g} %, and no margin is below {100 * MIN_MARGIN:g} %)"
    return Gate(margin=margin), [*damaged, said]


def _checked(folder: Path, machines: set[str]) -> dict[str, Any]:
    found = _read(folder)
    if found is None:
        raise store.StoreError(
            f"{folder} holds no noise of {MIN_LAUNCHES} launches or more; make it by: "
            "python -m rnnbench run --aa -o reports/aa, and give that folder"
        )
    if machines != {found["machine_id"]}:
        raise store.StoreError(
            f"{folder} has the noise of machine {found['machine_id']}, the runs are of "
            f"{' and '.join(sorted(machines))}; give an A/A run of that machine, or a margin with --fail-on"
        )
    return found


def _newest(places: Iterable[Path], machines: set[str], damaged: list[str]) -> tuple[Path, dict[str, Any]] | None:
    """The latest A/A run of the one machine of both sides, in the folders that they lie in; `damaged` gets the rest."""
    parents = {(place if place.is_dir() else place.parent).resolve().parent for place in places}
    files = [file for parent in parents for file in parent.glob(f"*/{NOISE}")]
    for file in sorted(files, key=lambda f: f.stat().st_mtime, reverse=True):
        try:
            found = _read(file.parent)
        except store.StoreError as error:
            damaged.append(f"{error}; its noise was left out")
            continue
        if found is not None and machines == {found["machine_id"]}:
            return file.parent, found
    return None


class _Noise(TypedDict):
    floor: Annotated[float, Meta(ge=0, le=MAX_PERCENT / 100)]
    launches: Annotated[int, Meta(ge=1)]
    pairs: list[dict[str, Any]]
    machine_id: str


def _read(folder: Path) -> dict[str, Any] | None:
    """What an A/A run says; None where it is none, or too short. Raises StoreError for a damaged one."""
    found = store.read_json(folder / NOISE, _Noise)
    return found if found and found["launches"] >= MIN_LAUNCHES else None
