"""Each source of facts taken away in turn: what it told is unknown then, and nothing is raised."""

from __future__ import annotations

import builtins
import io
import json
import os
import platform
import re
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import psutil
import pytest

from rnnbench.analysis.comparable import hashes_of
from rnnbench.harness import footprint, operations
from rnnbench.machine import contention, cores, energy, fingerprint, interference, peak
from rnnbench.machine.interference import Neighbours, shares_between
from rnnbench.report.facts import machine_rows

OPENERS = [(builtins, "open"), (io, "open"), (os, "open"), (os, "listdir"), (os, "scandir"), (os, "stat")]
CALLS = [
    (psutil, "virtual_memory"), (psutil, "swap_memory"), (psutil, "cpu_freq"), (psutil, "cpu_count"),
    (psutil, "cpu_times"), (psutil, "Process"), (os, "getloadavg"), (os, "sched_getaffinity"),
    (resource, "getrusage"), (platform, "libc_ver"), (platform, "freedesktop_os_release"),
    (time, "get_clock_info"), (fingerprint.importlib.metadata, "version"), (subprocess, "Popen"),
    (fingerprint, "gpu_facts"), (fingerprint, "asked"), (fingerprint.shutil, "which"),
]  # fmt: skip
ERRORS = [PermissionError(13, "Permission denied"), ValueError("an odd line"), RuntimeError("no"), KeyError("cpu0")]


def all_facts() -> dict[str, Any]:
    """What a run asks of the machine, in the parent and in a worker."""
    contention._throttling_files.cache_clear()
    found: dict[str, Any] = fingerprint.fingerprint()
    before, counted = interference.read_cpu_times([os.getpid()]), contention.read_counters()
    with Neighbours("a run") as neighbours:
        neighbours.seen()
    after = contention.contention_between(counted, contention.read_counters(), ())
    assert after.seconds >= 0
    assert peak.array_bytes() > 0
    assert footprint.free() > 0
    assert operations.peak_memory() > 0
    operations.memory_before_a_pass()
    energy.meter_of()
    cores.stay_on(cores.allowed_cores())
    assert cores.allowed_cores()
    found["start"] = interference.state(shares_between(before, interference.read_cpu_times()))
    assert len(found["machine_id"]) == 12
    assert found["hashes"] == hashes_of(found)
    json.dumps(found)
    assert all(isinstance(text, str) for _, text in machine_rows(found))
    return found


@pytest.fixture(autouse=True)
def _no_process_is_started(monkeypatch):
    """What py-cpuinfo, git and systemd say is not looked for; each takes a process of its own."""
    monkeypatch.setattr(fingerprint, "asked", lambda *given, **more: {"found": {"flags": ["avx2"]}})
    monkeypatch.setattr(fingerprint, "git", lambda: None)
    monkeypatch.setattr(fingerprint, "_detected", lambda kind: None)


def kind_of(path: object) -> str:
    """A file of the system without the numbers in its name, as of a process, a thread or a core; "" for others."""
    try:
        text = os.fsdecode(path)  # type: ignore[arg-type]
    except TypeError:  # a file that is open already
        return ""
    return re.sub(r"\d+", "N", text) if text.startswith(("/proc/", "/sys/", "/run/", "/.docker", "/etc/os")) else ""


@contextmanager
def watched(see: Callable[[str], None]) -> Iterator[None]:
    """Each file of the system is shown to `see` before it is opened, listed or looked at."""

    def watching(call: Callable[..., Any]) -> Callable[..., Any]:
        def watched_call(path: Any = ".", *given: Any, **more: Any) -> Any:
            if kind := kind_of(path):
                see(kind)
            return call(path, *given, **more)

        return watched_call

    with mock.patch.multiple(builtins, open=watching(builtins.open)), mock.patch.multiple(io, open=watching(io.open)):
        calls = {name: watching(getattr(os, name)) for module, name in OPENERS if module is os}
        with mock.patch.multiple(os, **calls):
            yield


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="this system has no /proc")
def test_each_file_of_the_system_may_be_kept_from_us():
    files: dict[str, None] = {}
    with watched(lambda kind: files.update({kind: None})):
        all_facts()
    assert {"/proc/self/status", "/proc/self/cgroup"} <= files.keys()
    for file in files:
        for error in (ERRORS[0], FileNotFoundError(2, "No such file or directory")):

            def refuse(kind: str, file: str = file, error: OSError = error) -> None:
                if kind == file:
                    raise type(error)(*error.args, kind)

            with watched(refuse):
                all_facts()


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="this system has no /proc")
@pytest.mark.parametrize("text", ["", "\0\xff", "odd", "1 2", "-1", "0 0", "9" * 5000, "a:b\nc", ":::"])
def test_each_file_of_the_system_may_hold_anything(text, monkeypatch, tmp_path):
    (tmp_path / "odd").write_text(text, encoding="latin-1")
    real, real_os = io.open, os.open

    def odd(path: Any, *given: Any, **more: Any) -> Any:
        return real(tmp_path / "odd" if kind_of(path) else path, *given, **more)

    def odd_os(path: Any, *given: Any, **more: Any) -> Any:
        return real_os(tmp_path / "odd" if kind_of(path) else path, *given, **more)

    monkeypatch.setattr(builtins, "open", odd)
    monkeypatch.setattr(io, "open", odd)
    monkeypatch.setattr(os, "open", odd_os)
    all_facts()


@pytest.mark.parametrize(("module", "name"), CALLS, ids=[f"{module.__name__}.{name}" for module, name in CALLS])
def test_each_call_of_a_library_may_raise(monkeypatch, module, name):
    for error in ERRORS:
        monkeypatch.setattr(module, name, mock.Mock(side_effect=error))
        if (module, name) == (fingerprint, "asked") and not isinstance(error, OSError):
            continue  # ours, which raises OSError and WorkerFailure alone
        all_facts()


def test_what_a_library_does_not_tell_is_unknown(monkeypatch):
    for module, name in CALLS:
        if name not in ("asked", "sched_getaffinity"):
            monkeypatch.setattr(module, name, mock.Mock(side_effect=RuntimeError("no")))
    found = all_facts()
    assert found["memory_bytes"] is found["load"] is found["clock"] is found["start"]["load_per_core"] is None
    assert found["cpu"]["cores"] is found["cpu"]["mhz"] is None
    rows = dict(machine_rows(found))
    assert rows["memory_bytes"] == rows["load"] == rows["cpu cores"] == "unknown"


@pytest.mark.parametrize("said", [{"found": None}, {"found": []}, {"found": {"flags": None}}, {"found": {"flags": 7}}])
def test_what_cpuinfo_says_may_be_anything(monkeypatch, said):
    monkeypatch.setattr(fingerprint, "asked", lambda *given, **more: said)
    assert all_facts()["cpu"]["features"] == []


def test_git_is_asked_of_this_checkout_whatever_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.undo()
    before = fingerprint.git()
    if before is None or before["commit"] is None:
        pytest.skip("no checkout, or no git")
    elsewhere = tmp_path / "elsewhere"
    commands = (["init", "-q"], ["-c", "user.name=x", "-c", "user.email=x@y", "commit", "-q", "--allow-empty", "-mx"])
    for command in commands:
        subprocess.run(["git", *command, str(elsewhere)][: len(command) + 2] if command[0] == "init"
                       else ["git", "-C", str(elsewhere), *command], check=True)  # fmt: skip
    for name, value in {"GIT_DIR": elsewhere / ".git", "GIT_WORK_TREE": elsewhere,
                        "GIT_INDEX_FILE": tmp_path / "no index", "GIT_CEILING_DIRECTORIES": "/"}.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))
    assert fingerprint.git() == before
