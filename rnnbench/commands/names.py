"""Option types of the command line: names from a registry, and the nearest right ones for a wrong one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

import click

from rnnbench.model import Truncation


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """One sentence for an unknown name: the nearest right ones, or all."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names)}"
    return f"there is no {kind} {name!r}; {hint}"


class Name(click.ParamType):
    """One name of a registry."""

    def __init__(self, kind: str, known: Sequence[str]) -> None:
        self.name, self.known = kind, known

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return self.name.upper()

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value not in self.known:
            self.fail(unknown(self.name, str(value), self.known), param, ctx)
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(name) for name in self.known if name.startswith(incomplete)]


class Names(Name):
    """Several names of a registry, separated by commas, each once, in the order given."""

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return f"{self.name.upper()}[,...]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        names = [part.strip() for part in str(value).split(",") if part.strip()]
        if not names:
            self.fail(f"no {self.name} is named; known: {', '.join(self.known)}", param, ctx)
        return tuple(dict.fromkeys(super(Names, self).convert(name, param, ctx) for name in names))


class TruncationType(click.ParamType):
    """`WINDOW:STRIDE`, or `WINDOW` alone for equal ones."""

    name = "window:stride"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, Truncation):
            return value
        window, _, stride = str(value).partition(":")
        try:
            return Truncation(int(window), int(stride or window))
        except ValueError as error:
            said = str(error) if "truncation" in str(error) else f"{value!r} is not WINDOW:STRIDE, such as 20:5"
            self.fail(said, param, ctx)
