"""Dense rows: of any size, out of one stretch of numbers."""

from __future__ import annotations

import numpy as np

from rnnbench.data import check_data
from rnnbench.model import DType
from rnnbench.sweep import Sizes
from rnnbench.workloads import dense


def test_every_size_reads_the_same_numbers_without_a_copy():
    problems = [dense.problem_of(sizes, None, DType.FLOAT32) for sizes in (Sizes(4, 2, 3), Sizes(8, 64, 100))]
    numbers = dense.make(problems, seed=3)
    for problem in problems:
        rows = numbers.rows(problem)
        assert rows.inputs.shape == (20 * problem.B, problem.T, problem.model.E)
        assert np.shares_memory(rows.inputs, numbers.inputs)
        assert set(np.unique(rows.targets)) == {0.0, 1.0}
        check_data(problem, rows)
    assert abs(float(numbers.inputs.std()) - dense.INPUT_SCALE) < 1e-2
    again = dense.make(problems, seed=3)
    assert (again.inputs == numbers.inputs).all()
    assert not (dense.make(problems, seed=4).inputs == numbers.inputs).all()


def test_few_batches_are_staged_where_one_is_large():
    wide = dense.problem_of(Sizes(1024, 128, 100), None, DType.FLOAT32)
    assert dense.batches_of(wide) == 1
    assert dense.batches_of(dense.problem_of(Sizes(1024, 128, 100), 64, DType.FLOAT32)) == 10
    assert dense.batches_of(dense.problem_of(Sizes(1, 1, 1), None, DType.FLOAT32)) == 20


def test_sizes_belong_to_the_name_and_not_to_the_workload():
    problem = dense.problem_of(Sizes(16, 2, 5), 3, DType.FLOAT64)
    assert problem.workload == "dense"
    assert problem.name == "dense E3 H16 B2 T5"
    assert problem.model.shapes["W_xh"] == (3, 16)
