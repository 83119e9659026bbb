"""Commands in surroundings as users have them: homes, locales and folders that are not as one would like them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rnnbench.records import store
from rnnbench.records.record import turns_in

HERE = Path(__file__).resolve().parents[2]
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
ODD = b"a b'c\"\\ \xc3\xbc\xff"  # spaces, quotes, a sign beyond ASCII, and what is no UTF-8
UNWRITABLE = "/proc/self"  # for root, too

SURROUNDINGS = {
    "no home, ascii": ASCII,
    "a home and caches that cannot be written": {
        "HOME": UNWRITABLE, "NUMBA_CACHE_DIR": "/dev/null/numba", "RNNBENCH_CACHE": "/dev/null/cache",
        "XDG_RUNTIME_DIR": "/dev/null/runtime", "LC_ALL": "C.UTF-8",
    },
}  # fmt: skip


def call(folder: Path, env: dict[str, str], *arguments: str | bytes) -> subprocess.CompletedProcess[bytes]:
    """A command in a folder, its environment no more than this."""
    passed = {name: os.environ[name] for name in ("PATH", "KERAS_HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "rnnbench", *arguments], cwd=folder, capture_output=True, timeout=240, check=False,
        env=passed | {"PYTHONPATH": str(HERE), "TMPDIR": str(folder / "tmp"), "RNNBENCH_OFFLINE": "1"} | env,
    )  # fmt: skip


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_a_run_measures_and_leaves_nothing_beside_its_folder(tmp_path, name):
    (tmp_path / "tmp").mkdir()
    asked = ("-w", "parity", "--pass", "forward", "--quick", "--no-training", "--threads", "1", "-b", "numpy")
    done = call(tmp_path, SURROUNDINGS[name], "run", *asked, "-o", ODD)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    folder = tmp_path / os.fsdecode(ODD)
    assert any(record.samples_ns for record in turns_in(store.load_run(folder).records))
    assert (folder / "report.md").stat().st_size
    assert left_in(tmp_path) <= {"tmp", os.fsdecode(ODD)}
    assert {path.name for path in (tmp_path / "tmp").iterdir()} <= {f"rnnbench-{os.getuid()}"} | matplotlib_s(tmp_path)


def matplotlib_s(folder: Path) -> set[str]:
    """The folder that Matplotlib takes for its settings where there is no home."""
    return {path.name for path in (folder / "tmp").glob("matplotlib-*")}


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_commands_that_measure_nothing_answer(tmp_path, name):
    (tmp_path / "tmp").mkdir()
    said = b""
    for command in (("list",), ("env",), ("verify", "-b", "numpy", "-w", "parity", "--pass", "forward")):
        done = call(tmp_path, SURROUNDINGS[name], *command)
        assert done.returncode == 0, (command, done.stderr)
        assert b"Traceback" not in done.stderr
        said += done.stdout
    assert b"worker numba" in said  # its kernels were compiled
    assert (b"kept nowhere" in said) == ("NUMBA_CACHE_DIR" in SURROUNDINGS[name])
    assert left_in(tmp_path) <= {"tmp"}
