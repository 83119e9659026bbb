"""What a comparison prints."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from show import alarms, readable, show
from verdict import Finding, Verdict

SLOWER = Finding("products a", Verdict.SLOWER, 1e-6, 2e-6, 2.0, 1.9, 2.1)
SAME = Finding("products b", Verdict.SAME, 1e-3, 1e-3, 1.0, 0.99, 1.01)
GONE = Finding("products [c]", Verdict.MISSING, reason="base: no such kernel")


def test_the_table_names_every_case_its_times_and_reasons():
    to = Console(width=120, file=io.StringIO())
    show([SLOWER, SAME, GONE], ("abc", "def"), 0.1, to)
    text = to.file.getvalue()
    for words in (
        "base abc, new def", "1 us", "2 us", "2.000", "1.900 to 2.100", "slower", "products [c]",
        "missing: base: no such kernel (1 case, products [c] first)", "1 slower, 1 same, 1 missing. Margin 10%",
    ):  # fmt: skip
        assert words in text, words


@pytest.mark.parametrize(
    ("seconds", "text"), [(12.0, "12 s"), (0.0123, "12.3 ms"), (4.5e-5, "45 us"), (3e-9, "3 ns"), (1.0, "1 s")]
)
def test_durations(seconds, text):
    assert readable(seconds) == text


def test_false_alarms_are_counted_with_an_upper_bound():
    assert "0 of 40 compared cases called slower, in 0 of 20 comparisons; at 95% confidence fewer than 14%" in alarms(
        [[SAME, SAME, GONE]] * 20, 0.1
    )
    text = alarms([[SAME, SAME]] * 9 + [[SLOWER, SLOWER]], 0.1)
    assert "2 of 20 compared cases called slower, in 1 of 10 comparisons" in text
