"""`run`, `sweep` and `verify` over a cluster: a plan's problems, each on a machine of each kind that is there."""

from __future__ import annotations

import secrets
import shlex
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distributed import Client

from rnnbench.api import run as running
from rnnbench.api.exit_codes import FAULT, FAULTS, FOLDER, INTERRUPTED, OK, of_several
from rnnbench.api.verify import Checked
from rnnbench.cluster.dispatch import WAIT, Dispatch, KindQueue, hosts_of
from rnnbench.cluster.folders import KindFolder, kinds_in, share_rows
from rnnbench.cluster.roster import RESOURCE, ClusterError, ClusterLost, Host, Roster
from rnnbench.cluster.rows import SentFile, imdb_file, kept_rows, sha256_of
from rnnbench.cluster.unit import Job
from rnnbench.data import ROWS
from rnnbench.files import temporary_folder
from rnnbench.harness.observer import Observer
from rnnbench.harness.plan import Plan
from rnnbench.harness.tasks import check_batches
from rnnbench.records import store
from rnnbench.records.folder import held
from rnnbench.records.record import CheckRecord
from rnnbench.workloads.base import Workload


@dataclass(frozen=True)
class ClusterResult:
    """How a run over a cluster ended: kind of machine -> what its folder holds, and the exit code of all."""

    folder: Path
    kinds: Mapping[str, running.Result]
    code: int


def execute_on_cluster(
    plan: Plan,
    folder: Path,
    command: str,
    display: Observer,
    client: Client,
    *,
    threads: int | None = None,
    resume: bool = False,
    run_id: str | None = None,
    given: Mapping[str, Workload] | None = None,
) -> ClusterResult:
    """Measure a plan on a machine of each kind of a cluster. Raises ClusterError, StoreError and ValueError.

    `threads`: of every backend, None as each machine's cores allow. The other arguments are those of `api.run.execute`.
    Ctrl-C ends it in order.
    """
    check_batches(plan)
    with ExitStack() as stack:
        stack.enter_context(held(folder, new=not resume))
        known = kinds_in(folder) if resume else {}
        if not resume:
            stack.push(lambda *ended: _take_back(folder) if ended[0] else None)
        described = store.read_json(folder / store.MACHINES)
        run_id = described.get("run_id") or run_id or store.new_run_id()
        roster, hashes = _roster(client, run_id, plan, folder, {} if resume else given or {}, display)
        kinds = _kinds(roster, known, threads, display)
        topic = _topic(run_id)
        ends = None if plan.budget is None else time.monotonic() + plan.budget
        folders, groups = dict[str, KindFolder](), dict[str, KindQueue]()
        for kind, hosts in kinds.items():
            place = known.get(kind) or folder / hosts[0].label
            if resume:
                own = replace(running.read_plan(place)[0], budget=plan.budget, case_budget=plan.case_budget)
            else:
                stack.enter_context(held(place, new=True))
                own = _plan_of(plan, hosts[0], threads)
            share_rows(folder, place)
            run = running.described_run(own, command, store.read_run(place), run_id)
            folders[kind] = KindFolder(place, own, run, hosts[0].machine)
            bare = replace(own, workloads=(), budget=None)
            job = Job(run_id, kind, topic, f"{RESOURCE}-{kind}", bare, {"machine_id": kind}, hashes)
            left = set(range(len(own.workloads))) - folders[kind].done
            groups[kind] = KindQueue(job, own.workloads, left, folders[kind])
        _describe(folder, described | {"run_id": run_id, "command": described.get("command", command)}, kinds, folders)
        display.say(_sizes(groups, kinds, folders))
        code = _dispatched(Dispatch(roster, topic, groups, display, ends=ends), folders, folder, display)
        loaded = {of.folder.name: running.Result(of.folder, store.load_run(of.folder), OK) for of in folders.values()}
    return ClusterResult(folder, loaded, code or _code_of(loaded, groups))


def _topic(run_id: str) -> str:
    """Where the messages of a run go: another one for each time that it is resumed."""
    return f"rnnbench-{run_id}-{secrets.token_hex(4)}"


def _describe(
    folder: Path, before: Mapping[str, Any], kinds: Mapping[str, Sequence[Host]], folders: Mapping[str, KindFolder]
) -> None:
    """Write `machines.json`: the folder of each kind of machine, with the names of its machines."""
    described = dict(before.get("kinds", {}))
    for kind, hosts in kinds.items():
        label = folders[kind].folder.name
        names = {*described.get(label, {}).get("machines", ()), *(host.name for host in hosts)}
        described[label] = {"machine_id": kind, "machines": sorted(names)}
    store.write_json(folder / store.MACHINES, {**before, "schema": 1, "kinds": described})


def _roster(
    client: Client, run_id: str, plan: Plan, folder: Path, given: Mapping[str, Workload], display: Observer
) -> tuple[Roster, dict[str, str]]:
    """The workers, with the files that their machines are to get; of the user's own rows name -> sha256."""
    rows = kept_rows(folder, plan, given)
    hashes = {name: sha256_of(path) for name, path in rows.items()}
    sent = {hashes[name]: SentFile(path) for name, path in rows.items()}
    if (imdb := imdb_file(plan, display.say)) is not None:
        sent[sha256_of(imdb)] = SentFile(imdb, lasting=True)
    return Roster(client, run_id, plan.env, sent, display.say), hashes


def _take_back(folder: Path) -> None:
    """Of a run that came to nothing: its mark, unless a kind of machine has something."""
    if not any(path.is_dir() and path.name != ROWS for path in folder.iterdir()):
        with suppress(OSError):
            (folder / store.MACHINES).unlink(missing_ok=True)


def _plan_of(plan: Plan, host: Host, threads: int | None) -> Plan:
    """The plan on the machines of a kind: with their cores, and the better of 1 and all where none is asked for."""
    return replace(plan, threads=threads or host.cores)


def _kinds(roster: Roster, known: Mapping[str, Path], threads: int | None, display: Observer) -> dict[str, list[Host]]:
    """The kinds of machines of the cluster; of a run that is resumed, those that it was begun on."""
    roster.compare_versions()
    _wait_for_hosts(roster, display)
    kinds = hosts_of(roster)
    if known:
        for kind, folder in known.items():
            if kind not in kinds:
                display.say(f"no machine like that of {folder.name} is there; it keeps what it has")
        kinds = {kind: hosts for kind, hosts in kinds.items() if kind in known}
        if not kinds:
            raise ClusterError(
                "no machine of the cluster is like those that the run was begun on; measure into another with -o"
            )
    for hosts in kinds.values():
        if threads is not None and threads > hosts[0].cores:
            raise ClusterError(
                f"threads = {threads} is more than the {hosts[0].cores} cores of {hosts[0].name}; choose 1 to "
                f"{min(h[0].cores for h in kinds.values())}"
            )
    return kinds


def _wait_for_hosts(roster: Roster, display: Observer) -> None:
    """Until a worker may measure. A cluster that grows by need gets something to grow for."""
    roster.look()
    if roster.hosts:
        return
    if roster.refused:
        raise ClusterError(
            f"none of the {len(roster.refused)} workers of the cluster may measure, for the reasons above; nothing was "
            "run"
        )
    display.say(f"the cluster has no worker yet; waiting for one up to {WAIT / 60:.0f} minutes")
    roster.want_workers()
    deadline = time.monotonic() + WAIT
    while not roster.hosts and not roster.refused and time.monotonic() < deadline:
        time.sleep(1)
        roster.look()
    if not roster.hosts:
        roster.has_problems()
        raise ClusterError("the cluster got no worker that may measure; nothing was run")
    time.sleep(1)  # for others that come with the first
    roster.look()


def _sizes(
    groups: Mapping[str, KindQueue], kinds: Mapping[str, Sequence[Host]], folders: Mapping[str, KindFolder]
) -> str:
    """What is measured where, in one line."""
    said = []
    for kind, group in groups.items():
        names = ", ".join(sorted({host.name for host in kinds[kind]}))
        count = f"{len(group.left)} problem{'s' * (len(group.left) != 1)}"
        said.append(f"{count} on {folders[kind].folder.name} ({names})")
    return f"measuring {'; '.join(said)}; Ctrl-C ends it and keeps what was measured"


def _dispatched(dispatch: Dispatch, folders: Mapping[str, KindFolder], folder: Path, display: Observer) -> int:
    """Run it to whatever end; the exit code so far."""
    code = OK
    try:
        dispatch.run()
    except KeyboardInterrupt:
        resume = f"python -m rnnbench run --resume {shlex.quote(str(folder))} --scheduler ADDRESS"
        display.say(f"interrupted; what was measured is kept. Continue with: {resume}")
        code = INTERRUPTED
    except ClusterLost as error:
        display.say(f"stopped: {error}; what was measured is kept: continue with --resume")
        code = FOLDER
    except store.StoreError as error:
        display.say(f"stopped; what was measured is kept. {error} and continue with --resume")
        code = FOLDER
    finally:
        for kind, kept in folders.items():
            group = dispatch.groups[kind]
            whole = not code and len(kept.done) == len(kept.plan.workloads)
            try:
                kept.close(whole)
            except store.StoreError as error:
                display.say(str(error))
                code = FOLDER
            if group.broken and not code:
                code = FOLDER
    return code


def _code_of(loaded: Mapping[str, running.Result], groups: Mapping[str, KindQueue]) -> int:
    """The exit code of a run that went to its end: the worst of the kinds, and a fault where a problem was given up."""
    codes = [running.code_of(of.loaded) for of in loaded.values()]
    if any(group.fault for group in groups.values()):
        codes.append(FAULT)
    if any(group.failed for group in groups.values()):
        codes.append(FAULTS)
    return of_several(codes)


@dataclass
class _Heard:
    """Keeps the checks of a kind of machine in memory."""

    lines: dict[int, dict[bytes, CheckRecord]] = field(default_factory=dict)
    whole: set[int] = field(default_factory=set)  # numbers of problems that are checked

    def keep(self, number: int, file: str, lines: Sequence[bytes]) -> int:
        own = self.lines.setdefault(number, {})
        before = len(own)
        for line in lines:
            record = store.decode_record(line)
            if isinstance(record, CheckRecord):
                own.setdefault(f"{record.case.key} {record.backend} {record.launch}".encode(), record)
        return len(own) - before

    def kept(self, number: int) -> Mapping[str, tuple[bytes, ...]]:
        return {}  # a check is short: it is done again

    def facts(self, message: Mapping[str, Any]) -> None:
        pass

    def finished(self, number: int) -> None:
        self.whole.add(number)


def verify_on_cluster(
    plan: Plan,
    client: Client,
    display: Observer,
    *,
    threads: int | None = None,
    given: Mapping[str, Workload] | None = None,
) -> dict[str, Checked]:
    """Check a plan's problems on a machine of each kind. Raises ClusterError and ValueError."""
    check_batches(plan)
    run_id = store.new_run_id()
    with temporary_folder("rnnbench-verify-") as folder:
        roster, hashes = _roster(client, run_id, plan, Path(folder), given or {}, display)
        groups, labels, topic = dict[str, KindQueue](), dict[str, str](), _topic(run_id)
        for kind, hosts in _kinds(roster, {}, threads, display).items():
            mine = _plan_of(plan, hosts[0], threads)
            job = Job(run_id, kind, topic, f"{RESOURCE}-{kind}", replace(mine, workloads=()), {"machine_id": kind},
                      hashes, only_checks=True)  # fmt: skip
            groups[kind] = KindQueue(job, mine.workloads, set(range(len(mine.workloads))), _Heard())
            labels[kind] = hosts[0].label
        Dispatch(roster, topic, groups, display).run()
    found = {}
    for kind, group in groups.items():
        heard = group.keeper
        assert isinstance(heard, _Heard)
        given_up = {
            spec.name: group.failed.get(number) or group.broken
            for number, spec in enumerate(group.specs)
            if number not in heard.whole
        }
        found[labels[kind]] = Checked([r for n in sorted(heard.lines) for r in heard.lines[n].values()], given_up)
    return found
