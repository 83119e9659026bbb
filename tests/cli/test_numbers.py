"""Every number of every option: out of range, NaN and infinity are told in a sentence that names the option."""

from __future__ import annotations

import click
import pytest

from rnnbench.cli import main
from rnnbench.cli.names import AccuracyType, Count, DurationType, GateType, PercentType, SizesType, TruncationType
from tests.calling import called

NUMBERS = (AccuracyType, Count, DurationType, GateType, PercentType, SizesType, TruncationType)
WRONG = ("nan", "inf", "-inf", "1e400", "-1", "9" * 30, "9" * 5000, "0x10")
BEFORE = {GateType: "median:"}  # what a number of an option stands behind


def options() -> list[tuple[str, click.Option]]:
    every = [(name, param) for name, command in main.commands.items() for param in command.params]
    return [(name, param) for name, param in every if isinstance(param, click.Option)]


FOUND = [(name, option) for name, option in options() if isinstance(option.type, NUMBERS)]


def test_no_option_takes_numbers_of_another_kind():
    types = {type(option.type) for _, option in options()}
    numeric = (click.types.IntParamType, click.types.FloatParamType)
    assert not [kind for kind in types if issubclass(kind, numeric)]
    assert {type(option.type) for _, option in FOUND} == set(NUMBERS)
    assert {"seed", "timeout", "precision", "layers", "T", "B", "V", "budget"} <= {str(o.name) for _, o in FOUND}


@pytest.mark.parametrize(("command", "option"), FOUND, ids=[f"{name} {option.opts[0]}" for name, option in FOUND])
def test_a_number_that_cannot_be_is_told_by_its_option(command, option):
    for value in WRONG:
        result = called(command, f"{option.opts[0]}={BEFORE.get(type(option.type), '')}{value}"
                        if option.opts[0].startswith("--") else f"{option.opts[0]}{value}")  # fmt: skip
        assert result.exit_code == 2, (value, result.output)
        assert option.opts[0] in result.output
        assert result.output.count("\n") <= 3
        assert len(result.output) < 600


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_the_numbers_at_the_ends_are_taken(seed):
    called("run", "--dry-run", "-w", "parity", "-b", "numpy", "--seed", seed, "--timeout", "0.5", code=0)
