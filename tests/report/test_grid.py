"""Tables on a terminal: no word is cut at any width, what tells rows apart is on one line, narrow ones are lines."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from rnnbench.model import Pass
from rnnbench.report import page
from rnnbench.report.grid import TELLING, print_fitted
from rnnbench.report.section import Section, print_sections
from tests.report.fake import MIXED, make
from tests.report.fake_gpu import make_gpu
from tests.report.test_report import context_of
from tests.report.test_sweep import fake_of

HEADER = ("case", "backend", "verdict", "new / base", "base", "new", "needs")
ROWS = [
    ("imdb-200 train_step", "tensorflow+xla", "inconclusive", "1.20x (1.17 to 1.23)", "0.233 ms", "12,345 ms", "1,804"),
    ("imdb-50 forward", "torch", "not comparable", "", "15.4 ms", "17.7 ms", ""),
]


def printed(width: int, header=HEADER, rows=ROWS, title: str = "") -> str:
    text = io.StringIO()
    print_fitted(Console(file=text, width=width, color_system=None), header, rows, title)
    return text.getvalue()


def test_where_there_is_room_a_row_is_a_line():
    lines = printed(120).splitlines()
    assert lines[0].split() == " ".join(HEADER).split()
    assert re.fullmatch(
        "   ".join(re.escape(cell) + " *" for cell in ROWS[0]).replace(" \\*   ", " +"), lines[2].strip()
    )


@pytest.mark.parametrize("width", [80, 79, 60, 40, 24])
def test_no_word_is_cut(width):
    text = printed(width, title="A title")
    assert all(len(line.rstrip()) <= width for line in text.splitlines())
    assert "…" not in text
    words = text.split()
    for row in ROWS:
        assert {word for cell in row for word in cell.split()} <= {word.rstrip(",") for word in words} | set(words)
        assert any(row[0] in line for line in text.splitlines()) or width < 20


def test_at_80_columns_it_is_a_table_and_at_40_lines():
    wide, narrow = printed(80), printed(40)
    assert wide.splitlines()[2].startswith("───")
    assert "imdb-200 train_step  tensorflow+xla" in wide
    assert (
        "imdb-200 train_step  tensorflow+xla\n  verdict: inconclusive\n  new / base: 1.20x (1.17 to 1.23)\n"
        in re.sub(" +\n", "\n", narrow)
    )
    assert "needs" not in narrow.partition("imdb-50")[2]  # what is empty is not named


def test_brackets_are_no_markup_and_a_long_path_is_whole():
    path = "/a/" + "folder/" * 20
    text = printed(40, ("fact", "value"), [("[bold]x[/bold]", path)])
    assert "[bold]x[/bold]" in text
    assert path in "".join(line.strip() for line in text.splitlines())


def tables_of(sections):
    for section in sections:
        for block in section.blocks:
            if isinstance(block, Section):
                yield from tables_of([block])
            elif hasattr(block, "columns"):
                yield block


@pytest.mark.parametrize(
    "fake",
    [
        make(("imdb-200",), passes=(Pass.FORWARD, Pass.TRAIN_STEP), rounds=1, failures=MIXED),
        make_gpu(("parity",)),
        fake_of(),
    ],
    ids=["run", "gpu", "sweep"],
)
@pytest.mark.parametrize("width", [80, 40])
def test_every_table_of_a_report_keeps_what_tells_its_rows_apart(fake, width):
    sections = page.sections_of(context_of(fake))
    checked = 0
    for table in tables_of(sections):
        text = io.StringIO()
        print_sections(Console(file=text, width=width, color_system=None), [Section("", [table])])
        lines = text.getvalue().splitlines()
        telling = [name for i, name in enumerate(table.columns) if i == 0 or name in TELLING]
        for row in table[telling].itertuples(index=False, name=None):
            for cell in filter(None, map(str, row)):
                assert any(cell in line for line in lines) or len(cell) > width, (cell, lines)
                checked += 1
        words = {word for column in table for cell in table[column] for word in str(cell).split() if len(word) < width}
        there = {word.rstrip(",") for word in text.getvalue().split()} | set(text.getvalue().split())
        assert words - {word.rstrip(",") for word in words if word.endswith(",")} <= there | {w + "," for w in there}
    assert checked > 20
