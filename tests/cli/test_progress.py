"""The moving line: on a terminal it moves, elsewhere it costs nothing."""

from __future__ import annotations

import io
import threading

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


class Steps(Estimate):
    """Half of it is done."""

    remaining = 30.0


def logged(work, monkeypatch, **env) -> str:
    """What stands in a log of this work."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    out = io.StringIO()
    with Display(Console(file=out, width=120)) as display:
        work(display)
    return out.getvalue()


def two_cases(display):
    for case in ("parity forward", "parity gradient"):
        for round_ in (1, 2, 3):
            display.doing(f"{case}, round {round_} of 3: numba", Steps(spent=30.0), case)
    display.say("a sentence")


@pytest.mark.parametrize("env", [{}, {"FORCE_COLOR": "1", "TERM": "xterm"}, {"COLUMNS": "20"}, {"TTY_COMPATIBLE": "1"}],
                         ids=str)  # fmt: skip
def test_a_log_has_one_plain_line_for_each_case(monkeypatch, env):
    lines = logged(two_cases, monkeypatch, **env).splitlines()
    assert lines == [
        " 50 %, about 30 s left: parity forward, round 1 of 3: numba",
        " 50 %, about 30 s left: parity gradient, round 1 of 3: numba",
        "a sentence",
    ]


@pytest.mark.parametrize(
    ("env", "moving"),
    [({}, True), ({"CI": "true"}, False), ({"CI": "0"}, True), ({"TERM": "dumb"}, False), ({"NO_COLOR": "1"}, True)],
)
def test_a_line_moves_on_terminals_that_can_alone(monkeypatch, env, moving):
    monkeypatch.delenv("CI", raising=False)
    for name, value in ({"TERM": "xterm"} | env).items():
        monkeypatch.setenv(name, value)
    out = Terminal()
    with Display(Console(file=out, width=120)) as display:
        two_cases(display)
    assert ("\x1b[2K" in out.getvalue()) is moving  # which clears the line


def test_a_log_is_never_silent_for_long(monkeypatch):
    monkeypatch.setattr("rnnbench.cli.progress.SILENT_FOR", 0.02)
    monkeypatch.setattr("rnnbench.cli.progress.SHORTEST_WAIT", 0.01)
    done = threading.Event()

    class Waited(io.StringIO):
        def write(self, text):
            if "still" in text:
                done.set()
            return super().write(text)

    with Display(Console(file=Waited(), width=120)) as display:
        display.show("one long epoch", 0.0)
        assert done.wait(20)
    assert "still, for " in display.console.file.getvalue()
    assert ": one long epoch" in display.console.file.getvalue()


@pytest.mark.parametrize("out", [io.StringIO(), Terminal()], ids=["log", "terminal"])
def test_without_a_thread_for_it_nothing_is_lost(monkeypatch, out):
    def refused(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(threading, "_start_new_thread", refused)
    with Display(Console(file=out, width=120)) as display:
        two_cases(display)
    assert "a sentence" in out.getvalue()
