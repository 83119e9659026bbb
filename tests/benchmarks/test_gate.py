"""The comparison of every push: with which commit, and when there is none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from gate import CASES, EFFORT, base_of, chosen, why_not
from verdict import ratios_for

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
    assert EFFORT.launches * EFFORT.rounds >= ratios_for(len(CASES))
