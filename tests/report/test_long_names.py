"""Figures of made-up rows, whose names have all their sizes: every title and name has room."""

from __future__ import annotations

from dataclasses import replace

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from rnnbench.model import Pass
from rnnbench.report import plots
from rnnbench.report.data import ReportData
from tests.report.fake import BACKENDS, make

NAME = "made-up V20000 E64 H256 B64 T120"


@pytest.fixture(scope="module")
def data() -> ReportData:
    fake = make(("imdb-50",), BACKENDS, (Pass.FORWARD, Pass.TRAIN_STEP))
    records = [replace(r, case=replace(r.case, workload=NAME)) for r in fake.records]
    return ReportData(records, [], fake.machine, fake.run)


@pytest.mark.parametrize("name", ["time", "speedup", "break-even", "costs", "errors"])
def test_every_word_has_room(data, name):
    for page in plots.draw_figure(name, data):
        canvas = FigureCanvasAgg(page.figure)
        canvas.draw()
        renderer, axes = canvas.get_renderer(), page.figure.axes
        titles = [ax.title.get_window_extent(renderer) for ax in axes if ax.get_title() or ax.title.get_text()]
        titles += [ax._left_title.get_window_extent(renderer) for ax in axes if ax._left_title.get_text()]
        assert titles
        for i, box in enumerate(titles):
            assert not any(box.overlaps(other) for other in titles[i + 1 :])
        width = page.figure.get_figwidth() * page.figure.dpi
        for ax in axes:
            for text in ax.texts:
                assert text.get_window_extent(renderer).x1 <= width + 1, text.get_text()
