"""Files that are handed in: what is none is said, and neither read for ever nor waited for."""

from __future__ import annotations

import os

import pytest

from rnnbench.machine.interference import Neighbours
from rnnbench.records import store
from tests.calling import called, stored
from tests.report.fake import case, record

pytestmark = pytest.mark.timeout(60)
MAKES = {"pipe": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"), "folder": os.mkdir}


@pytest.fixture
def folder(tmp_path):
    return stored(tmp_path / "run", [record(case(), "numpy", [1e-3])], {"machine_id": "m"})


@pytest.mark.parametrize("name", [store.RECORDS, store.CURVES, store.RUN, store.MACHINE])
@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_what_is_no_file_in_a_run_is_one_sentence(folder, name, make):
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    with pytest.raises(store.StoreError, match="and not a file"):
        store.load_run(folder)
    for command in (("report", folder), ("compare", folder, folder)):
        result = called(*command, code=4)
        assert result.output.startswith("Error: ")
        assert result.output.count("\n") == 1


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_noise_that_is_no_file_is_one_sentence(folder, tmp_path, make):
    (tmp_path / "aa").mkdir()
    make(tmp_path / "aa" / "noise.json")
    result = called("compare", folder, folder, "--noise", tmp_path / "aa", code=4)
    assert "and not a file" in result.output


def test_a_pipe_among_the_neighbours_is_nobody(tmp_path):
    os.mkfifo(tmp_path / "x.run")
    with Neighbours("a", tmp_path) as a:
        assert a.last == []
