"""No room on the disk, wherever it is first met: the run ends in order, keeps what it has, and goes on when asked."""

from __future__ import annotations

import errno
import io
import os
import time
from pathlib import Path

import pytest
from rich.console import Console

from rnnbench.api import run as running
from rnnbench.api import run_session
from rnnbench.api.exit_codes import SYSTEM
from rnnbench.cli.progress import Display
from rnnbench.harness import arrays, worker_pool
from rnnbench.harness.clock import Turn
from rnnbench.harness.plan import EFFORTS, Effort, Plan
from rnnbench.model import DType, Pass
from rnnbench.records import store
from rnnbench.records.account import TimeKind, overhead, seconds_of
from rnnbench.records.record import Mode, turns_in
from tests.helpers import specs

LAUNCHES = 1


def no_room(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def from_call(number, function):
    """The function, and from its n-th call on a full disk."""
    calls = 0

    def call(*arguments, **options):
        nonlocal calls
        calls += 1
        return no_room() if calls >= number else function(*arguments, **options)

    return call


def full_arrays(patch, folder):
    patch.setattr(arrays, "_save", from_call(2, arrays._save))


def full_log(patch, folder):
    patch.setattr(worker_pool, "WorkerClient", from_call(2, worker_pool.WorkerClient))


def full_machine(patch, folder):
    replace, seen = os.replace, []

    def call(source, target):
        seen.append(target)
        if Path(target).name == store.MACHINE and [Path(p).name for p in seen].count(store.MACHINE) == 2:
            no_room()
        replace(source, target)

    patch.setattr(os, "replace", call)


def full_journal(patch, folder):
    patch.setattr(store, "encode", from_call(7, store.encode))


def full_worker(patch, folder):
    (folder / "full").touch()


PLACES = {"arrays": full_arrays, "log": full_log, "machine.json": full_machine, "journal": full_journal,
          "worker": full_worker}  # fmt: skip


@pytest.fixture
def plan(monkeypatch, tmp_path, faulty_backends):
    monkeypatch.setenv("RNNBENCH_TEST_FULL", str(tmp_path / "full"))
    monkeypatch.setitem(EFFORTS, Mode.QUICK, Effort(launches=LAUNCHES, rounds=1, turn=Turn(0.001, 1, 2)))
    monkeypatch.setattr(run_session.RunSession, "look_for_peak", lambda self: None)
    monkeypatch.setattr(running, "fingerprint", lambda env: {"machine_id": "m"})
    passes = (Pass.FORWARD, Pass.GRADIENT)
    return Plan(specs("parity"), ("numpy", "full-disk"), passes, tuple(DType), Mode.QUICK, 1, 0, 60.0)


def execute(plan, folder, *, resume=False):
    said = io.StringIO()
    with Display(Console(file=said, width=1000)) as display:
        return running.execute(plan, folder, "run", display, resume=resume), said.getvalue()


def turns(folder):
    return [(r.case, r.backend, r.launch, r.round) for r in turns_in(store.load_run(folder).records) if r.samples_ns]


@pytest.mark.parametrize("place", PLACES)
def test_the_run_ends_in_order_and_is_resumed(tmp_path, plan, place):
    folder, start = tmp_path / "run", time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        PLACES[place](patch, tmp_path)
        result, said = execute(plan, folder)
    assert result.code == running.FOLDER
    assert "stopped; what was measured is kept" in said
    assert "No space left on device; make room" in said
    assert result.loaded.records
    assert result.loaded.problems == []
    assert {r.status for r in result.loaded.records} == {"ok"}
    before = turns(folder)
    (tmp_path / "full").unlink(missing_ok=True)
    asked, _ = running.read_plan(folder)
    result, said = execute(asked, folder, resume=True)
    assert result.code == running.OK, said
    assert turns(folder)[: len(before)] == before
    assert len(turns(folder)) == len(set(turns(folder))) == 2 * 2 * 2 * LAUNCHES
    _check_account(result.loaded.run, time.monotonic() - start)


def _check_account(run, wall):
    """All that belongs to a run has its seconds, those of both parts, and nothing was counted twice."""
    seconds = seconds_of(run)
    assert wall / 2 < sum(seconds.values()) < wall
    assert {
        TimeKind.START,
        TimeKind.PREPARE,
        TimeKind.CHECK,
        TimeKind.TURNS,
        TimeKind.AROUND,
        TimeKind.WAITING,
        TimeKind.STOP,
    } <= set(seconds)
    assert min(seconds.values()) >= 0
    assert 0 < overhead(seconds) < 1


def test_a_disk_that_is_full_from_the_start_is_said_and_nothing_is_begun(tmp_path, plan, monkeypatch):
    monkeypatch.setattr(arrays, "_save", no_room)
    with pytest.raises(OSError, match="No space left on device"):
        execute(plan, tmp_path / "run")
    assert not (tmp_path / "run").exists()


ENDS = {
    "memory": (MemoryError(), SYSTEM, "there is no memory left for it"),
    "threads": (RuntimeError("can't start new thread"), SYSTEM, "starts no more processes or threads"),
    "open files": (OSError(errno.EMFILE, "Too many open files"), SYSTEM, "may open no more files"),
}


@pytest.mark.parametrize("name", ENDS)
def test_what_the_system_refuses_ends_the_run_in_order_too(tmp_path, plan, monkeypatch, name):
    error, code, words = ENDS[name]

    def refuse(*_, **__):
        raise error

    folder, calls = tmp_path / "run", []
    save = arrays._save
    monkeypatch.setattr(arrays, "_save", lambda *given: refuse() if calls else calls.append(save(*given)))
    result, said = execute(plan, folder)
    assert result.code == code
    assert words in said
    assert f"python -m rnnbench run --resume {folder}" in said
    assert result.loaded.records


def test_a_fault_of_ours_says_that_what_was_measured_is_kept(tmp_path, plan, monkeypatch):
    def fault(*_):
        raise KeyError("no such thing")

    monkeypatch.setattr(run_session, "trainings", fault)
    said = io.StringIO()
    with Display(Console(file=said, width=1000)) as display, pytest.raises(KeyError):
        running.execute(plan, tmp_path / "run", "run", display)
    assert "what was measured is kept. Continue with: python -m rnnbench run --resume" in said.getvalue()
    assert turns(tmp_path / "run")
