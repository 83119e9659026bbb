"""`rnnbench run`: make or resume the folder, measure, train."""

from __future__ import annotations

import secrets
import shutil
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from rnnbench import backends, workloads
from rnnbench.commands.progress import Display
from rnnbench.measure.client import WorkerFailure
from rnnbench.measure.crew import Crew
from rnnbench.measure.ledger import Ledger
from rnnbench.measure.load import Watch
from rnnbench.measure.machine import fingerprint
from rnnbench.measure.memory import measure_memory
from rnnbench.measure.neighbours import Neighbours
from rnnbench.measure.peak import PeakUnknown, measure
from rnnbench.measure.run import Runner
from rnnbench.measure.schedule import Plan, problem_of, workload_of
from rnnbench.measure.stopping import readable
from rnnbench.measure.tasks import load_rows, tasks_of
from rnnbench.measure.train import Training, train
from rnnbench.model import DType
from rnnbench.params import cast, init_params
from rnnbench.results import noise, store
from rnnbench.results.account import Kind, seconds_of
from rnnbench.results.disturbed import BESIDE
from rnnbench.results.peak import Peak, with_work
from rnnbench.results.record import Epoch, Mode, Record, Status

SHORT_TRAINING = 100  # time steps: a training on longer rows takes more than seconds, and is done when asked for

OK, FAULTS, USAGE, NOTHING, FOLDER, INTERRUPTED = 0, 1, 2, 3, 4, 130
EXIT_CODES = {
    OK: "all was measured that could be, or that a budget left time for",
    FAULTS: "some backend was wrong, crashed, hung or ran out of memory; the rest was measured",
    USAGE: "an option or argument is wrong",
    NOTHING: "nothing was measured",
    FOLDER: "a folder cannot be read or written",
    INTERRUPTED: "interrupted; continue with --resume",
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
    run = store.read_json(path)
    if run.get("merged"):
        raise store.StoreError(f"{folder} cannot be resumed: it was merged of runs; resume those, and merge again")
    try:
        return msgspec.convert(run["plan"], Plan), run
    except (KeyError, msgspec.ValidationError) as error:
        raise store.StoreError(f"{path} does not hold the plan of a run: {error}") from error


def execute(
    plan: Plan, folder: Path, command: str, display: Display, *, resume: bool = False, ledger: Ledger | None = None
) -> Result:
    """Measure a plan into a folder, or what is left of it. Raises StoreError, ValueError, WorkloadUnavailable.

    Ctrl-C and SIGTERM end the run in order: what was measured stays and the code is INTERRUPTED.
    """
    begun = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    ledger = ledger or Ledger()
    journal = store.Journal(folder)
    curves = store.Journal(folder, store.CURVES)
    code = OK
    try:
        before = store.load(folder)
        for problem in (*journal.problems, *curves.problems, *before.problems):
            display.say(problem)
        run = _describe(plan, command, before.run if resume else {})
        with Neighbours(str(folder)) as neighbours:
            _measure(plan, folder, run, before, (journal, curves), neighbours, ledger, display, begun)
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


def write_noise(plan: Plan, folder: Path) -> None:
    """The noise of an A/A run, as a file of its own. Nothing where no backend was measured against itself."""
    if any(noise.MARK in name for name in plan.backends):
        loaded = store.load(folder)
        found = noise.noise_of(loaded.records)
        if found is not None:
            value = found.as_json(str(loaded.run["run_id"]), str(loaded.machine["machine_id"]))
            store.write_json(folder / noise.NOISE, value)


def _told(error: Exception) -> str:
    """What ended the run, and the way out."""
    if not isinstance(error, OSError):
        return str(error)
    return f"{error.filename or 'a file'}: {error.strerror or error}; make room and continue with --resume"


def _measure(
    plan: Plan,
    folder: Path,
    run: dict[str, Any],
    before: store.Loaded,
    journals: tuple[store.Journal, store.Journal],
    neighbours: Neighbours,
    ledger: Ledger,
    display: Display,
    begun: float,
) -> None:
    """All answers and trainings into the journals; what the machine is and where the time went beside them."""
    journal, curves = journals
    _tell_neighbours(run, neighbours.last, display)
    store.write_json(folder / store.RUN, run)
    machine, watch = fingerprint(), Watch()
    machine["start"] = watch.start
    with ledger.spend(Kind.PEAK):
        peak = peak_now(plan, display)
    store.write_json(folder / store.MACHINE, {**machine, "peak": msgspec.to_builtins(peak)})
    with ledger.spend(Kind.DATA):
        tasks = tasks_of(plan, display.say)

    def emit(record: Record) -> None:
        others = neighbours.seen()
        _tell_neighbours(run, others, display)
        beside = (f"{BESIDE}: {', '.join(others)}",) if others else ()
        journal.append([with_work(replace(record, disturbances=(*record.disturbances, *beside)), peak)])

    runner = Runner(
        plan,
        tasks,
        folder,
        emit,
        display,
        run_id=run["run_id"],
        machine_id=machine["machine_id"],
        before=before.records,
        begun=begun,
        ledger=ledger,
    )
    try:
        runner.run()
        if runner.stopping.left > 0:
            with ledger.spend(Kind.MEMORY):
                measure_memory(runner, before.records)
            trainings(plan, folder, run["run_id"], display, curves, before.curves, ledger)
        else:
            display.say(f"the budget of {readable(plan.budget or 0.0)} is spent; what was measured is kept")
        if peak and plan.mode is not Mode.QUICK:  # a neighbour at the start of a run hides what is possible
            with ledger.spend(Kind.PEAK):
                peak = peak_now(plan, display, peak)
        if runner.stops:
            run["stops"] = msgspec.to_builtins(runner.stops)
    finally:
        run["seconds"] = ledger.seconds(seconds_of(before.run))
        store.write_json(folder / store.RUN, run)
        machine |= {"peak": msgspec.to_builtins(peak), "workers": runner.crew.libraries, "end": watch.end()}
        store.write_json(folder / store.MACHINE, machine)
    store.write_json(folder / store.RUN, {**run, "finished": _now()})


def with_report(folder: Path, run: dict[str, Any], seconds: float) -> dict[str, Any]:
    """What `run.json` holds, kept there with what the report took; as it was where it cannot be written."""
    kept = seconds_of(run)
    if not kept:
        return run
    whole = {str(k): s for k, s in kept.items()} | {str(Kind.REPORT): round(kept.get(Kind.REPORT, 0) + seconds, 3)}
    with suppress(store.StoreError):
        store.write_json(folder / store.RUN, {**run, "seconds": whole})
    return {**run, "seconds": whole}


def _tell_neighbours(run: dict[str, Any], others: list[str], display: Display) -> None:
    """Say once of each other run that it measures too, and keep it for `run.json`."""
    for name in others:
        if name not in run.setdefault("beside", []):
            run["beside"].append(name)
            display.say(f"another run measures on this machine: {name}; both are slower for it, and the records say so")


def peak_now(plan: Plan, display: Display, before: Peak | None = None) -> Peak | None:
    """The machine's ceilings, by now and `before` together; None, said in one line, where they cannot be measured."""
    display.show("measuring what this machine can do at most", 0.0)
    try:
        found = measure(plan.dtypes, plan.threads, quick=plan.mode is Mode.QUICK)
    except PeakUnknown as error:
        display.say(f"{error}; no share of it is shown" if before is None else str(error))
        return before
    return found if before is None else before.best_of(found)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _describe(plan: Plan, command: str, before: dict[str, Any]) -> dict[str, Any]:
    return {
        "schema": 1,
        "run_id": before.get("run_id") or new_run_id(),
        "mode": plan.mode,
        "command": before.get("command", command),
        "started": before.get("started") or _now(),
        "resumed": [*before.get("resumed", []), _now()] if before else [],
        "beside": list(before.get("beside", [])),
        "seed": plan.seed,
        "reference": plan.reference,
        "plan": msgspec.to_builtins(plan),
    }


def code_of(records: list[Record], curves: list[Epoch]) -> int:
    """The exit code that a finished run's records stand for."""
    if not curves and not any(record.samples_ns for record in records):
        return NOTHING
    harmless = (Status.OK, Status.UNSUPPORTED, Status.UNAVAILABLE, Status.SKIPPED)
    return OK if all(record.status in harmless for record in records) else FAULTS


def training_backend(names: tuple[str, ...]) -> str | None:
    """Who draws the learning curves of a run: our kernels if they take part, else the first who is installed."""
    present = [name for name in names if backends.missing(name) is None]
    return "numba" if "numba" in present else next(iter(present), None)


def trainings(
    plan: Plan,
    folder: Path,
    run_id: str,
    display: Display,
    curves: store.Journal,
    before: list[Epoch],
    ledger: Ledger | None = None,
) -> None:
    """The trainings that belong to a run, for its learning curves: one per workload of the plan, by one backend."""
    name = training_backend(plan.backends)
    if name is None:
        return
    crew = Crew([name], folder, plan.threads, plan.timeout, folder / "cache", ledger)
    try:
        for workload in plan.training:
            with crew.ledger.spend(Kind.DATA):
                training = make_training(workload, plan, run_id, display)
            whole = {(e.workload, e.backend) for e in before if e.epoch == e.epochs}
            if (training.problem.workload, name) in whole:
                continue

            def emit(epoch: Epoch, training: Training = training) -> None:
                display.show(f"training {epoch.workload}: {name}", (epoch.epoch + 1) / (training.epochs + 1))
                curves.append([epoch])

            try:
                train(training, name, crew, emit)
            except WorkerFailure as failure:
                display.say(f"{name} in training {workload}: {failure.status}. {failure.reason}")
    finally:
        crew.kill()


def make_training(name: str, plan: Plan, run_id: str, display: Display, epochs: int | None = None) -> Training:
    """A training of a workload as the plan has it, in its first type."""
    workload, dataset = load_rows(workload_of(name, plan), plan.seed, plan.data_dir, display.say)
    dtype: DType = plan.dtypes[0]
    return Training(
        problem=problem_of(workload, dtype, plan.truncation, plan.batch_size),
        params=cast(init_params(workload.model, workload.init, plan.seed), dtype),
        dataset=dataset,
        epochs=workload.epochs if epochs is None else epochs,
        seed=plan.seed,
        run_id=run_id,
    )


def with_trainings(plan: Plan, asked: bool | None) -> Plan:
    """The plan with its trainings: as `asked`, else those that take seconds; of a quick run `parity` alone."""
    if asked is False or (plan.filter and asked is None):
        return plan
    quick = plan.mode is Mode.QUICK
    most = workloads.get("parity").T if quick else SHORT_TRAINING
    lengths = {name: workloads.get(name).T for name in plan.workloads}
    return replace(plan, training=tuple(name for name, T in lengths.items() if asked or most >= T))
