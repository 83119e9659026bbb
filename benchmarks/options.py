"""What the commands of this folder share: percentages, effort, files of JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from duel import Effort

if TYPE_CHECKING:
    from verdict import Unit


class Percent(click.ParamType):
    """Such as `10%`, as a fraction."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, float):
            return value
        try:
            if not str(value).endswith("%"):
                raise ValueError
            number = float(str(value)[:-1]) / 100
        except ValueError:
            self.fail(f"{value!r} is not a percentage, such as 10%", param, ctx)
        if not 0 < number <= 10:
            self.fail(f"{value} is outside the limits; choose more than 0% and at most 1000%", param, ctx)
        return number


PERCENT = Percent()


def effort_of(launches: int, rounds: int, cases: int, unit: Unit) -> Effort:
    """How long to look. Raises UsageError for fewer ratios than an interval of so many cases needs."""
    from verdict import Unit, ratios_for

    least = ratios_for(cases)
    if unit is Unit.LAUNCH and launches < least:
        raise click.UsageError(
            f"{launches} launches are {launches} ratios a case; intervals of {cases} cases by launch need {least}: "
            "raise --launches, or choose fewer cases"
        )
    if launches * rounds < least:
        raise click.UsageError(
            f"{launches} launches of {rounds} rounds are {launches * rounds} ratios a case; intervals of {cases} cases "
            f"need {least}: raise --rounds, or choose fewer cases with -k"
        )
    return Effort(launches, rounds)


def writable(path: Path | None) -> None:
    """Make the folder of a file and open it, to know before minutes of measuring. Raises OSError."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a").close()


def write(path: Path | None, content: dict[str, Any]) -> None:
    """Write a file of JSON, or nothing."""
    if path is not None:
        path.write_text(json.dumps(content) + "\n")
