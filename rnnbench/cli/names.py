"""Option types of the command line: names from a registry, and the nearest right ones for a wrong one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import click

from rnnbench import backends
from rnnbench.model import Truncation
from rnnbench.names import unknown
from rnnbench.units import MAX_PERCENT
from rnnbench.workloads.base import MADE_UP
from rnnbench.workloads.resolve import is_file, unknown_workload

MAX_SIZE = 1_000_000  # of what is swept or counted
MAX_LETTER = 2**31 - 1  # of one size of a problem: what memory holds is less, and is said with what it would need
MAX_LAYERS = 1000
MAX_SHOWN = 40  # letters of a wrong value
MAX_SEED = 2**32 - 1  # as the libraries take it
MAX_SECONDS = 10_000_000  # of a budget: months


def quoted(value: Any) -> str:
    """What was given, in quotes, shortened."""
    text = str(value)
    return repr(text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}...")


class Count(click.ParamType):
    """A whole number of a range."""

    name = "integer"

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).strip()
        number = int(text) if re.fullmatch(r"[+-]?[0-9]{1,20}", text) else None
        if number is None or not self.low <= number <= self.high:
            self.fail(f"{quoted(text)} is not a whole number from {self.low:,} to {self.high:,}", param, ctx)
        return number


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


class Names(click.ParamType):
    """Several names of a registry, separated by commas, each once, in the order given."""

    def __init__(self, one: Name) -> None:
        self.one, self.name, self.known = one, one.name, one.known

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return f"{self.name.upper()}[,...]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        names = [part.strip() for part in str(value).split(",") if part.strip()]
        if not names:
            self.fail(f"no {self.name} is named; known: {', '.join(self.known)}", param, ctx)
        return tuple(dict.fromkeys(self.one.convert(name, param, ctx) for name in names))

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        return self.one.shell_complete(ctx, param, incomplete)


class WorkloadName(Name):
    """The name of a built-in workload, or a file of the user's: rows.npz, mine.toml, mine.py:NAME."""

    def __init__(self, known: Sequence[str]) -> None:
        super().__init__("workload", known)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value not in self.known and not is_file(str(value)) and value != MADE_UP:
            self.fail(unknown_workload(str(value)), param, ctx)
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        return [*super().shell_complete(ctx, param, incomplete), CompletionItem(incomplete, type="file")]


class BackendName(Name):
    """The name of a backend, or a file and class of the user's: own_backend.py:CLASS."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if ".py:" not in str(value) and not str(value).endswith(".py"):
            return super().convert(value, param, ctx)
        try:
            return backends.add(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class FolderType(click.Path):
    """A path, absolute or from here. An empty one, as of a variable that is not set, is not the current folder."""

    def __init__(self, **rest: Any) -> None:
        super().__init__(path_type=Path, **rest)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the name of the folder is empty; give one, or . for the current folder", param, ctx)
        return super().convert(value, param, ctx)


class SizesType(click.ParamType):
    """`LOW:HIGH` (doubled from LOW on, and HIGH), `N,N,...`, or one number."""

    name = "sizes"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return "LOW:HIGH|N,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        low, colon, high = str(value).partition(":")
        try:
            sizes = self._doubled(int(low), int(high)) if colon else [int(part) for part in str(value).split(",")]
        except ValueError:
            self.fail(f"{quoted(value)} is neither LOW:HIGH, such as 8:1024, nor numbers, such as 8,64,100", param, ctx)
        wrong = [size for size in sizes if not 1 <= size <= MAX_SIZE]
        if wrong or not sizes:
            said = f"size {quoted(wrong[0])[1:-1]}" if wrong else f"no size between {low} and {high}"
            self.fail(f"{quoted(value)} has {said}; sizes from 1 to {MAX_SIZE:,}, the lower one first", param, ctx)
        return tuple(dict.fromkeys(sizes))

    @staticmethod
    def _doubled(low: int, high: int) -> list[int]:
        sizes = [low]
        while 0 < sizes[-1] < high <= MAX_SIZE:
            sizes.append(min(2 * sizes[-1], high))
        return sizes if low <= high <= MAX_SIZE else ([high] if low <= high else [])


class TruncationType(click.ParamType):
    """`WINDOW:STRIDE`, or `WINDOW` alone for equal ones."""

    name = "window:stride"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, Truncation):
            return value
        steps = Count(1, MAX_LETTER)
        first, colon, second = str(value).partition(":")
        window = steps.convert(first, param, ctx)
        try:
            return Truncation(window, steps.convert(second, param, ctx) if colon else window)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class PercentType(click.ParamType):
    """A part in percent, such as `5%`; the sign may be left out."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, float):
            return value
        try:
            percent = float(str(value).removesuffix("%"))
        except ValueError:
            self.fail(f"{quoted(value)} is not a number of percent, such as 5%", param, ctx)
        if not 0 < percent < 100:
            self.fail(f"{quoted(value)} has {percent:g} %; above 0 and below 100 is allowed", param, ctx)
        return percent / 100


class AccuracyType(click.ParamType):
    """A share of right answers: `0.8`, or in percent, `80%`."""

    name = "accuracy"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, float):
            return value
        text = str(value).strip()
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            self.fail(f"{quoted(value)} is no accuracy, such as 0.8 or 80%", param, ctx)
        if not 0 < share <= 1:
            self.fail(f"{quoted(value)} is not above 0 and at most 1; give 0.8 or 80% for eight of ten", param, ctx)
        return share


class DurationType(click.ParamType):
    """Seconds, or with units: `90`, `30s`, `10m`, `1h30m`."""

    name = "duration"
    units: ClassVar[dict[str, float]] = {"h": 3600.0, "m": 60.0, "s": 1.0}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, float):
            return value
        text = str(value).strip()
        parts = re.findall(r"([0-9]*\.?[0-9]+)([hms])", text) if len(text) <= MAX_SHOWN else []  # it takes the square
        if text and "".join(map("".join, parts)) == text:
            seconds = sum(float(number) * self.units[unit] for number, unit in parts)
        else:
            try:
                seconds = float(text)
            except ValueError:
                self.fail(f"{quoted(value)} is not a duration, such as 90, 30s, 10m or 1h30m", param, ctx)
        if not 0 < seconds < MAX_SECONDS:
            self.fail(f"{quoted(value)} is {seconds:g} s; above 0 and below {MAX_SECONDS:,} is allowed", param, ctx)
        return seconds


class GateType(click.ParamType):
    """`METRIC:PERCENT`, such as `median:5%`, where the sign may be left out, `inconclusive`, or both with a comma."""

    name = "metric:percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        return tuple(self._one(part.strip(), param, ctx) for part in str(value).split(","))

    def _one(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from rnnbench.analysis.compare import Gate, Verdict
        from rnnbench.analysis.stats import Metric

        if value == Verdict.INCONCLUSIVE:
            return Verdict.INCONCLUSIVE
        metric, _, percent = value.partition(":")
        if metric not in list(Metric):
            self.fail(unknown("metric", metric, [*Metric, Verdict.INCONCLUSIVE]), param, ctx)
        try:
            margin = float(percent.removesuffix("%"))
        except ValueError:
            self.fail(f"{quoted(value)} is not METRIC:PERCENT, such as median:5%", param, ctx)
        if not 0 < margin <= MAX_PERCENT:
            self.fail(f"{quoted(value)} has {margin:g} %; above 0 and at most {MAX_PERCENT:g} is allowed", param, ctx)
        return Gate(Metric(metric), margin / 100)
