"""The sweep command: what it takes, what it refuses, and a small one from the command line to the pictures."""

from __future__ import annotations

import json

import pytest

from rnnbench.api.sweep import DEFAULT_AXES, sweep_of, swept_workloads
from rnnbench.model import Model
from rnnbench.records import store
from rnnbench.records.record import turns_in
from rnnbench.sizes import Sizes
from rnnbench.workloads.made_up import made_up
from tests.calling import called


def invoke(*arguments: str) -> tuple[int, str]:
    result = called("sweep", *arguments)
    return result.exit_code, " ".join(result.output.split())


def test_one_size_moves_the_centre_and_several_are_swept():
    sweep = sweep_of({"H": (8, 16), "B": (4,), "T": None}, None, False)
    assert (sweep.H, sweep.B, sweep.T) == ((8, 16), (), ())
    assert sweep.centre == Sizes(128, 4, 100)
    rest = sweep_of({"H": (8,), "B": None, "T": None}, None, False)
    assert (rest.H, rest.centre.H) == ((), 8)
    assert all(getattr(rest, axis) == DEFAULT_AXES[axis] for axis in "BT")


@pytest.mark.parametrize(
    ("asked", "sizes"),
    [("8:64", (8, 16, 32, 64)), ("8:50", (8, 16, 32, 50)), ("7,3,3", (3, 7)), ("1:1000000", None), ("2:3", (2, 3))],
)
def test_sizes_as_they_are_written(asked, sizes):
    code, text = invoke("--H", asked, "--pass", "forward", "-b", "numpy", "--dry-run")
    assert code == 0, text
    cases = text.partition("left out: ")[0].split()  # what memory does not hold is said after them
    found = [int(word[1:]) for word in cases if word.startswith("H") and word[1:].isdigit()]
    assert found == sorted(found)
    assert found == list(sizes) if sizes else (found[0], found[-1], len(found)) == (1, 1_000_000, 21)


def test_layers_and_directions_of_a_sweep_are_in_the_names_and_in_the_operations():
    asked = ["--H", "8,16", "--B", "4", "--T", "5", "--pass", "forward", "-b", "numpy", "--dry-run"]
    code, text = invoke(*asked, "--layers", "2", "--bidirectional", "--cell", "lstm")
    assert code == 0, text
    assert "made-up lstm L2 bidirectional E8 H8 B4 T5 forward float32" in text
    flops = 2 * 4 * (5 * 2 * 4 * 16 * ((16 + 16) + (32 + 16)) + 32)
    assert f"{flops / 1e6:.3f}"[:4] in text.partition("H16 B4 T5 forward float32")[2]


def test_an_interrupt_ends_the_sweeps_of_all_cells(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("rnnbench.cli.sweep._execute", lambda plan, folder, *_, **__: seen.append(folder.name) or 130)
    asked = ["--H", "4,8", "--B", "2", "--T", "3", "-b", "numpy", "--pass", "forward", "--cell", "gru,lstm"]
    assert invoke(*asked, "-o", str(tmp_path / "cells"))[0] == 130
    assert seen == ["gru"]


@pytest.mark.usefixtures("no_figures")
def test_several_cells_are_swept_one_after_the_other_each_in_its_folder(tmp_path):
    asked = ["--H", "4,8", "--B", "2", "--T", "3", "-b", "numpy", "--pass", "forward", "--cell", "gru,lstm", "--quick"]
    code, text = invoke(*asked, "-o", str(tmp_path / "cells"))
    assert code == 0, text
    for cell in ("gru", "lstm"):
        turns = turns_in(store.load_run(tmp_path / "cells" / cell).records)
        assert {r.case.model.cell for r in turns} == {cell}
        assert {r.case.model.H for r in turns} == {4, 8}
    code, text = invoke(*asked, "-o", str(tmp_path / "cells"))
    assert code == 4
    assert "holds gru, lstm; choose another folder with -o" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--H", "8:x"], "'8:x' is neither LOW:HIGH, such as 8:1024, nor numbers"),
        (["--H", "0,8"], "has size 0; sizes from 1 to 1,000,000"),
        (["--B", "9:3"], "no size between 9 and 3"),
        (["--T", "5000000:99999999999"], "sizes from 1 to 1,000,000"),
        (["--H", "5", "--B", "5", "--T", "5"], "no axis is swept"),
        (["--B", "1", "--grid"], "a grid needs more than one size of H and of B"),
        (["--pass", "epoch"], "a sweep has no epoch"),
        (["--E", "0"], "'0' is not a whole number from 1 to"),
        (["-b", "nunba"], "did you mean numba"),
        (["--threads", "999"], "--threads 999 is more than the"),
        (["--H", "100000", "--B", "1000,100000", "-b", "numpy"], "GiB are free; take smaller sizes"),
    ],
)
def test_wrong_options_get_one_sentence(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, text = invoke(*arguments)
    assert code == 2, text
    assert words in text


def test_inputs_are_as_wide_as_the_state_only_where_they_are_dense_and_made_up():
    dense, tokens = made_up(Model(E=1, H=1, O=1)), made_up(Model(V=50, E=6, H=1, O=1))
    axes = {"H": (8, 16), "B": None, "T": None}
    assert [w.model.E for w in swept_workloads(sweep_of(axes, None, False, dense), dense)] == [8, 16]
    assert [w.model.E for w in swept_workloads(sweep_of(axes, None, False, tokens), tokens)] == [6, 6]
    assert [w.model.E for w in swept_workloads(sweep_of(axes, 3, False, dense), dense)] == [3, 3]


def test_a_small_sweep_from_the_command_line_to_the_pictures(tmp_path):
    folder = tmp_path / "run"
    code, text = invoke("--H", "2,3", "--B", "1,2", "--T", "3", "--grid", "-b", "numpy", "--quick", "-o", str(folder))
    assert code == 0, text
    assert "H3 B2 T3 gradient: numpy" in text
    loaded = store.load_run(folder)
    timed = [r for r in turns_in(loaded.records) if r.samples_ns]
    # Two sizes of H at B 32, two of B at H 128, and four of the grid; two passes; one round.
    assert len(timed) == 8 * 2
    assert all(r.case.workload.startswith("made-up ") and r.flops and r.share_of_peak for r in timed)
    for name in ("sweep-time", "sweep-share", "crossover"):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 1000
    assert json.loads((folder / store.RUN).read_text())["plan"]["sweep"]["grid"]

    kept = (folder / store.RECORDS).read_bytes().splitlines(keepends=True)
    (folder / store.RECORDS).write_bytes(b"".join(kept[: len(kept) // 2]))
    code, text = invoke("--resume", str(folder))
    assert code == 0, text
    again = [(r.case, r.backend, r.round) for r in turns_in(store.load_run(folder).records) if r.samples_ns]
    assert len(again) == len(set(again)) == 8 * 2
