"""A commit in a folder of its own, for as long as it is needed; imports nothing of the package, which may be broken."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[1]
MAX_SECONDS = 300  # for one call of git
FAULT = 70  # the exit code of a fault of a script, as of `python -m rnnbench`; Python's, 1, means slower


def report_fault(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """As `sys.excepthook`: one sentence, and FAULT."""
    if os.environ.get("RNNBENCH_TRACEBACK"):
        traceback.print_exception(error)
    said = " ".join(f"{kind.__name__}: {error}".split())
    print(f"Error: nothing was compared, {said}; RNNBENCH_TRACEBACK=1 in the environment shows where", file=sys.stderr)
    sys.exit(FAULT)


class CheckoutError(Exception):
    """The message is one sentence for the user, with the way out."""


def git(*arguments: str, root: Path) -> subprocess.CompletedProcess[str]:
    """Run git. Ctrl-C is for us and not for git, which would stop half-way. Raises CheckoutError where it hangs."""
    try:
        return subprocess.run(
            ["git", "-C", str(root), "-c", "core.hooksPath=/dev/null", *arguments],
            capture_output=True, text=True, check=False, start_new_session=True, timeout=MAX_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise CheckoutError(
            f"git {arguments[0]} took longer than {MAX_SECONDS} s; see what holds it: git status"
        ) from error
    except FileNotFoundError as error:
        raise CheckoutError("git is not installed; two commits cannot be compared without it") from error


def resolve(ref: str, root: Path = ROOT) -> str:
    """The commit that a name stands for, 40 digits. Raises CheckoutError."""
    found = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}", root=root)
    if found.returncode == 0:
        return found.stdout.strip()
    if git("rev-parse", "--git-dir", root=root).returncode != 0:
        raise CheckoutError(f"{root} is not a git repository; compare in a clone of the project")
    shallow = git("rev-parse", "--is-shallow-repository", root=root).stdout.strip() == "true"
    hint = "; this clone has the last commits alone: git fetch --unshallow" if shallow else ""
    raise CheckoutError(f"there is no commit {ref!r}; give a branch, a tag or a commit, such as HEAD~1{hint}")


@contextmanager
def checked_out(commit: str, folder: Path, root: Path = ROOT) -> Iterator[Path]:
    """A worktree of the commit at `folder`, which must not exist; removed in the end, interrupted or not.

    Raises CheckoutError where git cannot make it.
    """
    try:
        made = git("worktree", "add", "--detach", "--force", str(folder), commit, root=root)
        if made.returncode != 0:
            raise CheckoutError(f"git cannot check out {commit[:12]}: {made.stderr.strip().splitlines()[-1]}")
        yield folder
    finally:
        with _undisturbed():
            git("worktree", "remove", "--force", "--force", str(folder), root=root)
            shutil.rmtree(folder, ignore_errors=True)
            git("worktree", "prune", root=root)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C waits until this is done, and is then forgotten."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
