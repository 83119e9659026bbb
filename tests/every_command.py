"""`python -m tests.every_command FOLDER RUN SURROUNDINGS`: all commands one after the other in one process, there.

What each ended with is written to FOLDER/codes.json. What takes seconds and concerns no surroundings is left out:
figures, the peak of the machine, its description by other programs, compiling.
"""

from __future__ import annotations

import json
import os
import pwd
import sys
from contextlib import ExitStack, nullcontext
from pathlib import Path
from unittest import mock

QUICK = ("-b", "numpy", "--pass", "forward", "--quick")


def commands(folder: Path, run: Path) -> dict[str, tuple[str, ...]]:
    """Arguments of each command, small work."""
    return {
        "run": ("run", "-w", "parity", *QUICK, "--no-training", "-o", str(folder / "run")),
        "sweep": ("sweep", "--H", "2,3", "--T", "2", "--B", "1", *QUICK, "-o", str(folder / "sweep")),
        "verify": ("verify", "-w", "parity", "-b", "numpy", "--pass", "forward", "--dtype", "float32"),
        "train": ("train", "parity", "-b", "numpy", "--epochs", "1", "-o", str(folder / "training")),
        "seeds": ("seeds", "sentiment-toy", "-b", "numpy"),
        "report": ("report", str(run), "-o", str(folder / "report")),
        "compare": ("compare", str(run), str(run)),
        "check": ("check", str(run)),
        "history": ("history", str(run)),
        "list": ("list",),
        "env": ("env",),
        "warm": ("warm",),
    }


def broken_pipe() -> None:
    """Standard output is a pipe that nobody reads."""
    reads, writes = os.pipe()
    os.close(reads)
    os.dup2(writes, 1)
    os.close(writes)


class Ready:
    """A backend whose kernels are compiled already."""

    def warm(self, dtype):
        yield from ()


def refuse(kind: str) -> None:
    raise PermissionError(13, "Permission denied", kind)


def no_home(_: int) -> None:
    raise KeyError("uid not found")


def main() -> None:
    folder, run, where = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3].split(", ")
    if "one core" in where:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    from rnnbench import backends
    from rnnbench.api import run_session
    from rnnbench.cli import main as rnnbench
    from rnnbench.harness import worker_pool
    from rnnbench.machine import fingerprint
    from rnnbench.report import page
    from tests.machine.test_missing_facts import watched

    codes: dict[str, object] = {}
    with ExitStack() as stack:
        for target, name, value in (
            (fingerprint, "_described", dict),
            (fingerprint, "git", lambda: None),
            (fingerprint, "_detected", lambda kind: None),
            (run_session.RunSession, "look_for_peak", lambda self: None),
            (page, "_figures", lambda *_: {}),
            (worker_pool, "computing_libraries", lambda threads: {}),
            (backends, "load", lambda name: Ready()),
        ):
            stack.enter_context(mock.patch.object(target, name, value))
        if "no home" in where:
            stack.enter_context(mock.patch.object(pwd, "getpwuid", no_home))
        for name, arguments in commands(folder, run).items():
            if "broken pipe" in where:
                broken_pipe()
            elif "closed stdout" in where:
                sys.stdout.flush()
                os.close(1)
            with watched(refuse) if "no facts" in where else nullcontext():
                try:
                    rnnbench.main(list(arguments), prog_name="rnnbench")
                except SystemExit as end:
                    codes[name] = end.code
    (folder / "codes.json").write_text(json.dumps(codes))


if __name__ == "__main__":
    main()
