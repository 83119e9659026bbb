"""A section of a report, built once, and its renderers for Markdown and the terminal; `html` has that of a page.

A section has a title and blocks: texts, lists, tables (DataFrames of words), figures, and sections within it. What is
plain text in it is escaped here, so that no name or reason can break a table or be read as markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from rich.console import Console
from rich.text import Text
from tabulate import tabulate

from rnnbench.report.grid import print_fitted
from rnnbench.report.text import FOOTNOTES

if TYPE_CHECKING:
    import pandas as pd

# Tone of a piece of text -> its form in Markdown, and its style in the terminal.
TONES = {
    "": ("{}", ""),
    "lead": ("**{}**", "bold"),
    "best": ("**{}**", "bold green"),
    "good": ("{}", "green"),
    "unsure": ("{}", "yellow"),
    "wrong": ("{}", "red"),
    "absent": ("{}", "dim"),
    "severe": ("**{}**", "bold red"),
    "warning": ("**{}**", "yellow"),
    "note": ("{}", "dim"),
    "remedy": ("*{}*", "dim"),
}


class Toned(str):
    """Text with a tone, one of TONES."""

    tone: str

    def __new__(cls, text: str, tone: str) -> Toned:
        made = super().__new__(cls, text)
        made.tone = tone
        return made


class Markdown(str):
    """A paragraph that is Markdown already: how to read what stands above. Not for the terminal."""

    __slots__ = ()


@dataclass(frozen=True)
class Figure:
    """The pages of a figure, by its name; not for the terminal."""

    name: str


Item: TypeAlias = tuple[str, ...]  # a lead, then its text in pieces
Block: TypeAlias = "str | list[Item] | pd.DataFrame | Figure | Section"


@dataclass(frozen=True)
class Section:
    """One without blocks is left out. `brief` is what the terminal shows of it, None for all that it can show."""

    title: str
    blocks: Sequence[Block]
    brief: Sequence[Block] | None = None
    folded: bool = False  # on a page: behind its title
    keys: Mapping[str, str] = field(default_factory=dict)  # what the filters of a page know it by: network, cell, ...


Figures: TypeAlias = Mapping[str, Sequence[str]]  # name of a figure -> its pages, embedded


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> pd.DataFrame:
    """Words in rows and columns."""
    import pandas as pd

    return pd.DataFrame([list(row) for row in rows], columns=list(header), dtype=object)


def escape(text: str) -> str:
    """Text that stays in its cell and is read as it stands."""
    line = " ".join(text.split()).replace("\\", "\\\\")
    for sign in "|<*_`[]":
        line = line.replace(sign, f"\\{sign}")
    return line


def anchor(title: str) -> str:
    """What a link to a heading says, as GitHub has it: `where-the-time-goes`."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def tone_of(text: str) -> str:
    """The tone of a piece of text, one of TONES."""
    return getattr(text, "tone", "")


def _marked_up(text: str) -> str:
    return TONES[tone_of(text)][0].format(escape(text)) if text else ""


def footnotes(text: str) -> list[str]:
    """What the marks in a text mean."""
    return [f"{mark} {words}" for mark, words in FOOTNOTES.items() if mark in text]


def _table(frame: pd.DataFrame) -> str:
    rows = [[_marked_up(cell) for cell in row] for row in frame.itertuples(index=False, name=None)]
    align = ["left"] + ["right"] * (len(frame.columns) - 1)
    header = [escape(str(name)) for name in frame.columns]
    text = tabulate(rows, header, tablefmt="pipe", disable_numparse=True, colalign=align)
    return "\n\n".join([text, *(f"{note}." for note in footnotes(text))])


def markdown(sections: Iterable[Section], figures: Figures, level: int = 2) -> str:
    """The sections as paragraphs, each under its title."""
    parts: list[str] = []
    for section in sections:
        inner = [_block(block, figures, level) for block in section.blocks]
        text = "\n\n".join(part for part in inner if part)
        if section.folded and text:
            parts.append(f"<details><summary>{section.title}</summary>\n\n{text}\n\n</details>")
        elif text:
            parts += [f"{'#' * level} {escape(section.title)}", text] if section.title else [text]
    return "\n\n".join(parts)


def _block(block: Block, figures: Figures, level: int) -> str:
    if isinstance(block, Section):
        return markdown([block], figures, level + 1)
    if isinstance(block, Figure):
        return "\n\n".join(figures.get(block.name, ()))
    if isinstance(block, str):
        return str(block) if isinstance(block, Markdown) else _marked_up(block)
    return "\n".join(_item(*item) for item in block) if isinstance(block, list) else _table(block)


def _item(lead: str, *pieces: str) -> str:
    text = " ".join(map(_marked_up, filter(None, pieces)))
    lead = _marked_up(lead if tone_of(lead) else Toned(lead, "lead")) if lead else ""
    return f"- {': '.join(filter(None, (lead, text)))}"


def _text(text: str, tone: str = "") -> Text:
    return Text(text, style=TONES[tone_of(text) or tone][1])  # no string: a reason may hold brackets, which are markup


def print_sections(console: Console, sections: Iterable[Section], *, soft_wrap: bool = False) -> None:
    """Print the sections: texts as lines, tables under their titles, and what the daggers in them mean."""
    seen = ""
    for section in sections:
        for title, block in _shown(section, section.title):
            if isinstance(block, Text):
                console.print(block, soft_wrap=soft_wrap)
            else:
                rows = [[*map(_text, row)] for row in block.itertuples(index=False, name=None)]
                seen += "".join(cell.plain for row in rows for cell in row)
                print_fitted(console, [*map(str, block.columns)], rows, title)
    for note in footnotes(seen):
        console.print(Text(note, style="dim"))


def _shown(section: Section, title: str) -> Iterator[tuple[str, Text | pd.DataFrame]]:
    """Lines and tables, each with the title that it stands under."""
    for block in section.blocks if section.brief is None else section.brief:
        if isinstance(block, Section):
            yield from _shown(block, f"{block.title}: {title[0].lower()}{title[1:]}" if title else block.title)
        elif isinstance(block, str):
            if not isinstance(block, Markdown):
                yield title, _text(block)
        elif isinstance(block, list):
            for lead, *pieces in block:
                start = [_text(lead, "lead").append(":", "not bold")] if lead else []
                yield title, Text(" ").join([*start, *map(_text, filter(None, pieces))])
        elif not isinstance(block, Figure):
            yield title, block
