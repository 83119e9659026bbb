"""The parts of the page that say what stands behind the numbers: run, machine, work, contracts, definitions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rnnbench.contract import Contract
from rnnbench.records import account
from rnnbench.records.record import Record, checks_in, turns_in
from rnnbench.report.context import Context
from rnnbench.report.machine import lines
from rnnbench.report.markdown import escape, table
from rnnbench.report.text import short, workload_label

_LONGEST = 160  # signs of one fact; the whole is in machine.json

_UNTOLD = ("schema", "plan", "stops", "seconds", "unlike")  # for programs, or told elsewhere

DEFINITIONS = """\
- **Turn**: the calls that one backend makes in one round. Its value is the median of the samples after the warm-ups.
- **Launch**: one process of a backend. Its value is the median of its turns.
- **Time**: the geometric mean over launches. Its interval is Student's t, 95 %, on the logarithms of the launch values:
  few launches give wide intervals, which is right. An *epoch* is also shown per step: its time over its steps.
- **One launch** (†): the interval is over the rounds of that launch. It knows nothing of the spread between processes,
  so it is too narrow. **Fewer than three values** (‡): no interval at all.
- **Ratio** (speed-up, lead): one ratio per round that both backends were measured in, so that a drift of the machine
  falls out; the median per launch, then the geometric mean over launches, with the same interval.
- **Sure**: the whole interval of the winner's lead, taken over launches, is above 1. Each interval stands for itself:
  none is corrected for the number of cases.
- **Error**: norm(x - ref) / norm(ref) of each named array against the float64 oracle, on the same parameters and rows.
  A backend over its limit is *wrong*: shown, and in no ranking and no ratio.
- **Start**: import, preparation of data and parameters, and the first call, which compiles where there is a compiler;
  medians over launches. Where a workload is shown by its train step, the first calls of the passes before it are
  added. What one workload had compiled is not compiled again for the next of the same process: our kernels, compiled
  once for all sizes while the first workload of a run is prepared, pay there.
  *Code on disk* is a first call that found its compiled code in a cache.
- **Warm-ups**: the first calls of a turn, begun within its first 10 ms, at most three and never all. They are stored
  and left out. A first counted call that surely takes 1.1 times the later ones or more is told under the table.
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


def _counts(context: Context) -> Iterator[tuple[str, str]]:
    real = turns_in(context.records)
    yield "launches", str(len({(r.part, r.launch) for r in real}))
    yield "rounds a launch, at most", str(len({r.round for r in real}))
    yield "backends", ", ".join(context.backends)
    if context.reference:
        yield "reference", context.reference
    threads = sorted({r.contract.threads for r in checks_in(context.records) if r.contract})
    if threads:
        yield "threads", ", ".join(map(str, threads))
    if len(dtypes := {str(r.case.dtype) for r in context.records}) == 1:
        yield "dtype", dtypes.pop()


def run(context: Context) -> list[str]:
    """How it was run and on what."""
    facts = dict(flatten({k: v for k, v in context.run.items() if k not in _UNTOLD}))
    facts |= {name: value for name, value in _counts(context) if name not in facts and value not in ("", "0")}
    rows = [[escape(k), escape(short(v, _LONGEST))] for k, v in facts.items()]
    parts = ["## The run", table(["fact", "value"], rows)] if rows else []
    if context.disturbances:
        parts += ["\n".join(f"- **Disturbed**: {escape(note)}." for note in context.disturbances)]
    if spent := account.time_in_words(context.run):
        parts.append(f"{escape(spent)}.")
    machine_facts = {k: v for k, v in context.machine.items() if k != "peak"}
    machine = [[escape(k), escape(short(v, _LONGEST))] for k, v in lines(machine_facts)]
    return parts + (["## The machine", table(["fact", "value"], machine)] if machine else [])


def _work_row(context: Context, r: Record) -> list[str]:
    model, train = r.case.model, r.case.train
    inputs = f"V {model.V:,}, E {model.E}" if model.V is not None else f"dense E {model.E}"
    clip = f", value clipped at {train.clip_value:g}" if train.clip_value is not None else ""
    clip += f", norm clipped at {train.clip_norm:g}" if train.clip_norm is not None else ""
    return [
        escape(workload_label(r.case.name, r.data_source)),
        f"B {r.case.B}, T {r.case.T}",
        f"{inputs}, H {model.H}, O {model.O}, loss on {'every' if model.head == 'every' else 'the last'} step",
        escape(f"{model.loss}, {train.optimizer} {train.learning_rate:g}{clip}"),
        escape(context.sources.get(r.case.name, "") or "not recorded"),
    ]


def work(context: Context) -> list[str]:
    """What was computed, and on which rows."""
    first = {r.case.name: r for r in reversed(context.records)}
    names = dict.fromkeys(r.case.name for r in context.records)
    rows = [_work_row(context, first[name]) for name in names]
    if not rows:
        return []
    parts = ["## The work", table(["workload", "batch", "model", "loss and optimizer", "rows"], rows)]
    made_up = [name for name in names if "synthetic" in context.sources[name].lower() or "synthetic" in name]
    if made_up:
        parts.append(
            f"**Synthetic, not real reviews: {escape(', '.join(made_up))}.** Its accuracies say nothing of IMDB."
        )
    return parts


def contracts_of(context: Context) -> dict[str, list[Contract]]:
    """Backend -> the different contracts in its records."""
    found: dict[str, list[Contract]] = {}
    for r in checks_in(context.records):
        if r.contract is not None and r.contract not in found.setdefault(r.backend, []):
            found[r.backend].append(r.contract)
    return found


def subnormals(context: Context) -> list[str]:
    """Who keeps and who flushes, by the records' contracts, and why it matters."""
    found = contracts_of(context)
    if not found:
        return []
    modes: dict[str, list[str]] = {}
    for backend, contracts in found.items():
        mode = ", ".join(dict.fromkeys(c.subnormals for c in contracts))
        modes.setdefault(mode, []).append(backend)
    said = [f"- **{escape(mode)}**: {escape(', '.join(names))}" for mode, names in modes.items()]
    return ["## Subnormals: kept or flushed", SUBNORMALS, "\n".join(said)]


def contracts(context: Context) -> list[str]:
    """What was inside the clock."""
    asked = list(dict.fromkeys(str(r.case.pass_) for r in context.records))
    rows = []
    for backend, every in contracts_of(context).items():
        c = every[-1]
        where = (c.device, str(c.threads), "yes" if c.tf32 else "no")
        rows.append([escape(backend), *where, *(escape(c.timed.get(p, "-")) for p in asked), escape(c.notes)])
    if not rows:
        return []
    header = ["backend", "device", "threads", "TF32", *(f"{escape(p)}: inside the clock" for p in asked), "notes"]
    return ["## What each backend does", table(header, rows)]


def definitions() -> list[str]:
    """How the numbers were made."""
    return ["## How the numbers were made", DEFINITIONS]
