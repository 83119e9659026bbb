"""Made-up rows: of any size, out of one stretch of numbers, and as every loss and head wants them."""

from __future__ import annotations

import numpy as np
import pytest

from rnnbench.data import check_data
from rnnbench.model import DType, Head, Loss, Model
from rnnbench.workloads import made_up
from rnnbench.workloads.base import Source


def rows_of(workload, seed=3):
    return workload.load(Source(T=workload.T, seed=seed)).train


def test_every_size_reads_the_same_numbers_without_a_copy():
    found = [made_up.made_up(Model(E=E, H=E, O=1), B, T) for E, B, T in ((4, 2, 3), (8, 64, 100))]
    rows = [rows_of(workload) for workload in found]
    for workload, split in zip(found, rows, strict=True):
        assert split.inputs.shape == (20 * workload.B, workload.T, workload.model.E)
        assert set(np.unique(split.targets)) == {0.0, 1.0}
        check_data(workload.spec.problem(DType.FLOAT32), split)
    assert np.shares_memory(rows[0].inputs, rows[1].inputs)
    assert abs(float(rows[1].inputs.std()) - made_up.INPUT_SCALE) < 1e-2
    first = rows[1].inputs.copy()
    assert not (rows_of(found[1], seed=4).inputs == first).all()
    assert (rows_of(found[1], seed=3).inputs == first).all()


def test_few_batches_are_staged_where_one_is_large():
    assert made_up.batch_count(Model(E=1024, H=1024, O=1), 128, 100) == 1
    assert made_up.batch_count(Model(E=64, H=1024, O=1), 128, 100) == 10
    assert made_up.batch_count(Model(E=1, H=1, O=1), 1, 1) == 20


@pytest.mark.parametrize("loss", list(Loss))
@pytest.mark.parametrize("head", list(Head))
@pytest.mark.parametrize("V", [None, 7])
def test_rows_fit_every_loss_and_head(loss, head, V):
    workload = made_up.made_up(Model(V=V, E=3, H=4, O=3, head=head, loss=loss), 2, 5)
    check_data(workload.spec.problem(DType.FLOAT64), rows_of(workload))


def test_the_name_has_the_sizes():
    assert made_up.made_up(Model(E=3, H=16, O=1), 2, 5).name == "made-up E3 H16 B2 T5"
    assert made_up.made_up(Model(V=9, E=3, H=16, O=2, head=Head.EVERY), 2, 5).name == "made-up V9 E3 H16 O2 B2 T5 every"
    assert made_up.made_up(Model(E=3, H=16, O=1), 2, 5).resized(H=8, T=7).name == "made-up E3 H8 B2 T7"
