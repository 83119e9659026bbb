"""A layer is apart from the model: more layers are more records, so its code reads nothing that is the model's."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from rnnbench.kernels import cpu
from rnnbench.kernels.cpu.pass_record import ARRAYS, INTEGERS, LAYER_ARRAYS, LAYER_INTEGERS

FOLDER = Path(cpu.__file__).parent
LAYER = ("cell", "gated", "layer_backward", "layer_forward", "layout")


def tree(module: str) -> ast.Module:
    return ast.parse((FOLDER / f"{module}.py").read_text())


def fields(module: str) -> set[str]:
    """What a module reads or writes of the record `c`."""
    attributes = (node for node in ast.walk(tree(module)) if isinstance(node, ast.Attribute))
    return {node.attr for node in attributes if isinstance(node.value, ast.Name) and node.value.id == "c"}


@pytest.mark.parametrize("module", LAYER)
def test_a_layer_reads_a_layer_only(module):
    assert fields(module) <= {*LAYER_INTEGERS, *LAYER_ARRAYS}
    imported = {node.module for node in ast.walk(tree(module)) if isinstance(node, ast.ImportFrom)}
    for model in ("model", "passes", "losses", "optimizer", "unique_tokens"):
        assert f"{cpu.__name__}.{model}" not in imported


def test_the_model_reads_what_a_layer_may_not():
    """What the test above looks for is there to be found."""
    assert fields("model") & ({*INTEGERS, *ARRAYS} - {*LAYER_INTEGERS, *LAYER_ARRAYS})
    assert "h" in fields("layer_forward")
