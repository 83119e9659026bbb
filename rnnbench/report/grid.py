"""Tables for a terminal of any width: no word is ever cut, and what tells rows apart is on one line.

Where the columns do not fit side by side even with their words below one another, each row becomes a few lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console

GAPS = (3, 2)  # between columns: the second where there is no room for the first
INDENT = 2
TELLING = {"backend", "case", "run", "workload"}  # columns that tell rows apart, as the first one does
# Columns of words, at the left; the first one is there too.
WORDS = {
    "backend", "called", "case", "cases", "change", "check", "commit", "date", "dtype", "fact", "here", "note",
    "quantity", "reason", "run", "status", "value", "verdict", "what", "what it is", "workload", "worst array",
    "worst pass",
}  # fmt: skip
_BRACKETS = re.compile(r"\([^()]*\)\S*")  # an interval, which is better not broken


@dataclass(frozen=True)
class _Widths:
    """Of one column: all on one line, with intervals kept whole, with words kept whole."""

    natural: int
    phrases: int
    words: int


def _widths(name: str, cells: Sequence[Text], telling: bool) -> _Widths:
    texts = [cell.plain for cell in cells]
    natural = max(map(cell_len, [name, *texts]))
    words = _longest([name, *texts])
    if telling:
        whole = max(map(cell_len, [*texts, *name.split()]), default=0)
        return _Widths(max(whole, natural), max(whole, words), max(whole, words))
    return _Widths(natural, max(words, _longest([_bound(text) for text in texts])), words)


def _longest(texts: Sequence[str]) -> int:
    return max((cell_len(word) for text in texts for word in text.split(" ")), default=0)


def _bound(text: str) -> str:
    """An interval as one word."""
    return _BRACKETS.sub(lambda found: found.group().replace(" ", "_"), text)


def _fitting(found: Sequence[_Widths], room: int) -> list[int] | None:
    """The width of each column, the widest made narrower first; None where words would have to be cut."""
    widths = [w.natural for w in found]
    for least in ([w.phrases for w in found], [w.words for w in found]):
        while sum(widths) > room:
            wide = [i for i, width in enumerate(widths) if width > least[i]]
            if not wide:
                break
            widths[max(wide, key=lambda i: widths[i])] -= 1
    return widths if sum(widths) <= room else None


def print_fitted(
    console: Console, header: Sequence[str], rows: Sequence[Sequence[Text | str]], title: str = ""
) -> None:
    """Print a table in the width of the console. Brackets in it are no markup."""
    texts = [[cell if isinstance(cell, Text) else Text(str(cell)) for cell in row] for row in rows]
    columns = [[row[i] for row in texts] for i in range(len(header))]
    telling = [i == 0 or name in TELLING for i, name in enumerate(header)]
    found = [_widths(*of) for of in zip(header, columns, telling, strict=True)]
    wide = sum(w.natural for w in found) + GAPS[0] * (len(header) - 1) <= console.width
    gap = GAPS[0] if wide else GAPS[1]
    widths = _fitting(found, console.width - gap * (len(header) - 1))
    if widths is None:
        for line in _as_lines(header, texts, telling, title, console.width):
            console.print(line)
        return
    shown = Table(title=Text(title) if title else None, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False,
                  pad_edge=False, padding=(0, gap - 1, 0, 0))  # fmt: skip
    for i, (name, width) in enumerate(zip(header, widths, strict=True)):
        shown.add_column(Text(name), justify="left" if i == 0 or name in WORDS else "right", width=width)
    for row in texts:
        shown.add_row(*(_kept(cell, width) for cell, width in zip(row, widths, strict=True)))
    console.print(shown)
    console.print()


def _kept(cell: Text, width: int) -> Text:
    """The cell, an interval that does not fit beside its value on a line of its own where that holds it."""
    value, space, interval = cell.plain.partition(" (")
    if cell_len(cell.plain) > width >= max(cell_len(value), cell_len(interval) + 1) and space:
        return Text(f"{value}\n({interval}", style=cell.style)
    return cell


def _as_lines(
    header: Sequence[str], rows: Sequence[Sequence[Text]], telling: Sequence[bool], title: str, width: int
) -> Iterator[Text | Padding]:
    """Each row as what tells it apart, and below that every other value with its name."""
    if title:
        yield Text(title, style="italic")
    for row in rows:
        named = [(name, cell, tells) for name, cell, tells in zip(header, row, telling, strict=True) if cell.plain]
        yield from _filled([cell for _, cell, tells in named if tells], "  ", width)
        others = [Text(f"{name}: " if name else "").append_text(cell) for name, cell, tells in named if not tells]
        yield from (Padding(line, (0, 0, 0, INDENT)) for line in _filled(others, ", ", width - INDENT))
    yield Text()


def _filled(pieces: Sequence[Text], between: str, width: int) -> list[Text]:
    """As many pieces on each line as it has room for; none is broken that fits on one."""
    lines: list[Text] = []
    for piece in pieces:
        if lines and lines[-1].cell_len + len(between) + piece.cell_len <= width:
            lines[-1] = Text.assemble(lines[-1], between, piece)
        else:
            lines.append(piece)
    return lines
