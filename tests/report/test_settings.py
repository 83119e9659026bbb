"""Figures are of our own style alone, whatever the user's Matplotlib is told."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl

from rnnbench.report import plots
from rnnbench.report.data import ReportData
from rnnbench.report.style import load_matplotlib
from tests.report.fake import make

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = """backend: NoSuchBackend
text.usetex: True
savefig.bbox: tight
font.family: NoSuchFont
axes.grid: True
lines.linewidth: 9
axes.prop_cycle: cycler("color", ["r"])
axes.titlesize: of-no-size
no.such.key: 3
"""
DRAW = f"""import sys
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from rnnbench.report.style import load_matplotlib
load_matplotlib()
from tests.report.test_settings import drawn
print(drawn(Path(sys.argv[1])))
"""


def drawn(folder: Path) -> str:
    """The checksum of a figure."""
    made = make(("parity",), ("numpy", "numba"))
    data = ReportData(made.records, made.epochs, {}, {}, None)
    page, *_ = plots.draw_figure("errors", data)
    return hashlib.sha256(plots.save(folder, page)[0].read_bytes()).hexdigest()


def test_settings_of_the_user_change_no_figure(tmp_path):
    before = drawn(tmp_path / "plain")
    with mpl.rc_context({"axes.grid": True, "lines.linewidth": 9, "text.usetex": True, "savefig.dpi": 30}):
        assert drawn(tmp_path / "own") == before
        assert mpl.rcParams["lines.linewidth"] == 9  # and is the user's again


def test_no_setting_keeps_a_figure_from_being_drawn(tmp_path):
    (tmp_path / "matplotlibrc").write_bytes(SETTINGS.encode() + b"\xff\xfe")
    done = subprocess.run(
        [sys.executable, "-c", DRAW, "figures"], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"MPLBACKEND": "module://of_a_notebook.backend", "DISPLAY": ""}, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.strip() == drawn(tmp_path / "plain")
    assert (tmp_path / "figures").is_dir()  # the current folder is as it was


def test_what_is_imported_already_stays(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    assert load_matplotlib() is mpl
    assert os.environ["MPLBACKEND"] == "agg"
