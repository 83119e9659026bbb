"""The notebooks of examples/, made from pages of the documentation: run it again when a page has changed.

    python docs/notebooks.py

A page is the one home of its words and its code. Text becomes Markdown cells; a `pycon` block becomes code cells, which
end after each statement whose result the page shows. The results are left out: running a notebook makes them.
"""

from __future__ import annotations

import doctest
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = {  # name -> its pages
    "tutorial.ipynb": sorted((ROOT / "docs" / "tutorial").glob("*.md")),
    "own_network.ipynb": [ROOT / "docs" / "guides" / "own_network.md"],
}
TO_NOTEBOOK = re.compile(r"^[^\n]*\.ipynb\)\.\n\n", re.MULTILINE)  # the line that leads a reader here
BLOCK = re.compile(r"^```pycon\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(\]\()(?!https?:)([^):#]+)")


def examples(page: Path) -> list[doctest.Example]:
    """The statements of a page's `pycon` blocks, with the output that it shows and the line that they stand in."""
    text = page.read_text(encoding="utf-8")
    lines = [""] * text.count("\n")
    for block in BLOCK.finditer(text):
        first = text.count("\n", 0, block.start(1))
        for at, line in enumerate(block[1].splitlines(), first):
            lines[at] = line
    return doctest.DocTestParser().get_examples("\n".join(lines), str(page))


def _cells_of(page: Path) -> Iterator[tuple[str, str]]:
    """Kind and source of each cell. Relative links lead from examples/."""

    def moved(link: re.Match[str]) -> str:
        return link[1] + os.path.relpath(page.parent / link[2], ROOT / "examples")

    text, at = TO_NOTEBOOK.sub("", page.read_text(encoding="utf-8")), 0
    parser = doctest.DocTestParser()
    for block in [*BLOCK.finditer(text), None]:
        words = text[at : block.start() if block else None].strip()
        if words:
            yield "markdown", LINK.sub(moved, words)
        if block is None:
            return
        at, lines = block.end(), []
        for example in parser.get_examples(block[1]):
            lines.append(example.source + "\n" * example.source.startswith("def "))
            if example.want:
                yield "code", "".join(lines).rstrip("\n")
                lines = []
        if lines:
            yield "code", "".join(lines).rstrip("\n")


def notebook(pages: list[Path]) -> str:
    """The pages as one notebook, version 4.5, without results."""
    cells = []
    for number, (kind, source) in enumerate(cell for page in pages for cell in _cells_of(page)):
        cell = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": source.splitlines(keepends=True)}
        cells.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    whole = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name, pages in NOTEBOOKS.items():
        (ROOT / "examples" / name).write_text(notebook(pages), encoding="utf-8")
