"""Runs where other code lies about: the rnnbench that was started is measured, whatever else hides it or prints."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rnnbench.records import store
from rnnbench.records.record import turns_in

PACKAGE = Path(__file__).resolve().parents[2] / "rnnbench"
ARGUMENTS = ("run", "-w", "parity", "--pass", "forward", "--quick", "--no-training", "--threads", "1")
HOSTILE = (
    "rnnbench/__init__", "rnnbench/harness/worker", "numpy/__init__", "msgspec", "queue", "json", "socket", "typing",
    "runpy", "sitecustomize", "usercustomize", "cpuinfo/__init__", "threadpoolctl", "psutil",
)  # fmt: skip
HOOK = """
import atexit, os
print("a hook prints on stdout")
print('{"ok": false, "kind": "error", "reason": "a hook prints what looks like a reply"}')
os.write(1, b"and from C, with no end of line")
atexit.register(print, "and at the end")
"""


@pytest.fixture
def copy(tmp_path) -> Path:
    """A folder with a copy of the package, of a version of its own."""
    shutil.copytree(PACKAGE, tmp_path / "copy" / "rnnbench", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "copy" / "rnnbench" / "__init__.py").write_text('__version__ = "9.9.9"\n')
    return tmp_path / "copy"


@pytest.fixture
def hostile(tmp_path) -> Path:
    """A folder whose files leave a trace where they are imported, and end the process."""
    folder = tmp_path / "hostile"
    for name in HOSTILE:
        file = folder / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            f"open({str(tmp_path / 'imported')!r}, 'a').write({name!r} + ' ')\nraise SystemExit({name!r})\n"
        )
    return folder


def run(command: list[str], folder: Path, cwd: Path, *, backend: str = "numpy", **env: str) -> store.Loaded:
    """A run that must measure, in a folder; what it stored."""
    outside = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    done = subprocess.run(
        [sys.executable, *command, *ARGUMENTS, "-b", backend, "-o", str(folder)],
        cwd=cwd, env=outside | env, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    loaded = store.load_run(folder)
    assert any(record.samples_ns for record in turns_in(loaded.records))
    assert loaded.machine["peak"] is not None
    assert loaded.machine["cpu"]["features"]
    return loaded


def test_an_installed_command_in_a_hostile_folder_measures_itself(tmp_path, copy, hostile):
    script = tmp_path / "bin" / "rnnbench"
    script.parent.mkdir()
    script.write_text(f"import sys; sys.path.insert(1, {str(copy)!r}); from rnnbench.cli import main; main()\n")
    loaded = run([str(script)], tmp_path / "run", hostile)
    assert not (tmp_path / "imported").exists(), (tmp_path / "imported").read_text()
    assert loaded.machine["rnnbench"] == "9.9.9"


def test_files_of_the_current_folder_are_no_part_of_the_program(tmp_path, hostile):
    """Not of `python -m rnnbench` either, which has the current folder first on its path."""
    shutil.rmtree(hostile / "rnnbench")  # a clone there is what is asked for
    env = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-m", "rnnbench", "list"], cwd=hostile, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "imported").exists(), (tmp_path / "imported").read_text()


def test_a_package_of_a_relative_path_is_the_workers_too(tmp_path, copy):
    (copy / "only_here").mkdir()
    loaded = run(["-m", "rnnbench"], tmp_path / "run", tmp_path, PYTHONPATH=f":{copy.name}")
    assert loaded.machine["rnnbench"] == "9.9.9"


def test_a_clone_is_its_own_package(tmp_path, copy):
    loaded = run(["-m", "rnnbench"], tmp_path / "run", copy)
    assert loaded.machine["rnnbench"] == "9.9.9"


def test_a_hook_of_the_interpreter_that_prints_costs_nothing(tmp_path):
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(HOOK)
    run(["-m", "rnnbench"], tmp_path / "run", PACKAGE.parent, PYTHONPATH=str(hook))
    assert "a hook prints" in (tmp_path / "run" / "scratch" / "logs" / "numpy.log").read_text()


@pytest.mark.slow
def test_what_numba_prints_of_its_cache_costs_nothing(tmp_path):
    run(["-m", "rnnbench"], tmp_path / "run", PACKAGE.parent, backend="numba", NUMBA_DEBUG_CACHE="1")
    assert "[cache]" in (tmp_path / "run" / "scratch" / "logs" / "numba.log").read_text()


def test_a_worker_finds_what_the_environment_s_path_holds_and_no_more_switches_than_were_given(tmp_path):
    """Isolated, the parent reads no PYTHONPATH, and no worker does."""
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text("raise SystemExit('read in spite of -I')")
    code = (
        f"import json, sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); "
        "from rnnbench.harness.worker_pool import computing_libraries; "
        "print(json.dumps(sorted(computing_libraries(1))))"
    )
    env = os.environ | {"PYTHONPATH": str(hook)}
    done = subprocess.run([sys.executable, "-I", "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert json.loads(done.stdout) == ["numba", "numpy"], done.stderr
