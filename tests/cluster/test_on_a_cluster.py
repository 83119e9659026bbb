"""Runs over real schedulers and workers, each a machine by its own name and cores: nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import pickle
import resource
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from distributed import Client, LocalCluster

import rnnbench as rb
from rnnbench.api.exit_codes import FAULT, FAULTS, FOLDER, INTERRUPTED, NOTHING, OK, of_several
from rnnbench.api.planning import plan_of
from rnnbench.api.verify import Checked
from rnnbench.cluster import dispatch, machine, unit
from rnnbench.cluster import run as on_cluster
from rnnbench.cluster.connect import connected
from rnnbench.cluster.folders import KindFolder
from rnnbench.cluster.known import Known
from rnnbench.cluster.machine import hold_host, stopped
from rnnbench.cluster.roster import ClusterError, ClusterLost, Roster
from rnnbench.cluster.run import execute_on_cluster
from rnnbench.cluster.unit import Job, WorkUnit
from rnnbench.harness.observer import Silent
from rnnbench.records import store
from rnnbench.records.record import ErrorOf, Mode, turns_in
from rnnbench.sizes import Sweep
from rnnbench.workloads.resolve import Asked, resolve
from tests.calling import called
from tests.cluster.processes import ROOT, Processes, until
from tests.report.fake import case, check, end_of_epoch, record, training

pytestmark = [pytest.mark.timeout(280), pytest.mark.filterwarnings("ignore::DeprecationWarning")]
THREE = ("forward", "gradient", "train_step")  # of which the checks come first, and then two turns each
QUICK = {"mode": Mode.QUICK, "seed": 0, "timeout": 100.0}


@dataclass
class Heard(Silent):
    """An observer that keeps what is said."""

    said: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.said.append(text)

    def has(self, text: str) -> bool:
        return any(text in line for line in self.said)


def planned(names=("parity",), T=4, passes=("forward",), mode=Mode.QUICK, **more):
    found = resolve(list(names), Asked(T=T), seed=0)
    plan = plan_of(found, ["numpy"], list(passes), ["float32"], **{**QUICK, "mode": mode, **more})
    return plan, {each.name: each for each in found}


def started(folder: Path, *names: str) -> Processes:
    processes = Processes(folder)
    processes.scheduler()
    for core, name in enumerate(names):
        processes.worker(name, cores=[core % 2])
    return processes


def slots(folder: Path) -> Counter:
    """How often each turn is in the records of a folder."""
    return Counter((r.case.key, r.backend, r.launch, r.round) for r in turns_in(store.load_run(folder).records))


def after(monkeypatch, lines: int, action) -> None:
    """Do something once, when so many lines of a run have arrived."""
    keep, seen = KindFolder.keep, []

    def counting(self, number, file, new):
        found = keep(self, number, file, new)
        seen.extend(new)
        if len(seen) >= lines and not monkeypatched:
            monkeypatched.append(True)
            action()
        return found

    monkeypatched: list[bool] = []
    monkeypatch.setattr(KindFolder, "keep", counting)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two machines of one kind."""
    with started(tmp_path_factory.mktemp("two"), "left", "right") as processes:
        yield processes, processes.client(2)


def test_machines_of_one_kind_share_the_problems(two, tmp_path):
    plan, given = planned(("parity", "running-parity"))
    heard = Heard()
    result = execute_on_cluster(plan, tmp_path / "run", "test", heard, two[1], given=given)
    assert result.code == OK
    ((label, of),) = result.kinds.items()
    assert heard.has(f"measuring 2 problems on {label} (left, right)")
    assert label in {path.name for path in (tmp_path / "run").iterdir()}
    assert slots(of.folder) == dict.fromkeys(slots(of.folder), 1)
    assert {key[0] for key in slots(of.folder)} == {"parity T4 forward float32", "running-parity T4 forward float32"}
    machines = of.loaded.run["machines"]
    assert sorted(name for names in machines.values() for name in names) == ["parity T4", "running-parity T4"]
    assert machines.keys() <= {"left", "right"}
    assert {r.machine_id for r in of.loaded.records} == {of.loaded.machine["machine_id"]}
    assert of.loaded.machine["cpu"]["allowed"] == 1
    assert "MALLOC_TRIM_THRESHOLD_" not in of.loaded.machine["environment"]
    left_over = [p for n in ("left", "right") for p in (two[0].folder / f"local-{n}").rglob("rnnbench-*")]
    assert left_over == []


def test_rows_of_ones_own_travel_once_a_machine(two, tmp_path):
    rows = np.random.default_rng(0).standard_normal((64, 3, 2)).astype(np.float32)
    mine = rb.Workload("mine", rb.Model(E=2, H=4, O=1), rb.Data(rows, np.zeros(64, np.float32)), B=8)
    done = rb.run([mine, mine.resized(H=5)], ["numpy"], passes=["forward"], mode="quick", training=False,
                  output=tmp_path / "run", progress=False, client=two[1])  # fmt: skip
    assert list(done.fastest["case"]) == ["mine forward float32", "mine H5 forward float32"]
    sent = [(two[0].folder / f"{name}.log").read_text().count("'receive'") for name in ("left", "right")]
    assert sent == [1, 1]
    (run,) = done.runs.values()
    assert set(run.times["status"]) == {"ok"}
    again = rb.load(tmp_path / "run")
    assert list(again.machines["machines"]) == ["left, right"]
    assert "report.html of each kind of machine" in called("report", tmp_path / "run", code=0).output
    assert "only numpy was measured" in (tmp_path / "run" / "machines.md").read_text()
    assert (run.folder / "report.html").is_file()


def test_verify_and_threads(two, tmp_path):
    asked = ("-w", "parity", "-b", "numpy", "--pass", "gradient", "--json")
    result = called("verify", "--scheduler", two[0].address, *asked, code=0)
    found = json.loads(result.stdout)
    assert [line["status"] for line in found] == ["ok", "ok"]  # of two types
    assert all(line["machine"].endswith(found[0]["machine"][-4:]) for line in found)
    result = called("run", "--scheduler", two[0].address, "-w", "parity", "-b", "numpy", "--threads", 64, "-o",
                    tmp_path / "none", code=2)  # fmt: skip
    assert "threads = 64 is more than the 1 cores of" in result.output
    assert not (tmp_path / "none").exists()


def test_a_sweep_from_python_whose_problems_share_processes(two, tmp_path, monkeypatch):
    tasks = []
    submit = Client.map

    def submitted(self, function, pickled, **rest):
        tasks.extend(len(pickle.loads(task)) for task in pickled)
        return submit(self, function, pickled, **rest)

    monkeypatch.setattr(Client, "map", submitted)
    monkeypatch.setattr(dispatch, "FEW", 1)
    done = rb.sweep(H=[4, 5, 6, 7], B=2, T=3, backends=["numpy"], passes=["forward"], mode="quick", threads=1,
                    output=tmp_path / "run", progress=False, client=two[1])  # fmt: skip
    assert tasks == [2, 2]
    (run,) = done.runs.values()
    assert sorted(run.times["workload"]) == [f"made-up E{H} H{H} B2 T3" for H in (4, 5, 6, 7)]
    assert set(run.times["status"]) == {"ok"}
    assert slots(run.folder) == dict.fromkeys(slots(run.folder), 1)
    assert done.report().with_suffix(".html").is_file()


def test_what_may_share_processes():
    shared = planned(sweep=Sweep(H=(4, 5)))[0]
    assert unit.shares_processes(shared)
    for more in ({"memory": True}, {"training": ("parity T4",)}, {"until_accuracy": 0.8}):
        assert not unit.shares_processes(replace(shared, **more))
    assert not unit.shares_processes(planned(mode=Mode.DEFAULT)[0])  # its launches are in new ones


def test_processes_end_with_the_problem_that_fails(tmp_path, monkeypatch):
    """The next one begins with new ones, on a host that is still held."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    plan, _ = planned(sweep=Sweep(H=(4, 5)))
    job = Job("r", "k", "fails", "rnnbench-k", plan, {"machine_id": "k"})
    to = SimpleNamespace(say=print, worker=SimpleNamespace(local_directory=str(tmp_path / "local")))
    pools = []

    def fail(job, problem, to, pool) -> None:
        pool.worker("numpy")
        pools.append((pool, pool.processes))
        if len(pools) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(unit, "_time", fail)
    with unit.Measuring() as measuring:
        with pytest.raises(OSError, match="No space"):
            measuring.measure(job, WorkUnit(0, plan.workloads[0]), to)
        for number in (1, 2):
            measuring.measure(job, WorkUnit(number, plan.workloads[0]), to)
        (first, _), (second, one), (third, other) = pools
        assert first.processes == []
        assert second is third is not first
        assert one == other == second.processes
    assert second.processes == []


def test_a_fault_of_ours_is_told_as_one_and_the_next_problem_is_measured():
    said = []
    to = SimpleNamespace(post=lambda op, **rest: said.append({"op": op, **rest}), lines=0,
                         worker=SimpleNamespace(address="tcp://10.0.0.1:1"))  # fmt: skip
    job = SimpleNamespace(topic="faults")
    for work in (lambda *_: planned(mode=Mode.QUICK, threads=-1), lambda *_: np.zeros(3).reshape(2), lambda *_: {}[1]):
        assert unit._answered(None, job, to, work)
    assert [message["op"] for message in said] == ["failed"] * 3
    assert [message.get("fault", False) for message in said] == [False, True, True]
    assert said[0]["text"] == "threads = -1; it must be at least 1"
    assert said[1]["text"].startswith("this is a fault of rnnbench, ValueError: cannot reshape")
    assert said[1]["text"].endswith("; the log of the worker at tcp://10.0.0.1:1 shows where")
    group = SimpleNamespace(fault=True, failed={0: "x"})
    assert on_cluster._code_of({}, {"k": group}) == FAULT


def test_a_verification_that_loses_its_cluster_is_no_wrong_option(two, monkeypatch):
    def lose(self) -> None:
        raise ClusterLost("the scheduler at tcp://10.0.0.1:1 did not come back")

    monkeypatch.setattr(dispatch.Dispatch, "run", lose)
    before = signal.getsignal(signal.SIGTERM)
    asked = ("--scheduler", two[0].address, "-w", "parity", "-b", "numpy")
    output = called("verify", *asked, code=FOLDER).output
    assert "Error: the scheduler at tcp://10.0.0.1:1 did not come back" in output
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_run_that_is_stopped_goes_on(two, tmp_path, monkeypatch):
    plan, given = planned(passes=THREE)

    def stop() -> None:
        raise KeyboardInterrupt

    after(monkeypatch, 5, stop)
    folder = tmp_path / "run"
    first = execute_on_cluster(plan, folder, "test", Silent(), two[1], given=given)
    assert first.code == INTERRUPTED
    (of,) = first.kinds.values()
    assert 0 < len(slots(of.folder)) < 6
    assert "give --scheduler or --local-cluster, too" in called("run", "--resume", folder, code=4).output
    second = rb.run(resume=folder, progress=False, client=two[1])
    (run,) = second.runs.values()
    assert slots(of.folder) == dict.fromkeys(slots(of.folder), 1)
    assert len(slots(of.folder)) == 6
    assert store.read_run(run.folder)["finished"]


def test_a_worker_that_dies_costs_nothing(tmp_path, monkeypatch):
    plan, given = planned(passes=THREE)
    with started(tmp_path, "left") as processes:
        client = processes.client(1)

        def kill() -> None:
            processes.kill("left")
            processes.worker("other", cores=[1])

        heard = Heard()
        after(monkeypatch, 5, kill)
        result = execute_on_cluster(plan, tmp_path / "run", "test", heard, client, given=given)
    (of,) = result.kinds.values()
    assert result.code == OK, heard.said
    assert heard.has("on left is gone; what it measured is kept")
    assert slots(of.folder) == dict.fromkeys(slots(of.folder), 1)
    assert len(slots(of.folder)) == 6
    assert {r.part for r in of.loaded.records} == {0, 1}
    assert of.loaded.run["machines"].keys() == {"other"}


def test_a_scheduler_that_goes_and_comes_back(tmp_path, monkeypatch):
    monkeypatch.setattr(dispatch, "WAIT", 120.0)
    plan, given = planned(passes=THREE)
    with started(tmp_path, "left") as processes:
        client = processes.client(1)

        def restart() -> None:
            processes.kill("scheduler")
            processes.kill("left")
            processes.scheduler()
            processes.worker("left")

        heard = Heard()
        after(monkeypatch, 5, restart)
        result = execute_on_cluster(plan, tmp_path / "run", "test", heard, client, given=given)
    (of,) = result.kinds.values()
    assert result.code == OK, heard.said
    assert heard.has("0 of 1 problems are measured and kept; waiting for it")
    assert heard.has("the scheduler is back")
    assert slots(of.folder) == dict.fromkeys(slots(of.folder), 1)
    assert len(slots(of.folder)) == 6


def test_who_may_not_measure_is_told_before_anything_runs(tmp_path):
    """No resource, too much of it, another rnnbench, a full disk: one after the other, and one that can."""
    plan, given = planned(("parity", "running-parity"))
    other = tmp_path / "other" / "rnnbench"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text('__version__ = "0.0.9"\n')
    with started(tmp_path) as processes:
        processes.worker("bare", resources="")
        processes.worker("greedy", resources="rnnbench=3")
        processes.worker("older", env={"PYTHONPATH": f"{other.parent}:{ROOT}"})
        client = processes.client(3)
        heard = Heard()
        with pytest.raises(ClusterError, match="none of the 3 workers of the cluster may measure"):
            execute_on_cluster(plan, tmp_path / "run", "test", heard, client, given=given)
        assert not (tmp_path / "run").exists()
        assert heard.has("it has no resource rnnbench; start it with: dask worker tcp://127.0.0.1:")
        assert heard.has("it has rnnbench=3, and on one machine measurements never overlap")
        assert heard.has("it has rnnbench 0.0.9, here it is 0.1.0")
        for name in ("bare", "greedy", "older"):
            processes.kill(name)
        until(lambda: not client.scheduler_info()["workers"])

        def small() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

        processes.worker("full", before=small, quiet=True)
        client.wait_for_workers(1, timeout=60)
        heard = Heard()
        result = execute_on_cluster(plan, tmp_path / "run", "test", heard, client, given=given)
        assert result.code == FOLDER
        assert heard.has("full measures no more for this run: ")
        assert heard.has("File too large")
        assert heard.has("2 problems are left over; continue with --resume")
        processes.worker("roomy")
        client.wait_for_workers(2, timeout=60)
        processes.kill("full")
        done = rb.run(resume=tmp_path / "run", progress=False, client=client)
        (run,) = done.runs.values()
        assert slots(run.folder) == dict.fromkeys(slots(run.folder), 1)
        assert len(slots(run.folder)) == 4


def test_two_kinds_of_machines_and_two_workers_of_one_host(tmp_path):
    plan, given = planned()
    with started(tmp_path, "narrow") as processes:
        processes.worker("wide", cores=[0, 1])
        client = processes.client(2)
        result = execute_on_cluster(plan, tmp_path / "run", "test", Heard(), client, given=given)
        for name, place in (("a", "one"), ("b", "one"), ("blind", "another")):
            processes.worker(name, machine=None, env={"XDG_RUNTIME_DIR": str(tmp_path / place)}, cores=[0, 1])
        for name in ("narrow", "wide"):
            processes.kill(name)
        until(lambda: len(client.scheduler_info()["workers"]) == 3)
        heard = Heard()
        roster = Roster(client, "x", {}, {}, heard.say)
        roster.look()
    assert len(roster.hosts) in (1, 2)  # whichever of the three was first
    assert heard.has("cannot see its lock, so both would measure at once")
    assert result.code == OK
    assert {label.split("-core")[0][-1] for label in result.kinds} == {"1", "2"}
    assert all(len(slots(of.folder)) == 2 for of in result.kinds.values())
    found = rb.load(tmp_path / "run")
    assert sorted(found.machines["cores"]) == [1, 2]
    assert sorted(found.machines["machines"]) == ["narrow", "wide"]
    assert sorted(found.fastest["kind"]) == sorted(result.kinds)


def test_a_cluster_that_grows_by_need():
    given = {"n_workers": 0, "threads_per_worker": 1, "resources": {"rnnbench": 1}, "dashboard_address": ":0"}
    with LocalCluster(**given, silence_logs="CRITICAL") as cluster:
        cluster.adapt(minimum=0, maximum=1, interval="200ms")
        with Client(cluster, set_as_default=False) as client:
            heard = Heard()
            found = rb.verify(
                "parity", ["numpy"], passes=["forward"], dtypes=["float32"], progress=heard, client=client
            )
    assert heard.has("the cluster has no worker yet; waiting for one")
    assert [checked.code for checked in found.values()] == [OK]


def test_a_host_measures_one_thing_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    said, order = [], []

    def second() -> None:
        with hold_host("x", said.append):
            order.append("second")

    with hold_host("x", said.append):
        other = threading.Thread(target=second)
        other.start()
        until(lambda: said)
        order.append("first")
    other.join()
    assert order == ["first", "second"]
    assert said == ["another worker measures on this host; waiting for it"]
    stopped.add("given up")
    with hold_host("x", said.append), pytest.raises(KeyboardInterrupt), hold_host("given up", said.append):
        pass


def test_a_line_is_kept_once_and_a_turn_too():
    known, lines = Known(), [store.encode(record(case(), "numpy", [1e-3])) for _ in range(2)]
    assert known.add(store.RECORDS, lines[0]) is not None
    assert known.add(store.RECORDS, lines[0].strip()) is None
    other = store.encode(record(case(), "numpy", [2e-3]))
    assert known.add(store.RECORDS, other) is None  # the same turn, measured by another
    assert known.add(store.RECORDS, store.encode(record(case(), "numba", [2e-3]))) is not None


def test_no_scheduler_and_no_dask_are_one_sentence(tmp_path, monkeypatch):
    from rnnbench import cluster
    from rnnbench.cluster import connect

    monkeypatch.setattr(connect, "CONNECT", 1.0)
    output = called("run", "--scheduler", "tcp://127.0.0.1:9", "-b", "numpy", "-o", tmp_path / "x", code=2).output
    assert "no scheduler answers at tcp://127.0.0.1:9 within 1 s" in output
    assert "'x' is no address of a scheduler" in called("run", "--scheduler", "x", "-b", "numpy", code=2).output
    assert "two clusters; give one" in called("run", "--scheduler", "x", "--local-cluster", 1, code=2).output
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    assert "pip install 'rnnbench[dask]'" in called("sweep", "--local-cluster", 1, code=2).output


def test_an_asynchronous_client_is_refused():
    class Asynchronous:
        asynchronous = True

    with pytest.raises(ClusterError, match="asynchronous"), connected(client=Asynchronous()):
        pass


def test_a_budget_is_sent_as_what_is_left_of_it(monkeypatch):
    """A worker's clock may be hours ahead."""

    class Able:
        async def set_resources(self, **given) -> None:
            self.has = given

    monkeypatch.setattr(time, "time", lambda: 1e12)
    plan, _ = planned()
    job = Job("r", "k", "budgeted", "rnnbench-k", plan, {"machine_id": "k"})
    problem = WorkUnit(0, plan.workloads[0])
    assert unit._plan_of(job, problem).budget is None
    worker = Able()
    asyncio.run(machine.offer("rnnbench-k", 1, "budgeted", 50.0, worker))
    assert worker.has == {"rnnbench-k": 1}
    assert 0 < unit._plan_of(job, problem).budget <= 50
    asyncio.run(machine.offer("rnnbench-k", 1, "budgeted", -1.0, worker))
    assert unit._plan_of(job, problem).budget == 1e-3


def test_a_damaged_line_of_a_machines_journal_costs_itself_alone(tmp_path):
    lines = [store.encode(record(case(), "numpy", [1e-3])), b'{"case": 3}\n', b"\x00\n"]
    (tmp_path / store.RECORDS).write_bytes(b"".join(lines))
    for other in (store.CURVES, store.TRAININGS):
        (tmp_path / other).touch()
    sent = []
    to = SimpleNamespace(post_lines=lambda file, new: sent.append((file, new)))
    found = unit._before(WorkUnit(0, planned()[0].workloads[0]), tmp_path, to)
    assert len(found.records) == 1
    assert sent == [(store.RECORDS, [lines[0].strip()])]


def test_a_training_is_kept_once():
    known = Known()
    trained = [training(case(), "numpy", seed, [end_of_epoch(at, 0.9)]) for seed, at in ((0, 1.0), (0, 2.0), (1, 1.0))]
    found = [known.add(store.TRAININGS, store.encode(each)) for each in trained]
    assert [item is None for item in found] == [False, True, False]


@pytest.mark.parametrize(("sent", "said"), [(b"other", "another sha256"), (None, "No space left on device")])
def test_rows_that_do_not_arrive_leave_nothing_behind(tmp_path, monkeypatch, sent, said):
    """A half of them would fill the disk further, and a run after it would go on from there."""
    monkeypatch.setattr(machine, "_lasting", lambda: tmp_path)
    if sent is None:

        def full(*arguments) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Path, "rename", full)
    sha256 = hashlib.sha256(b"rows").hexdigest()
    why = asyncio.run(machine.receive("r", sha256, "imdb.npz", 0, sent or b"rows", True, None))
    assert said in why
    assert list(tmp_path.iterdir()) == []


def test_a_problem_that_no_machine_finished_is_no_success(monkeypatch):
    """Of a verification whose other problems agree."""
    host = SimpleNamespace(cores=1, label="some-machine", kind="k")

    class Dies(dispatch.Dispatch):
        def __init__(self, roster, topic, groups, observer) -> None:
            self.groups = groups

        def run(self) -> None:
            (group,) = self.groups.values()
            group.keeper.keep(
                0, store.RECORDS, [store.encode(check(case(), "numpy", errors={"loss": ErrorOf(0.0, 1.0)}))]
            )
            group.keeper.finished(0)
            group.failed[1] = "5 workers died over it"

    monkeypatch.setattr(on_cluster, "_kinds", lambda *arguments: {"k": [host]})
    monkeypatch.setattr(on_cluster, "Dispatch", Dies)
    plan, _ = planned(("parity", "running-parity"))
    (checked,) = on_cluster.verify_on_cluster(plan, None, Silent()).values()
    assert Checked(checked.records).code == OK
    assert checked.code == FAULTS
    assert repr(checked).endswith("running-parity T4: given up: 5 workers died over it")


def test_the_code_of_several_hides_no_fault():
    assert [of_several(codes) for codes in ([0, 3], [1, 3], [3, 3], [0, 1, 4])] == [OK, FAULTS, NOTHING, FOLDER]
