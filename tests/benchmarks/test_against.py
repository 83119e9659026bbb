"""The comparison as a user types it: real worktrees, real processes, one sentence for what is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cases import facts
from checkout import CheckoutError, checked_out, resolve

ROOT = Path(__file__).resolve().parents[2]
AGAINST = [sys.executable, str(ROOT / "benchmarks" / "against.py")]

needs_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no checkout of a git repository")


def against(*arguments: str, **env: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [*AGAINST, *arguments], env={**os.environ, **env}, capture_output=True, text=True, timeout=240, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def test_a_reader_that_has_gone_is_not_slower():
    for arguments in (["--help"], ["--timeout", "x"]):
        line = f"{' '.join([*AGAINST, *arguments])} 2>&1 | true"
        done = subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, check=False, timeout=60)
        assert (done.returncode, done.stderr) == (2 if "x" in arguments else 0, b"")


def worktrees() -> str:
    return subprocess.run(["git", "-C", ROOT, "worktree", "list"], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def repository(tmp_path) -> Path:
    """A repository of one commit with one file."""
    root = tmp_path / "repository"
    root.mkdir()
    (root / "file").write_text("kept")
    identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    for arguments in (["init", "-q"], ["add", "file"], [*identity, "commit", "-q", "-m", "One file"]):
        subprocess.run(["git", "-C", root, *arguments], check=True)
    return root


def test_a_commit_is_checked_out_and_leaves_nothing(repository, tmp_path):
    (repository / "file").write_text("changed since")
    commit = resolve("HEAD", repository)

    def fail_inside() -> None:
        with checked_out(commit, tmp_path / "base", repository) as base:
            assert (base / "file").read_text() == "kept"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_inside()
    assert not (tmp_path / "base").exists()
    assert not list((repository / ".git" / "worktrees").glob("*"))


def test_what_is_no_commit_or_no_repository_is_said(repository, tmp_path):
    for ref in ("nosuch", "HEAD~1", "--all", ""):
        with pytest.raises(CheckoutError, match="there is no commit"):
            resolve(ref, repository)
    (tmp_path / "folder").mkdir()
    with pytest.raises(CheckoutError, match="is not a git repository"):
        resolve("HEAD", tmp_path / "folder")


@needs_git
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nosuch"], "there is no commit 'nosuch'; give a branch, a tag or a commit"),
        (["HEAD", "--margin", "ten"], "'ten' is not a number of percent, such as 5%"),
        (["HEAD", "--margin", "0%"], "above 0 and below 100 is allowed"),
        (["HEAD", "--launches", "2"], "2 is not in the range x>=3"),
        (["HEAD", "-k", "nosuch"], "leaves none of"),
        (["HEAD", "--threads", "999"], "--threads 999 is more than the"),
        (["HEAD", "--json", "/proc/nosuch/file"], "choose another file"),
    ],
)
def test_wrong_options_get_one_sentence(arguments, words):
    code, _, err = against(*arguments)
    assert code == 2
    assert words in " ".join(err.split())


@needs_git
@pytest.mark.slow
def test_a_commit_against_itself(tmp_path):
    """By a case that compiles nothing; what is written holds every sample, the commits and the machine."""
    path = tmp_path / "made" / "against.json"
    code, out, err = against(
        "HEAD",
        "-k",
        "import",
        "--margin",
        "99%",
        "--launches",
        "3",
        "--rounds",
        "2",
        "--json",
        str(path),
        TMPDIR=str(tmp_path),
    )
    assert code == 0, out + err
    assert "start import rnnbench.cli" in out
    assert str(tmp_path) not in worktrees()
    content = json.loads(path.read_text())
    assert content["base"] == resolve("HEAD")
    assert content["machine"]["cpu"]["features"]
    (finding,) = content["findings"]
    assert finding["low"] <= finding["ratio"] <= finding["high"]
    assert [len(rounds) for rounds in content["turns"][finding["case"]]] == [2] * 3


@needs_git
@pytest.mark.slow
def test_a_commit_against_itself_several_times():
    code, out, err = against("HEAD", "--aa", "2", "-k", "import", "--margin", "99%", "--launches", "3", "--rounds", "1")
    assert code == 0, out + err
    assert "0 of 2 compared cases called slower, in 0 of 2 comparisons" in out


@needs_git
def test_interrupt_leaves_no_worktree_and_no_process(tmp_path):
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen([*AGAINST, "-k", "import"], env=env, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not list(tmp_path.glob("rnnbench-*/base.log")) and time.monotonic() < end:
        time.sleep(0.02)
    assert str(tmp_path) in worktrees()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    assert str(tmp_path) not in worktrees()
    assert not list(tmp_path.glob("rnnbench-*"))


def test_facts_tell_machine_libraries_threads_and_kernels():
    found = facts()
    assert found["cpu"]["model"]
    assert found["libraries"]["numba"]
    assert found["kernels"]["threads"] >= 1
    assert found["kernels"]["register_bits"] in (128, 256, 512)
    assert json.dumps(found)
