"""What runs, how far it is, how long it will take: a line that moves on a terminal, plain lines in a log."""

from __future__ import annotations

import os
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from rnnbench.harness.observer import Lines
from rnnbench.units import rough_duration

if TYPE_CHECKING:
    from rnnbench.harness.plan import Estimate

SILENT_FOR, SHORTEST_WAIT = 60.0, 1.0  # seconds, the most in a log, and between two looks
_NO = ("", "0", "false")


def moves(console: Console) -> bool:
    """Whether a line may move there: on a terminal that can, and not in the log of a CI that feigns one."""
    if not console.file.isatty() or console.is_dumb_terminal:
        return False
    return os.environ.get("CI", "").lower() in _NO


class Log(Lines):
    """Plain lines; while something takes long, one a minute that says so."""

    every = 30.0

    def __init__(self, console: Console) -> None:
        super().__init__(console.file)
        self.what, self.begun, self.ended = "", time.monotonic(), threading.Event()

    def begin(self, what: str) -> None:
        """This begins now."""
        self.what, self.begun = what, time.monotonic()

    def repeat(self) -> None:
        """Say what still runs where nothing was said for long, until the end."""
        while not self.ended.wait(max(SHORTEST_WAIT, self.since + SILENT_FOR - time.monotonic())):
            if self.what and time.monotonic() - self.since >= SILENT_FOR:
                self.say(f"still, for {rough_duration(time.monotonic() - self.begun)}: {self.what}")


class Display:
    """An observer of runs: a moving line with sentences above it, or a log."""

    def __init__(self, console: Console) -> None:
        self.console, self.log = console, None if moves(console) else Log(console)
        self.progress = Progress(
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.description}", markup=False),
            console=console,
            transient=True,
            disable=self.log is not None,
        )
        self.task = self.progress.add_task("", total=1.0, left="")

    def __enter__(self) -> Self:
        try:
            if self.log:
                threading.Thread(target=self.log.repeat, daemon=True).start()
            else:
                self.progress.start()
        except RuntimeError:  # the system starts no more threads: nothing is measured the worse for it
            self.progress.disable = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.log:
            self.log.ended.set()
        self.progress.stop()

    def doing(self, what: str, estimate: Estimate, case: str = "") -> None:
        """Show what begins now. What is left is worked out where it is shown alone: it takes milliseconds."""
        if self.log:
            self.log.begin(what)
            self.log.doing(what, estimate, case)
        elif not self.progress.disable:
            remaining = estimate.remaining
            total = estimate.spent + remaining
            left = f"about {rough_duration(remaining)} left"
            self.progress.update(
                self.task, completed=estimate.spent / total if total else 1.0, description=what, left=left
            )

    def show(self, what: str, fraction: float) -> None:
        """Show what begins now, where no estimate is kept."""
        if self.log:
            self.log.begin(what)
            self.log.show(what, fraction)
        else:
            self.progress.update(self.task, completed=fraction, description=what, left="")

    def say(self, text: str) -> None:
        """Print a sentence, above the line where there is one."""
        if self.log:
            self.log.say(text)
        else:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)
