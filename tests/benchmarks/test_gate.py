"""The comparison of every push: with which commit, when there is none, and the exit codes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

import against
import gate
from cases import Case, Work
from duel import MIN_LAUNCHES, Duel
from gate import CASES, EFFORT, base_of, chosen, why_not
from tests import calling
from tests.benchmarks.test_duel import CALM, FAKE

ROOT = Path(__file__).resolve().parents[2]
KERNEL = Path("rnnbench/kernels/cpu/forward.py")


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    done = subprocess.run(["git", "-C", root, *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(root: Path, path: Path, text: str) -> str:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", text)
    return git(root, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path) -> Path:
    """One commit on main, of one kernel."""
    git(tmp_path, "init", "-q", "-b", "main", "repository")
    commit(tmp_path / "repository", KERNEL, "first")
    return tmp_path / "repository"


def test_a_first_commit_has_none_before_it(repository):
    assert "there is no commit 'HEAD~1'" in (why_not(repository) or "")


def test_a_shallow_clone_is_said(repository, tmp_path):
    commit(repository, KERNEL, "second")
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{repository}", "shallow")
    assert "git fetch --unshallow" in (why_not(tmp_path / "shallow") or "")


def test_what_is_no_repository_is_said(tmp_path):
    assert "is not a git repository" in (why_not(tmp_path) or "")


def test_only_changed_cpu_kernels_are_compared(repository):
    first = git(repository, "rev-parse", "HEAD")
    commit(repository, Path("README.md"), "words")
    assert why_not(repository) == f"the CPU kernels are those of {first[:12]}"
    (repository / "rnnbench/kernels/cuda").mkdir()
    (repository / "rnnbench/kernels/cuda/forward.py").write_text("not timed here")
    assert why_not(repository)
    (repository / KERNEL.with_name("new.py")).write_text("not committed yet")
    assert why_not(repository) is None
    (repository / KERNEL.with_name("new.py")).unlink()
    (repository / KERNEL).write_text("changed")
    assert why_not(repository) is None


def test_a_branch_is_held_against_where_it_left_main(repository):
    left = commit(repository, KERNEL, "second")
    git(repository, "switch", "-q", "-c", "branch")
    commit(repository, KERNEL, "third")
    commit(repository, Path("README.md"), "words")
    assert base_of(repository) == left
    assert why_not(repository) is None
    git(repository, "switch", "-q", "main")
    assert base_of(repository) == git(repository, "rev-parse", "HEAD~1")


def test_its_cases_exist_and_its_effort_is_enough():
    assert len(chosen()) == len(CASES)
    assert EFFORT.launches >= MIN_LAUNCHES


class Broken:
    """In place of two trees, an error."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self, *_: object) -> None:
        raise self.error


@pytest.fixture
def called(monkeypatch, repository, tmp_path):
    """`called(new, code)`: the gate over a kernel that was changed since main; what it says, and where it asked.

    Both sides are processes that make their times up, base by CALM and new by the plan.
    """
    asked: list[str] = []

    @contextmanager
    def trees(ref: str, itself: bool):
        asked.append(ref)
        for name, plan in (("base", CALM), ("new", new)):
            (tmp_path / name).mkdir()
            (tmp_path / name / "plan.json").write_text(json.dumps({"fake a": plan}))
        yield tmp_path, (tmp_path / "base", tmp_path / ("base" if itself else "new")), ref

    def call(plan: dict, code: int, *arguments: str) -> str:
        nonlocal new
        new = plan
        return " ".join(calling.called(*arguments, command=gate.main, code=code).output.split())

    new: dict = CALM
    monkeypatch.setattr(gate, "ROOT", repository)
    monkeypatch.setattr(gate, "two_trees", trees)
    monkeypatch.setattr(gate, "Duel", partial(Duel, serve=FAKE))
    monkeypatch.setattr(gate, "chosen", lambda: [Case("fake", "a", Work)])
    monkeypatch.setattr(against, "facts", dict)  # they load the kernels
    call.asked = asked
    return call


@pytest.mark.parametrize(
    ("new", "code", "words"),
    [
        (CALM, 0, "1 same"),
        ({"ns": 20_000}, 1, "1 slower"),
        ({"ns": 5_000}, 0, "1 faster"),
        ({"raises": "no such kernel"}, 0, "A case could not be compared; only what is slower fails here."),
    ],
    ids=["same", "slower", "faster", "broken"],
)
def test_only_what_is_slower_fails(called, repository, new, code, words):
    main = git(repository, "rev-parse", "HEAD")
    git(repository, "switch", "-q", "-c", "branch")
    commit(repository, KERNEL, "second")
    assert words in called(new, code)
    assert called.asked == [main]


def test_no_comparison_is_said_and_lets_pass(called, repository, monkeypatch):
    assert called(CALM, 0).startswith("No comparison: there is no commit 'HEAD~1'")
    commit(repository, Path("README.md"), "words")
    assert called(CALM, 0).startswith("No comparison: the CPU kernels are those of ")
    (repository / KERNEL).write_text("changed")
    monkeypatch.setattr(gate, "two_trees", broken := Broken(OSError(28, "No space left on device")))
    assert called(CALM, 0) == "No comparison: [Errno 28] No space left on device."
    broken.error = gate.CheckoutError("git cannot check out")
    assert called(CALM, 0) == "No comparison: git cannot check out."
    assert not called.asked


def test_interrupt_and_wrong_options(called, repository, monkeypatch, tmp_path):
    commit(repository, KERNEL, "second")
    (tmp_path / "file").write_text("")
    assert "choose another file" in called(CALM, 2, "--json", str(tmp_path / "file" / "under"))
    monkeypatch.setattr(gate, "two_trees", Broken(KeyboardInterrupt()))
    assert "interrupted; nothing is kept" in called(CALM, 130)


@pytest.mark.parametrize("error", [RuntimeError("no"), RecursionError(), BrokenPipeError(32, "Broken pipe")])
def test_what_nobody_foresaw_is_not_slower(called, repository, monkeypatch, error):
    commit(repository, KERNEL, "second")
    monkeypatch.setattr(gate, "measured", Broken(error))
    if isinstance(error, OSError):
        assert called(CALM, 0).startswith("No comparison: [Errno 32]")
    else:
        assert f"a fault of rnnbench, {type(error).__name__}" in called(CALM, 70)
    monkeypatch.setattr(gate, "measured", Broken(OSError(28, "No space left on device", "standard output")))
    assert called(CALM, 4).endswith("Error: standard output cannot be written: No space left on device")


@pytest.mark.parametrize("script", ["gate.py", "against.py"])
def test_a_tree_that_cannot_be_imported_is_not_slower(script, tmp_path):
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "rnnbench").mkdir()
    (tmp_path / "rnnbench/__init__.py").write_text("raise RuntimeError('half edited')")
    done = subprocess.run(
        [sys.executable, tmp_path / "benchmarks" / script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 70, done.stderr
    assert done.stderr.startswith("Error: nothing was compared, RuntimeError: half edited; RNNBENCH_TRACEBACK=1")
    assert done.stderr.count("\n") == 1


def test_the_same_tree_twice_is_asked_for_by_number(called, tmp_path):
    path = tmp_path / "alarms.json"
    assert "0 of 2 compared cases called slower" in called({"raises": "not asked"}, 0, "--aa", "2", "--json", str(path))
    assert called.asked == ["HEAD"]
    assert len(json.loads(path.read_text())["comparisons"]) == 2
