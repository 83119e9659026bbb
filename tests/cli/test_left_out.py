"""What cannot be done is left out and said; what can is done."""

from __future__ import annotations

import pytest

from rnnbench import backends
from rnnbench.api import seeds
from rnnbench.harness import footprint
from tests.calling import called


def test_numpy_computes_where_numba_is_switched_off(tmp_path):
    env = {"NUMBA_DISABLE_JIT": "1"}
    for command in (("seeds", "sentiment-toy"), ("train", "parity", "--epochs", "1")):
        result = called(*command, env=env, code=0)
        assert "numpy computes in place of numba: with NUMBA_DISABLE_JIT=1" in result.stderr
        assert "numpy" in result.stdout
    assert "in place" not in called("train", "parity", "--epochs", "1", "-b", "numba", env=env, code=3).output


def test_a_backend_that_is_not_installed_is_replaced_by_none_and_the_others_are_named(monkeypatch):
    real = backends.missing
    monkeypatch.setattr(backends, "missing", lambda name, env=None: "torch not installed; pip install it"
                        if name == "torch" else real(name, env))  # fmt: skip
    for command in (("seeds", "sentiment-toy"), ("train", "parity")):
        output = called(*command, "-b", "torch", code=3).output
        assert output == "Error: torch not installed; pip install it. Of what is here, -b numba or -b numpy does it\n"


def test_an_experiment_that_memory_does_not_hold_is_left_out_of_the_seeds(monkeypatch):
    monkeypatch.setattr(footprint, "free", lambda: 1 << 20)
    output = called("seeds", "imdb-200", "sentiment-toy", "-b", "numpy", code=0).output
    assert "left out" in output
    assert "GiB are free" in " ".join(output.split())
    assert "(10, 5, 2)" in output
    assert set(seeds.EXPERIMENTS) >= {"imdb-200", "sentiment-toy"}


def test_a_dry_run_says_what_is_unavailable_by_the_word_of_a_run():
    asked = ("run", "--dry-run", "-w", "parity", "-b", "numba,numpy", "--pass", "forward", "--quick")
    output = called(*asked, env={"NUMBA_DISABLE_JIT": "1"}, code=0).output
    assert "unavailable" in output
    assert "missing" not in output
    assert "1 launch of" in output


@pytest.mark.parametrize("layers", [1001, 10**8])
def test_more_layers_than_anybody_has_are_refused_at_once(layers):
    assert "'--layers'" in called("run", "--dry-run", "-w", "parity", "--layers", layers, code=2).output
