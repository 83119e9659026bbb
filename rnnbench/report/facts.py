"""The sections that say what stands behind the numbers: run, machine, work, noise, stops, contracts, definitions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from rnnbench.analysis.noise import MARK, Noise, ReplicaPair, noise_of
from rnnbench.analysis.stats import WIDEST
from rnnbench.analysis.warnings import facts_of
from rnnbench.contract import Contract
from rnnbench.records import account
from rnnbench.records.record import Record, checks_in, turns_in
from rnnbench.records.stops import MIN_LAUNCHES, StopRule, Why
from rnnbench.report.data import ReportData
from rnnbench.report.section import Block, Item, Markdown, Section, Toned, table
from rnnbench.report.text import is_stand_in, ratio_with_interval, short, workload_label
from rnnbench.units import gibibytes, number, percent, threads

MAX_FACT = 160  # signs of one fact; the whole is in machine.json
UNKNOWN = "unknown"

# In run.json: for programs, or in other sections.
_OTHERWISE_SHOWN = ("schema", "plan", "stops", "seconds", "unlike", "done", "machines")

DEFINITIONS = """\
- **Turn**: the calls that one backend makes in one round. Its value is the median of the samples after the warm-ups.
- **Launch**: one process of a backend. Its value is the median of its turns.
- **Time**: the median over launches. Its 95 % interval is by their ranks: few launches give wide intervals, which is
  right, and a disturbed one widens it but hardly moves the time. An *epoch* is also shown per step: its time over its
  steps.
- **One launch** (†): the interval is over the rounds of that launch. It knows nothing of the spread between processes,
  so it is too narrow. **Fewer than three values** (‡): no interval at all.
- **Ratio** (speed-up, lead): one ratio per round that both backends were measured in, so that a drift of the machine
  falls out; the median per launch, then over launches, with the same interval.
- **Sure**: the whole interval of each lead that is named, taken over launches, is above 1. Each interval stands for
  itself: none is corrected for the number of cases.
- **Noisy**: the interval's upper end is more than 3 times its lower one, or the larger of two values that of the other.
  It is not written out, and where it leaves a figure it is cut with an arrow; `tables/` has it in digits.
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

PRECISION = """\
How far the 95 % interval of a time reaches above it, and after how many launches; what ended them, where it was not
that all times of the case were precise enough."""


def flatten(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested facts as `name, value` lines; empty ones left out."""
    for key, value in facts.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flatten(value, f"{name}: ")
        elif value not in (None, "", [], ()):
            yield name, ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _counts(data: ReportData) -> Iterator[tuple[str, str]]:
    real = turns_in(data.records)
    yield "launches", str(len({(r.part, r.launch) for r in real}))
    yield "rounds a launch, at most", str(len({r.round for r in real}))
    yield "backends", ", ".join(data.backends)
    if data.reference:
        yield "reference", data.reference
    if counts := sorted({r.contract.threads for r in checks_in(data.records) if r.contract}):
        yield "threads", ", ".join(map(str, counts))
    if len(dtypes := {str(r.case.dtype) for r in data.records}) == 1:
        yield "dtype", dtypes.pop()


def run_section(data: ReportData) -> Section:
    """How it was run, what disturbed it, and where its time went."""
    facts = dict(flatten({k: v for k, v in data.run.items() if k not in _OTHERWISE_SHOWN}))
    facts |= {name: value for name, value in _counts(data) if name not in facts and value not in ("", "0")}
    disturbed: list[Item] = [("Disturbed", f"{note}.") for note in data.disturbances]
    spent = account.time_in_words(data.run)
    shown: list[Block] = [table(["fact", "value"], [[k, short(v, MAX_FACT)] for k, v in facts.items()])]
    return Section("The run", [*shown, disturbed, f"{spent}." if spent else ""] if facts else [])


def machine_section(data: ReportData) -> Section:
    """The facts of the machine that explain a number; the rest behind a title."""
    rows = [[name, short(said, MAX_FACT)] for name, said in _explaining(data) if said]
    rest = [[k, short(v, MAX_FACT)] for k, v in machine_rows({k: v for k, v in data.machine.items() if k != "peak"})]
    if not rest:
        return Section("", [])
    every = Section("Everything that was recorded of it", [table(["fact", "value"], rest)], folded=True)
    return Section("The machine", [table(["fact", "value"], rows), every])


def processor_text(machine: Mapping[str, Any]) -> str:
    """`Intel(R) Xeon(R) Processor, 2 cores`; "" where it is not known."""
    cpu = facts_of(machine, "cpu")
    count = cpu.get("allowed") or cpu.get("cores")
    return ", ".join(filter(None, (cpu.get("model"), f"{count} {'core' if count == 1 else 'cores'}" if count else "")))


VECTORS = {"amx_tile": "AMX", "avx512f": "AVX-512", "avx2": "AVX2", "sve": "SVE", "asimd": "NEON"}


def _explaining(data: ReportData) -> Iterator[tuple[str, str]]:
    """Name and value of what explains a number; "" of what is not known."""
    machine = data.machine
    cpu = facts_of(machine, "cpu")
    cache, quota = facts_of(cpu, "cache_bytes"), facts_of(machine, "limits").get("cpus")
    yield (
        "processor",
        processor_text(machine) + (f", of which {quota} may be used" if isinstance(quota, int | float) else ""),
    )
    features = cpu.get("features") or ()
    yield "vector units", ", ".join(words for name, words in VECTORS.items() if name in features)
    yield "caches", ", ".join(f"{name.upper()} {_bytes(size)}" for name, size in cache.items() if _bytes(size))
    yield "clock", _clock(cpu)
    yield "GPU", _value(machine.get("gpu")) if machine.get("gpu") else ""
    yield "memory", _bytes(machine.get("memory_bytes"))
    yield "system", ", ".join(str(machine[k]) for k in ("os", "distribution") if machine.get(k))
    yield "virtual machine, container", ", ".join(str(cpu[k]) for k in ("virtual_machine", "container") if cpu.get(k))
    yield "Python", str(machine.get("python") or "")
    libraries = facts_of(machine, "libraries")
    yield "libraries", ", ".join(f"{name} {version}" for name, version in libraries.items())
    yield "taken by other programs", _taken(facts_of(machine, "end"))
    if data.peak:
        said = (f"{dtype} {r.flops / 1e9:,.0f} GFLOP/s" for dtype in data.peak.rates if (r := data.peak.roof(dtype)))
        yield "peak", ", ".join(said)


def _bytes(size: Any) -> str:
    if not isinstance(size, int):
        return ""
    if size >= 2**30:
        return gibibytes(size)
    return f"{number(size / 2**20)} MiB" if size >= 2**20 else f"{size >> 10} KiB"


def _clock(cpu: Mapping[str, Any]) -> str:
    """What is known of it, and of what moves it what is not."""
    if not cpu.get("mhz"):
        return ""
    known = {"governor": cpu.get("governor"), "turbo": cpu.get("turbo")}
    return ", ".join([f"{number(cpu['mhz'], decimals=0)} MHz", *(f"{k} {v or UNKNOWN}" for k, v in known.items())])


def _taken(end: Mapping[str, Any]) -> str:
    shares = {"of the cores' time": end.get("others_share"), "by the host": end.get("stolen_share")}
    return ", ".join(f"{percent(share, 1)} {of}" for of, share in shares.items() if isinstance(share, int | float))


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


def work_section(data: ReportData) -> Section:
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
    found: dict[str, list[Contract]] = {name: [] for name in data.backends}
    for r in checks_in(data.records):
        if r.contract is not None and r.contract not in found[r.backend]:
            found[r.backend].append(r.contract)
    return {name: contracts for name, contracts in found.items() if contracts}


def subnormals_section(data: ReportData) -> Section:
    """Which backends keep and which flush subnormal numbers, by the records' contracts, and why it matters."""
    modes: dict[str, list[str]] = {}
    for backend, contracts in contracts_of(data).items():
        mode = ", ".join(dict.fromkeys(c.subnormals for c in contracts))
        modes.setdefault(mode, []).append(backend)
    items: list[Item] = [(mode, ", ".join(names)) for mode, names in modes.items()]
    return Section("Subnormals: kept or flushed", [Markdown(SUBNORMALS), items] if modes else [], folded=True)


def contracts_section(data: ReportData) -> Section:
    """What was inside the clock."""
    asked = list(dict.fromkeys(str(r.case.pass_) for r in data.records))
    rows = []
    for backend, contracts in contracts_of(data).items():
        c, counts = contracts[-1], ", ".join(map(str, sorted({c.threads for c in contracts})))
        where = (c.device, counts, "yes" if c.tf32 else "no")
        rows.append([backend, *where, *(c.timed.get(p, "-") for p in asked), c.notes])
    header = ["backend", "device", "threads", "TF32", *(f"{p}: inside the clock" for p in asked), "notes"]
    return Section("What each backend does", [table(header, rows)] if rows else [], folded=True)


def definitions_section() -> Section:
    """How the numbers were made."""
    return Section("How the numbers were made", [Markdown(DEFINITIONS)], folded=True)


_SHORT = {Why.PRECISE: "", Why.CAP: "cap", Why.BUDGET: "budget", Why.CASE_BUDGET: "case budget", Why.ALL: ""}
_ENDED = {
    Why.PRECISE: "precise enough",
    Why.CAP: "at the cap of launches",
    Why.BUDGET: "by the budget",
    Why.CASE_BUDGET: "by the budget of a case",
    Why.ALL: "after all launches",
}


def stops_section(data: ReportData) -> Section:
    """How far the interval of each time reaches, after how many launches, and what ended them."""
    labels = {s.case.key: data.labels.of(s.case) for s in data.summaries}
    found = {labels[key]: row for key, row in data.run.get("stops", {}).items() if key in labels}
    if not found:
        return Section("", [])

    def cell(stop: Any) -> str:
        if stop is None:
            return "-"
        why = _SHORT[Why(stop["why"])]
        return f"{_reach(stop['reached'])}, {stop['launches']}{f' ({why})' if why else ''}"

    names = list(dict.fromkeys(name for row in found.values() for name in row))
    shown = table(["case", *names], [[label, *(cell(row.get(name)) for name in names)] for label, row in found.items()])
    every = [(label, name, stop) for label, row in found.items() for name, stop in row.items()]
    counts = Counter(Why(stop["why"]) for _, _, stop in every)
    brief = f"stopped: {', '.join(f'{counts[why]} {words}' for why, words in _ENDED.items() if counts[why])}"
    if known := [(stop["reached"], f"{label} {name}") for label, name, stop in every if stop["reached"] is not None]:
        brief += f"; the least precise is {max(known)[1]}, {_reach(max(known)[0])}"
    asked: list[Block] = []
    if rule := (data.run.get("plan") or {}).get("rule"):
        r = msgspec.convert(rule, StopRule)
        asked = [
            f"Each case went on, with all its backends, until every time was precise to {percent(r.precision)}: "
            f"{r.min_launches} launches at least, {r.max_launches} at most."
        ]
    return Section("Why it stopped", [*asked, shown, Markdown(PRECISION)], brief=[brief] if every else [])


def _reach(reached: float | None) -> str:
    """How far an interval reaches above its time; below it, as far on a log scale."""
    if reached is None:
        return "no interval"
    return "noisy" if (1 + reached) ** 2 > WIDEST else percent(reached)


def noise_section(data: ReportData) -> Section:
    """Each backend against its replica, and the noise that this shows."""
    found = noise_of(data.records) if any(MARK in name for name in data.backends) else None
    if found is None:
        return Section("", [])
    rows = [[data.labels.of(p.case), p.backend, ratio_with_interval(p.ratio), _replica_verdict(p)] for p in found.pairs]
    shown = table(["case", "backend", "its replica over it", "called"], rows)
    return Section("The same code twice", [shown, _noise_text(found)])


def _replica_verdict(pair: ReplicaPair) -> str:
    if math.isnan(pair.q):
        return "no verdict"
    return "different: a false alarm" if pair.different else "no difference"


def _noise_text(found: Noise) -> str:
    count = len(found.pairs)
    if found.launches < MIN_LAUNCHES:
        return f"{found.launches} launches are too few to call anything different; {MIN_LAUNCHES} at least are needed."
    single = sum(pair.excludes_one for pair in found.pairs)
    return (
        f"False alarms: {found.false_alarms} of {count}, judged together; {single} each by its own interval, where "
        f"{number(0.05 * count, decimals=1)} are expected by chance. Of 100 launches, 95 have a ratio within "
        f"{percent(found.spread)} of 1. So the noise floor of {found.launches} launches is {percent(found.floor)}: "
        "compare takes it, but never below 1 %, for its margin on this machine."
    )
