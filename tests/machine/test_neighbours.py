"""Runs that know of each other, and dead ones that are forgotten."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from rnnbench.machine.interference import Neighbours

OTHER = """
import sys, time
from pathlib import Path
from rnnbench.machine.interference import Neighbours
with Neighbours("reports/other", Path(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(1000)
"""


def test_two_runs_see_each_other_until_one_ends(tmp_path):
    with Neighbours("reports/a", tmp_path) as a:
        assert a.last == a.seen() == []
        with Neighbours("reports/b", tmp_path) as b:
            assert b.last == [f"reports/a (process {os.getpid()})"]
            assert a.seen() == [f"reports/b (process {os.getpid()})"]
        assert a.seen() == [f"reports/b (process {os.getpid()})"]  # until just now
        assert a.seen() == []
    assert list(tmp_path.iterdir()) == []


def test_three_runs_are_told_by_name(tmp_path):
    with Neighbours("a", tmp_path), Neighbours("b", tmp_path), Neighbours("c", tmp_path) as c:
        assert [name[0] for name in c.last] == ["a", "b"]


def test_a_killed_run_leaves_no_lock(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", OTHER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "ready\n"
    with Neighbours("a", tmp_path) as a:
        assert a.last == [f"reports/other (process {other.pid})"]
        other.send_signal(signal.SIGKILL)
        other.communicate(timeout=10)
        assert len(list(tmp_path.iterdir())) == 2
        a.seen()
        assert a.seen() == []
        assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_used_costs_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with Neighbours("a", tmp_path / "file" / "below") as a:
        assert a.seen() == []
    with Neighbours("a", tmp_path / "file") as a:
        assert a.seen() == []
