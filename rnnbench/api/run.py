"""`rnnbench run`: make or resume the folder, measure, and the exit code."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from rnnbench import backends, workloads
from rnnbench.analysis.comparable import Side, first_few, unlike_machines
from rnnbench.api.errors import command_line, told
from rnnbench.api.exit_codes import FAULTS, FOLDER, INTERRUPTED, NOTHING, OK, SYSTEM
from rnnbench.api.run_session import RunSession, now, write_noise
from rnnbench.harness.observer import Observer
from rnnbench.harness.plan import Plan
from rnnbench.harness.timers import Ledger
from rnnbench.machine.fingerprint import fingerprint
from rnnbench.machine.interference import Neighbours
from rnnbench.names import unknown
from rnnbench.records import store
from rnnbench.records.account import TimeKind, seconds_of
from rnnbench.records.folder import ARRAYS, CACHE, clear_scratch, held, scratch_of
from rnnbench.records.record import Status, turns_in
from rnnbench.records.store import new_run_id
from rnnbench.workloads.base import MADE_UP, Workload
from rnnbench.workloads.files import keep_rows


@dataclass(frozen=True)
class Result:
    """How a run ended: what is in its folder, and the exit code."""

    folder: Path
    loaded: store.Loaded
    code: int


def read_plan(folder: Path) -> tuple[Plan, dict[str, Any]]:
    """What an interrupted run was asked. Raises StoreError where it cannot be resumed."""
    run = store.read_run(folder) if folder.is_dir() else {}
    if run.get("merged"):
        raise store.StoreError(f"{folder} cannot be resumed: it was merged of several runs; resume those")
    if not store.is_run(folder):
        why = "it is not there"
        if (folder / store.MACHINES).is_file():
            raise store.StoreError(f"{folder} is a run over a cluster; give --scheduler or --local-cluster, too")
        if folder.exists():
            why = f"it has no {store.RUN} of a run" if folder.is_dir() else "it is not a folder"
        raise store.StoreError(f"{folder} cannot be resumed: {why}; give the folder of an interrupted run")
    try:
        plan = msgspec.convert(run["plan"], Plan)
    except (KeyError, msgspec.ValidationError) as error:
        raise store.StoreError(
            f"{folder} cannot be resumed: its plan is damaged or of another version ({error}); measure in a new folder"
        ) from error
    for target in plan.own_backends:
        backends.add(target)
    backend_names = [name.removesuffix(backends.REPLICA) for name in plan.backends]
    _check_names(folder, "backend", [*backend_names, *filter(None, [plan.reference])], backends.REGISTRY)
    origins = [spec.origin for spec in plan.workloads if spec.origin]
    _check_names(folder, "workload", origins, [*workloads.REGISTRY, MADE_UP])
    _check_names(folder, "workload", plan.training, [spec.name for spec in plan.workloads])
    return plan, run


def _check_names(folder: Path, kind: str, names: Iterable[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise store.StoreError(
                f"{folder} cannot be resumed: {unknown(kind, name, known)}; take the rnnbench that began it, or "
                "measure in a new folder"
            )


def execute(
    plan: Plan,
    folder: Path,
    command: str,
    display: Observer,
    *,
    resume: bool = False,
    run_id: str | None = None,
    given: Mapping[str, Workload] | None = None,
) -> Result:
    """Measure a plan into a new folder, or what is left of it. Raises StoreError, ValueError, WorkloadUnavailable.

    Ctrl-C and SIGTERM end the run in order: what was measured stays and the code is INTERRUPTED. `run_id` is that of a
    new run, None for any; `given` are its workloads by name, of which the user's own are kept in the folder. What is
    resumed under other conditions than it was begun is refused.
    """
    begun, ledger = time.monotonic(), Ledger()
    with held(folder, new=not resume):
        before = store.load_run(folder) if resume else store.Loaded([], [], {}, {}, [])
        run = described_run(plan, command, before.run, run_id)
        if not resume:
            store.write_json(folder / store.RUN, run)  # first of all: the mark of a run
            _keep_rows(folder, plan, given or {})
        machine = fingerprint(plan.env)
        _refuse_unlike(folder, before, machine)
        code = _measure(RunSession(plan, folder, run, machine, before, ledger, display, begun, given or {}))
        loaded = store.load_run(folder)
    return Result(folder, loaded, code or code_of(loaded))


def _keep_rows(folder: Path, plan: Plan, given: Mapping[str, Workload]) -> None:
    """The rows of the user's own workloads, so that the run can go on without their files."""
    for workload in {spec.kept: given[spec.name] for spec in plan.workloads if not spec.origin}.values():
        try:
            keep_rows(folder, workload)
        except OSError as error:
            raise store.StoreError(
                f"{folder} cannot be written: {error.strerror}; choose another folder with -o"
            ) from error


def _refuse_unlike(folder: Path, before: store.Loaded, machine: dict[str, Any]) -> None:
    """A run has one machine, one set of versions and one commit: what is resumed elsewhere would tell it of all."""
    if not before.answered:
        return
    told = [str(before.machine["machine_id"])] if "machine_id" in before.machine else []
    ids = list(dict.fromkeys([*(r.machine_id for r in (*before.records, *before.trainings)), *told]))
    unlike = []
    if before.machine and len(ids) == 1:
        unlike = unlike_machines(Side(before.records, before.machine), Side([], machine))
    if not unlike and ids != [machine["machine_id"]]:
        unlike = [f"machine id {' and '.join(ids)} / {machine['machine_id']}"]
    if unlike:
        raise store.StoreError(
            f"{folder} cannot be resumed, as the machine or the versions are others now: {first_few(unlike)}; "
            "measure the rest into another folder with -o"
        )


def _measure(session: RunSession) -> int:
    """Run a session to whatever end; the exit code so far. Raises what ends it before anything was measured."""
    folder, display, code = session.folder, session.display, OK
    resume = command_line("run", "--resume", folder)
    with ExitStack() as stack:
        journal, curves, trainings = (stack.enter_context(closing(store.Journal(folder, n))) for n in store.ANSWERS)
        if torn := [*journal.problems, *curves.problems, *trainings.problems]:
            session.before = store.load_run(folder)
        for problem in (*torn, *session.before.problems):
            display.say(problem)
        scratch: Path | None = None
        try:
            scratch = scratch_of(folder)
            with Neighbours(str(folder)) as neighbours:
                session.measure(neighbours, journal, curves, trainings, scratch)
            write_noise(session.plan, folder)
            clear_scratch(scratch, CACHE)
        except Exception as error:
            if not journal.path.stat().st_size and not trainings.path.stat().st_size:
                raise
            if (ended := told(error)) is None or ended.code not in (FOLDER, SYSTEM):
                display.say(f"stopped; what was measured is kept. Continue with: {resume}")
                raise
            display.say(f"stopped; what was measured is kept. {ended.text}. Continue with: {resume}")
            code = ended.code
        except KeyboardInterrupt:
            display.say(f"interrupted; what was measured is kept. Continue with: {resume}")
            code = INTERRUPTED
        finally:
            if scratch is not None:
                clear_scratch(scratch, ARRAYS)
    return code


def with_report(folder: Path, run: dict[str, Any], spent: Mapping[TimeKind, float]) -> dict[str, Any]:
    """What `run.json` holds, kept there with what the report took; as it was where it cannot be written."""
    kept = seconds_of(run)
    if not kept:
        return run
    whole = {str(kind): round(kept.get(kind, 0.0) + spent.get(kind, 0.0), 3) for kind in {**kept, **spent}}
    with suppress(store.StoreError):
        store.write_json(folder / store.RUN, {**run, "seconds": whole})
    return {**run, "seconds": whole}


def described_run(plan: Plan, command: str, before: dict[str, Any], run_id: str | None) -> dict[str, Any]:
    """What `run.json` says of a run that begins, or goes on with the one `before`."""
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


def code_of(loaded: store.Loaded) -> int:
    """The exit code that what a finished run has measured stands for."""
    timed = any(record.samples_ns for record in turns_in(loaded.records))
    if not (timed or loaded.curves or any(training.epochs for training in loaded.trainings)):
        return NOTHING
    harmless = (Status.OK, Status.UNSUPPORTED, Status.UNAVAILABLE, Status.SKIPPED)
    return OK if all(record.status in harmless for record in (*loaded.records, *loaded.trainings)) else FAULTS
