"""What others take from a turn: a real worker with a busy loop on its core, and systems that do not tell."""

from __future__ import annotations

import subprocess
import sys
from collections import namedtuple
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest

from rnnbench.backends.numpy import NumpyBackend
from rnnbench.harness import operations
from rnnbench.harness.arrays import save_problem
from rnnbench.harness.clock import Turn
from rnnbench.harness.plan import EFFORTS, Effort
from rnnbench.machine import contention
from rnnbench.machine.cgroup import Throttled, throttled, throttling_files
from rnnbench.machine.contention import TICK_NS, Counters, RunDelay, contention_between
from rnnbench.machine.cores import cores_for
from rnnbench.machine.interference import CpuTimes
from rnnbench.model import Pass
from rnnbench.records.record import Contention, Mode, Status, turns_in
from tests.harness.test_run_loop import plan_of, run, task_of
from tests.helpers import random_data, random_params, small_problem
from tests.machine.test_fingerprint import GROUP, tree

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere run delay is not counted")
BUSY = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); print(flush=True)\nwhile True: pass"
TOLD = ("run_delay_ns", "involuntary_switches", "others_share", "stolen_share")


@LINUX
def test_a_busy_loop_on_the_core_of_a_worker_is_seen(tmp_path, monkeypatch, faulty_backends):
    """It takes half of the core, from every thread that would run there; others may take more of it."""
    monkeypatch.setitem(EFFORTS, Mode.QUICK, Effort(launches=1, rounds=2, turn=Turn(0.4, 2, 100_000)))
    (core,) = cores_for(1)
    with subprocess.Popen([sys.executable, "-c", BUSY, str(core)], stdout=subprocess.PIPE) as busy:
        try:
            busy.stdout.readline()
            records, _, _ = run(tmp_path, plan_of("numpy"), [task_of(passes=(Pass.FORWARD,))])
        finally:
            busy.kill()
    assert {r.status for r in records} == {Status.OK}
    turns = [r.contention for r in turns_in(records)]
    assert len(turns) == 2
    for c in turns:
        assert c.seconds >= 0.4
        assert c.run_delay_ns > 0.25e9 * c.seconds
        assert c.involuntary_switches >= 5
        assert c.others_share > 0.25
        assert len(c.probe_ns) == 2


def test_counters_stand_between_the_probe_and_the_calls(tmp_path, monkeypatch):
    problem, seen = small_problem(), []
    save_problem(tmp_path / "p.npz", random_params(problem), random_data(problem, rows=4 * problem.B))
    asked = operations.Operations(NumpyBackend(), 0)
    asked.prepare(vars(problem), str(tmp_path / "p.npz"))

    def noted(place, name):
        known = getattr(place, name)

        def call(*args, **named):
            seen.append(name)
            return known(*args, **named)

        monkeypatch.setattr(place, name, call)

    for name in ("probe_ns", "read_counters"):
        noted(contention, name)
    noted(operations, "begin_turn")
    noted(operations, "time_turn")
    reply = asked.turn("forward", {"seconds": 0.0, "min_calls": 2, "max_calls": 2}, None, 0)
    assert seen == ["begin_turn", "probe_ns", "read_counters", "time_turn", "read_counters", "probe_ns"]
    assert reply["contention"]["seconds"] >= sum(reply["samples_ns"]) / 1e9
    asked.close()


V2, V1 = "nr_periods 50\nnr_throttled {}\nthrottled_usec {}\n", "nr_periods 50\nnr_throttled {}\nthrottled_time {}\n"


@pytest.mark.parametrize(
    ("files", "counted"),
    [
        ({"proc/self/cgroup": "0::/a/b", f"{GROUP}/cgroup.controllers": "cpu", f"{GROUP}/cpu.stat": "usage_usec 7",
          f"{GROUP}/a/cpu.stat": "usage_usec 9\n" + V2.format(3, 70), f"{GROUP}/a/b/cpu.stat": V2.format(1, 5)},
         Throttled(4, 75_000)),
        ({"proc/self/cgroup": "0::/", f"{GROUP}/cgroup.controllers": "cpu", f"{GROUP}/cpu.stat": V2.format(2, 8)},
         Throttled(2, 8_000)),
        ({"proc/self/cgroup": "2:cpu,cpuacct:/x\n0::/", f"{GROUP}/cpu/cpu.stat": V1.format(0, 0),
          f"{GROUP}/cpu/x/cpu.stat": V1.format(6, 90)}, Throttled(6, 90)),
        ({"proc/self/cgroup": "0::/", f"{GROUP}/cgroup.controllers": "cpu", f"{GROUP}/cpu.stat": "usage_usec 7"}, None),
        ({"proc/self/cgroup": "0::/", f"{GROUP}/cgroup.controllers": "cpu", f"{GROUP}/cpu.stat": V2.format("?", 1)},
         None),
        ({}, None),
    ],
    ids=["version 2, nested", "version 2, seen from a container", "version 1", "no quota", "another form", "no groups"],
)  # fmt: skip
def test_how_long_control_groups_were_held_back(tmp_path, files, counted):
    assert throttled(throttling_files(tree(tmp_path, **files))) == counted


def test_a_group_that_is_held_back_within_a_turn_is_seen(tmp_path, monkeypatch):
    asked = {"proc/self/cgroup": "0::/", f"{GROUP}/cgroup.controllers": "cpu", f"{GROUP}/cpu.stat": V2.format(2, 8)}
    files = throttling_files(tree(tmp_path, **asked))
    monkeypatch.setattr(contention, "_throttling_files", lambda: files)
    with contention.ContentionWatch() as watch:
        files[0].write_text(V2.format(5, 90_008))
    found = watch.contention
    assert (found.throttled_periods, found.throttled_ns) == (3, 90_000_000)
    assert contention.disturbed_by(found, 2) == pytest.approx(0.09 / found.seconds)
    with contention.ContentionWatch() as watch:
        files[0].unlink()
    assert (watch.contention.throttled_periods, watch.contention.throttled_ns) == (None, None)
    assert contention.disturbed_by(replace(watch.contention, stolen_share=None, others_share=None), 2) == 0


def at(ms, delays=None, switches=None, **cpu):
    times = CpuTimes(**{"at": 0.0, "busy": 0.0, "stolen": 0.0, "total": 0.0, "own": 0.0} | cpu) if cpu else None
    return Counters(ms * 1_000_000, delays, switches, times)


def test_what_is_counted_between_two_moments():
    first = at(
        0, {"1": RunDelay(5, 100, 7), "2": RunDelay(5, 70, 2), "3": RunDelay(5, 9, 9)}, 4, busy=10, total=20, own=3
    )
    last = at(
        500, {"1": RunDelay(9, 140, 9), "2": RunDelay(9, 70, 2), "4": RunDelay(9, 8, 3)}, 11,
        busy=10.75, stolen=0.1, total=21, own=3.5,
    )  # fmt: skip
    assert contention_between(first, last, (30, 31)) == Contention(
        seconds=0.5,
        run_delay_ns=48,
        involuntary_switches=7,
        others_share=0.25,
        stolen_share=0.1,
        probe_ns=(30, 31),
        starts=5,
    )


def test_nothing_is_below_zero_and_ticks_say_nothing_of_a_short_turn():
    """A number of a thread can be given anew, and a guest that moved has other counters."""
    first = at(0, {"1": RunDelay(5, 100)}, None, busy=10, stolen=5, total=20, own=3)
    found = contention_between(first, at(500, {"1": RunDelay(9, 40)}, 3, busy=10, stolen=1, total=21, own=4), ())
    assert (found.run_delay_ns, found.involuntary_switches) == (0, 3)
    assert (found.others_share, found.stolen_share) == (0.0, 0.0)
    last = at(0, {"1": RunDelay(9, 150)}, 3, busy=11, total=21, own=3)
    short = contention_between(first, replace(last, at_ns=5 * TICK_NS - 1), ())
    assert (short.run_delay_ns, short.others_share, short.stolen_share) == (50, None, None)
    assert contention_between(first, replace(last, at_ns=5 * TICK_NS), ()).others_share == 1.0


def _no_tasks(monkeypatch, tmp_path):
    monkeypatch.setattr(contention, "TASKS", str(tmp_path / "nowhere"))


def _no_schedstat(monkeypatch, tmp_path):
    (tmp_path / "7").mkdir()
    monkeypatch.setattr(contention, "TASKS", str(tmp_path))


def _schedstat_of(text):
    def write(monkeypatch, tmp_path):
        _no_schedstat(monkeypatch, tmp_path)
        (tmp_path / "7" / "schedstat").write_text(text)

    return write


def _no_permission(monkeypatch, tmp_path):
    _no_schedstat(monkeypatch, tmp_path)
    (tmp_path / "7" / "schedstat").mkdir()  # root may read whatever file there is


def _no_switches(monkeypatch, tmp_path):
    nothing = SimpleNamespace(ru_nivcsw=0, ru_utime=0, ru_stime=0)
    monkeypatch.setattr(contention.resource, "getrusage", lambda who: nothing)


def _no_stat(error):
    def taken(monkeypatch, tmp_path):
        def fail(percpu):
            raise error

        monkeypatch.setattr(psutil, "cpu_times", fail)

    return taken


def _no_steal(monkeypatch, tmp_path):
    """As of macOS: four kinds of time."""
    known, form = psutil.cpu_times, namedtuple("scputimes", ("user", "nice", "system", "idle"))
    fewer = lambda percpu: [form(c.user, c.nice, c.system, c.idle) for c in known(percpu=percpu)]  # noqa: E731
    monkeypatch.setattr(psutil, "cpu_times", fewer)


TAKEN_AWAY = {
    "no tasks": (_no_tasks, {"run_delay_ns"}),
    "no schedstat": (_no_schedstat, {"run_delay_ns"}),
    "a kernel that counts no delay": (_schedstat_of("0 0 0\n"), {"run_delay_ns"}),
    "another form": (_schedstat_of("cpu 1\n"), {"run_delay_ns"}),
    "no permission": (_no_permission, {"run_delay_ns"}),
    "no switches": (_no_switches, {"involuntary_switches"}),
    "no /proc/stat": (_no_stat(FileNotFoundError("/proc/stat")), {"others_share", "stolen_share"}),
    "a forbidden /proc/stat": (_no_stat(PermissionError("/proc/stat")), {"others_share", "stolen_share"}),
    "no stolen time": (_no_steal, {"stolen_share"}),
}


def _watched() -> Contention:
    """Of 60 ms of work."""
    with contention.ContentionWatch() as watch:
        deadline = contention.time.monotonic() + 0.06
        while contention.time.monotonic() < deadline:
            pass
    return watch.contention


def unknown(c: Contention) -> set[str]:
    return {name for name in TOLD if getattr(c, name) is None}


@LINUX
@pytest.mark.parametrize(("take", "lost"), TAKEN_AWAY.values(), ids=TAKEN_AWAY)
def test_what_the_system_does_not_tell_is_unknown_and_no_error(tmp_path, monkeypatch, take, lost):
    if take is not _no_switches:  # a quiet machine may never have taken a core away
        monkeypatch.setattr(contention, "involuntary_switches", lambda: 5)
    take(monkeypatch, tmp_path)
    found = _watched()
    assert unknown(found) == lost
    assert found.seconds >= 0.06
    assert min(found.probe_ns) > 0


def test_where_nothing_is_told_the_probe_is_left(tmp_path, monkeypatch):
    _no_tasks(monkeypatch, tmp_path)
    _no_switches(monkeypatch, tmp_path)
    _no_stat(RuntimeError())(monkeypatch, tmp_path)
    found = _watched()
    assert unknown(found) == set(TOLD)
    assert len(found.probe_ns) == 2
    assert min(found.probe_ns) > 0


def test_the_probe_is_the_least_of_its_tries(monkeypatch):
    times = iter([0, 900, 1000, 1300, 2000, 2500])
    monkeypatch.setattr(contention.time, "perf_counter_ns", lambda: next(times))
    assert contention.probe_ns() == 300
