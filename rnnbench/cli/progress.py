"""What runs, how far it is, how long it will take: on a terminal as a moving line, elsewhere not at all."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from rnnbench.units import rough_duration

if TYPE_CHECKING:
    from rnnbench.harness.plan import Estimate


class Display:
    """An observer of runs. Sentences of `say` are printed everywhere; the moving line on terminals alone."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = Progress(
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.description}", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.progress.add_task("", total=1.0, left="")

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def doing(self, what: str, estimate: Estimate) -> None:
        """Show what begins now. Where nobody looks, nothing is worked out: it takes milliseconds, before each turn."""
        if self.progress.disable:
            return
        remaining = estimate.remaining
        total = estimate.spent + remaining
        left = f"about {rough_duration(remaining)} left"
        self.progress.update(self.task, completed=estimate.spent / total if total else 1.0, description=what, left=left)

    def show(self, what: str, fraction: float) -> None:
        """Show what begins now, where no estimate is kept."""
        self.progress.update(self.task, completed=fraction, description=what, left="")

    def say(self, text: str) -> None:
        """Print a sentence above the line."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
