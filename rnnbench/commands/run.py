"""`rnnbench run`: make or resume the folder, measure, and the exit code."""

from __future__ import annotations

import secrets
import shutil
import signal
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from rnnbench import backends, workloads
from rnnbench.commands import FAULT, FAULT_MEANS
from rnnbench.commands.names import unknown
from rnnbench.commands.progress import Display
from rnnbench.commands.sitting import Sitting, now, write_noise
from rnnbench.measure.ledger import Ledger
from rnnbench.measure.neighbours import Neighbours
from rnnbench.measure.schedule import Plan
from rnnbench.model import DENSE
from rnnbench.results import store
from rnnbench.results.account import Kind, seconds_of
from rnnbench.results.record import Epoch, Record, Status

OK, FAULTS, USAGE, NOTHING, FOLDER, INTERRUPTED = 0, 1, 2, 3, 4, 130
EXIT_CODES = {
    OK: "all was measured that could be, or that a budget left time for",
    FAULTS: "some backend was wrong, crashed, hung or ran out of memory; the rest was measured",
    USAGE: "an option or argument is wrong",
    NOTHING: "nothing was measured",
    FOLDER: "a folder cannot be read or written",
    INTERRUPTED: "interrupted; continue with --resume",
    FAULT: FAULT_MEANS,
}


@dataclass(frozen=True)
class Result:
    """How a run ended: what is in its folder, and the exit code."""

    folder: Path
    loaded: store.Loaded
    code: int


def new_run_id() -> str:
    """Sortable by time, unique enough for two runs begun in one second."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def read_plan(folder: Path) -> tuple[Plan, dict[str, Any]]:
    """What an interrupted run was asked. Raises StoreError where its `run.json` is missing or damaged."""
    path = folder / store.RUN
    if not path.exists():
        raise store.StoreError(f"{folder} cannot be resumed: {path} is not there")
    run = store.read_run(folder)
    if run.get("merged"):
        raise store.StoreError(f"{folder} cannot be resumed: it was merged of runs; resume those, and merge again")
    try:
        plan = msgspec.convert(run["plan"], Plan)
    except (KeyError, msgspec.ValidationError) as error:
        raise store.StoreError(f"{path} does not hold the plan of a run: {error}") from error
    backend_names = [name.removesuffix(backends.TWIN) for name in plan.backends]
    _check_names(folder, "backend", [*backend_names, *filter(None, [plan.reference])], backends.REGISTRY)
    _check_names(folder, "workload", [*plan.workloads, *plan.training], [*workloads.REGISTRY, DENSE])
    return plan, run


def _check_names(folder: Path, kind: str, names: Iterable[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise store.StoreError(
                f"{folder} cannot be resumed: {unknown(kind, name, known)}; take the rnnbench that began it, or "
                "measure in a new folder"
            )


def execute(
    plan: Plan, folder: Path, command: str, display: Display, *, resume: bool = False, run_id: str | None = None
) -> Result:
    """Measure a plan into a folder, or what is left of it. Raises StoreError, ValueError, WorkloadUnavailable.

    Ctrl-C and SIGTERM end the run in order: what was measured stays and the code is INTERRUPTED. `run_id` is that of a
    new run, None for any.
    """
    begun = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    journal = store.Journal(folder)
    curves = store.Journal(folder, store.CURVES)
    code = OK
    try:
        before = store.load(folder)
        for problem in (*journal.problems, *curves.problems, *before.problems):
            display.say(problem)
        run = _describe(plan, command, before.run if resume else {}, run_id)
        sitting = Sitting(plan, folder, run, before, journal, curves, Ledger(), display, begun)
        with Neighbours(str(folder)) as neighbours:
            sitting.measure(neighbours)
        write_noise(plan, folder)
        for scratch in ("arrays", "cache"):
            shutil.rmtree(folder / scratch, ignore_errors=True)
    except (store.StoreError, OSError) as error:
        if not journal.path.stat().st_size:
            raise
        display.say(f"stopped; what was measured is kept. {_told(error)}")
        code = FOLDER
    except KeyboardInterrupt:
        display.say(f"interrupted; what was measured is kept. Continue with: python -m rnnbench run --resume {folder}")
        code = INTERRUPTED
    finally:
        journal.close()
        curves.close()
    loaded = store.load(folder)
    return Result(folder, loaded, code or code_of(loaded.records, loaded.curves))


def _told(error: Exception) -> str:
    """What ended the run, and the way out."""
    if not isinstance(error, OSError):
        return str(error)
    return f"{error.filename or 'a file'}: {error.strerror or error}; make room and continue with --resume"


def with_report(folder: Path, run: dict[str, Any], spent: Mapping[Kind, float]) -> dict[str, Any]:
    """What `run.json` holds, kept there with what the report took; as it was where it cannot be written."""
    kept = seconds_of(run)
    if not kept:
        return run
    whole = {str(kind): round(kept.get(kind, 0.0) + spent.get(kind, 0.0), 3) for kind in {**kept, **spent}}
    with suppress(store.StoreError):
        store.write_json(folder / store.RUN, {**run, "seconds": whole})
    return {**run, "seconds": whole}


def _describe(plan: Plan, command: str, before: dict[str, Any], run_id: str | None) -> dict[str, Any]:
    return {
        "schema": 1,
        "run_id": before.get("run_id") or run_id or new_run_id(),
        "mode": plan.mode,
        "command": before.get("command", command),
        "started": before.get("started") or now(),
        "resumed": [*before.get("resumed", []), now()] if before else [],
        "beside": list(before.get("beside", [])),
        "seed": plan.seed,
        "reference": plan.reference,
        "plan": msgspec.to_builtins(plan),
        **{name: before[name] for name in ("seconds", "stops") if name in before},
    }


def code_of(records: list[Record], curves: list[Epoch]) -> int:
    """The exit code that a finished run's records stand for."""
    if not curves and not any(record.samples_ns for record in records):
        return NOTHING
    harmless = (Status.OK, Status.UNSUPPORTED, Status.UNAVAILABLE, Status.SKIPPED)
    return OK if all(record.status in harmless for record in records) else FAULTS
