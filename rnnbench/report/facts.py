"""The sections that say what stands behind the numbers: run, machine, work, contracts, definitions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rnnbench.contract import Contract
from rnnbench.records import account
from rnnbench.records.record import Record
from rnnbench.report.data import ReportData
from rnnbench.report.section import Block, Item, Markdown, Section, Toned, table
from rnnbench.report.text import is_stand_in, short, workload_label
from rnnbench.units import threads

MAX_FACT = 160  # signs of one fact; the whole is in machine.json
UNKNOWN = "unknown"

_OTHERWISE_SHOWN = ("schema", "plan", "stops", "seconds", "unlike")  # in run.json: for programs, or in other sections

DEFINITIONS = """\
- **Turn**: the calls that one backend makes in one round. Its value is the median of the samples after the warm-ups.
- **Launch**: one process of a backend. Its value is the median of its turns.
- **Time**: the geometric mean over launches. Its interval is Student's t, 95 %, on the logarithms of the launch values:
  few launches give wide intervals, which is right. An *epoch* is also shown per step: its time over its steps.
- **One launch** (†): the interval is over the rounds of that launch. It knows nothing of the spread between processes,
  so it is too narrow. **Fewer than three values** (‡): no interval at all.
- **Ratio** (speed-up, lead): one ratio per round that both backends were measured in, so that a drift of the machine
  falls out; the median per launch, then the geometric mean over launches, with the same interval.
- **Sure**: the whole interval of the lead of the fastest, taken over launches, is above 1. Each interval stands for
  itself: none is corrected for the number of cases.
- **Error**: norm(x - ref) / norm(ref) of each named array against the float64 oracle, on the same parameters and rows.
  A backend over its limit is *wrong*: shown, and in no ranking and no ratio.
- **Start**: import, preparation of data and parameters, and the first call, which compiles where there is a compiler;
  medians over launches. Where a workload is shown by its train step, the first calls of the passes before it are
  added. What one workload had compiled is not compiled again for the next of the same process: our kernels, compiled
  once for all sizes while the first workload of a run is prepared, pay there.
  *Code on disk* is a first call that found its compiled code in a cache.
- **Warm-ups**: the first calls of a turn, begun within its first 10 ms, at most three and never all. They are stored
  and left out. A first counted call that surely takes 1.1 times the later ones or more is named under the table.
- **Outlier**: a call more than 3 interquartile ranges above the upper quartile of its turn (of four calls or more).
  Outliers are counted and kept: the median of a turn is little moved by them."""

SUBNORMALS = """\
Gradients that vanish backwards in time become subnormal numbers, smaller than the type's smallest normal one. Many
processors compute with those in slow microcode. A library that *flushes* them puts zero in their place and stays fast;
one that *keeps* them follows the standard and can be several times slower on the same network, most of all with long
rows and contracting recurrent weights. So vanishing gradients cost time as well as learning, and a ratio between a
backend that keeps and one that flushes is in part the price of subnormals."""


def flatten(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested facts as `name, value` lines; empty ones left out."""
    for key, value in facts.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flatten(value, f"{name}: ")
        elif value not in (None, "", [], ()):
            yield name, ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _counts(data: ReportData) -> Iterator[tuple[str, str]]:
    real = [r for r in data.records if r.round >= 0]
    yield "launches", str(len({(r.part, r.launch) for r in real}))
    yield "rounds a launch, at most", str(len({r.round for r in real}))
    yield "backends", ", ".join(data.backends)
    if data.reference:
        yield "reference", data.reference
    if counts := sorted({r.contract.threads for r in data.records if r.contract}):
        yield "threads", ", ".join(map(str, counts))
    if len(dtypes := {str(r.case.dtype) for r in data.records}) == 1:
        yield "dtype", dtypes.pop()


def run(data: ReportData) -> Section:
    """How it was run, what disturbed it, and where its time went."""
    facts = dict(flatten({k: v for k, v in data.run.items() if k not in _OTHERWISE_SHOWN}))
    facts |= {name: value for name, value in _counts(data) if name not in facts and value not in ("", "0")}
    disturbed: list[Item] = [("Disturbed", f"{note}.") for note in data.disturbances]
    spent = account.line(data.run)
    shown: list[Block] = [table(["fact", "value"], [[k, short(v, MAX_FACT)] for k, v in facts.items()])]
    return Section("The run", [*shown, disturbed, f"{spent}." if spent else ""] if facts else [])


def machine(data: ReportData) -> Section:
    """The facts of the machine."""
    facts = machine_rows({k: v for k, v in data.machine.items() if k != "peak"})
    rows = [[k, short(v, MAX_FACT)] for k, v in facts]
    return Section("The machine", [table(["fact", "value"], rows)] if rows else [])


def machine_rows(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and value of each fact of a machine, nested names with a blank between; a line for each worker."""
    for key, value in facts.items():
        if key == "workers":
            yield from ((f"worker {name}", _worker(found)) for name, found in value.items())
        else:
            yield from _machine_rows(key, value)


def _machine_rows(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _machine_rows(f"{key} {name}", inner)
    elif isinstance(value, Sequence) and value and all(isinstance(item, Mapping) for item in value):
        for number, item in enumerate(value):
            yield from _machine_rows(f"{key} {number}", item)
    else:
        yield key, _value(value)


def _value(value: Any) -> str:
    if value is None or value == []:
        return UNKNOWN
    return " ".join(map(_value, value)) if isinstance(value, list | tuple) else str(value)


def _worker(facts: Mapping[str, Any]) -> str:
    """Versions, thread pools, and what its compiler takes the machine for."""
    said = [f"{name} {version}" for name, version in facts.get("libraries", {}).items()]
    for pool in facts.get("threadpools", ()):
        kind = " ".join(str(pool[key]) for key in ("version", "architecture", "threading_layer") if pool.get(key))
        name = " ".join(filter(None, (pool.get("internal_api") or "a thread pool", kind)))
        said.append(f"{name}, {threads(pool['num_threads'])}" if "num_threads" in pool else name)
    said += [f"{name.replace('_', ' ')}: {value}" for name, value in facts.get("built_for", {}).items()]
    return "; ".join(said)


def _work_row(data: ReportData, r: Record) -> list[str]:
    model, train = r.case.model, r.case.train
    inputs = f"V {model.V:,}, E {model.E}" if model.V is not None else f"dense E {model.E}"
    clip = f", value clipped at {train.clip_value:g}" if train.clip_value is not None else ""
    clip += f", norm clipped at {train.clip_norm:g}" if train.clip_norm is not None else ""
    return [
        workload_label(r.case.name, r.data_source),
        f"B {r.case.B}, T {r.case.T}",
        f"{inputs}, H {model.H}, O {model.O}, loss on {'every' if model.head == 'every' else 'the last'} step",
        f"{model.loss}, {train.optimizer} {train.learning_rate:g}{clip}",
        data.sources.get(r.case.name, "") or "not recorded",
    ]


def work(data: ReportData) -> Section:
    """What was computed, and on which rows."""
    first = {r.case.name: r for r in reversed(data.records)}
    names = dict.fromkeys(r.case.name for r in data.records)
    if not names:
        return Section("", [])
    shown = table(
        ["workload", "batch", "model", "loss and optimizer", "rows"], [_work_row(data, first[n]) for n in names]
    )
    made_up: list[Block] = []
    if stand_ins := [name for name in names if is_stand_in(data.sources[name])]:
        lead = f"Made up, in place of the real rows: {', '.join(stand_ins)}"
        made_up = [[(Toned(lead, "lead"), "accuracies say nothing of the real ones.")]]
    return Section("The work", [shown, *made_up])


def contracts_of(data: ReportData) -> dict[str, list[Contract]]:
    """Backend -> the different contracts in its records."""
    found: dict[str, list[Contract]] = {}
    for r in data.records:
        if r.contract is not None and r.contract not in found.setdefault(r.backend, []):
            found[r.backend].append(r.contract)
    return found


def subnormals(data: ReportData) -> Section:
    """Which backends keep and which flush subnormal numbers, by the records' contracts, and why it matters."""
    modes: dict[str, list[str]] = {}
    for backend, contracts in contracts_of(data).items():
        mode = ", ".join(dict.fromkeys(c.subnormals for c in contracts))
        modes.setdefault(mode, []).append(backend)
    items: list[Item] = [(mode, ", ".join(names)) for mode, names in modes.items()]
    return Section("Subnormals: kept or flushed", [Markdown(SUBNORMALS), items] if modes else [])


def contracts(data: ReportData) -> Section:
    """What was inside the clock."""
    asked = list(dict.fromkeys(str(r.case.pass_) for r in data.records))
    rows = []
    for backend, (*_, c) in contracts_of(data).items():
        where = (c.device, str(c.threads), "yes" if c.tf32 else "no")
        rows.append([backend, *where, *(c.timed.get(p, "-") for p in asked), c.notes])
    header = ["backend", "device", "threads", "TF32", *(f"{p}: inside the clock" for p in asked), "notes"]
    return Section("What each backend does", [table(header, rows)] if rows else [])


def definitions() -> Section:
    """How the numbers were made."""
    return Section("How the numbers were made", [Markdown(DEFINITIONS)])
