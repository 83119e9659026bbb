"""A directive for Sphinx: every command's `--help`, as click prints it."""

from __future__ import annotations

import click
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from rnnbench.cli import main

WIDTH = 88
PROGRAM = "python -m rnnbench"


def help_of(name: str) -> str:
    """The help of a command."""
    context = click.Context(main, info_name=PROGRAM, terminal_width=WIDTH)
    return main.commands[name].get_help(click.Context(main.commands[name], context, name, terminal_width=WIDTH))


class CommandLine(SphinxDirective):
    """A section for each command: its name, and its help."""

    def run(self) -> list[nodes.Node]:
        text = "\n".join(f"## {name}\n\n```text\n{help_of(name)}\n```\n" for name in main.commands)
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True}
