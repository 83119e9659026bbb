"""The moving line: on a terminal it moves, elsewhere it costs nothing."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from rnnbench.cli.progress import Display
from rnnbench.harness.plan import Estimate


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Asked(Estimate):
    times = 0

    @property
    def remaining(self):
        self.times += 1
        return super().remaining


@pytest.mark.parametrize(("terminal", "asked"), [(True, 1), (False, 0)])
def test_the_time_left_is_worked_out_once_and_for_a_terminal_alone(terminal, asked, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("CI", raising=False)
    out = Terminal() if terminal else io.StringIO()
    estimate = Asked()
    estimate.add(("turn", "a"), 4)
    estimate.done(("turn", "a"), 30.0)
    with Display(Console(file=out, force_terminal=terminal, width=120)) as display:
        display.doing("a turn", estimate)
        assert display.progress.tasks[0].completed == (0.25 if terminal else 0)
        display.progress.refresh()
    assert estimate.times == asked
    assert ("about 2 min left" in out.getvalue()) is terminal
