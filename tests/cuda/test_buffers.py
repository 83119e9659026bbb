"""How large the buffers are: as large as what uses them, and no larger."""

from __future__ import annotations

import math

import pytest

from rnnbench.backends.cuda import device_sizes
from rnnbench.kernels.cuda.buffers import work_shapes
from rnnbench.kernels.cuda.plan import LaunchPlan
from rnnbench.model import DType, Head
from tests.cuda.conftest import TINY
from tests.helpers import small_problem


def shapes_of(plan: LaunchPlan, **sizes) -> dict[str, tuple[int, ...]]:
    """Of a problem in float32."""
    return work_shapes(device_sizes(small_problem(**{"dtype": DType.FLOAT32, **sizes})), plan, learns=True)


@pytest.mark.parametrize(
    ("sizes", "steps", "outputs"),
    [
        # a sum has parts for about 264 blocks, each of a tile of 128, 64 or 32 a side; a wide one has a single part
        ({"B": 32, "T": 200, "E": 128, "H": 128, "O": 1, "V": 20_000}, (50, 257 * 128), (1, 129)),
        ({"B": 32, "T": 200, "E": 128, "H": 128, "O": 10_000, "V": 20_000}, (50, 257 * 128), (1, 129 * 10_000)),
        (
            {"B": 32, "T": 200, "E": 128, "H": 128, "O": 10_000, "V": 20_000, "head": Head.EVERY},
            (50, 257 * 128),
            (1, 129 * 10_000),
        ),
        ({"B": 32, "T": 200, "E": 16, "H": 16, "O": 2, "V": None, "head": Head.EVERY}, (100, 33 * 16), (200, 17 * 2)),
        ({"B": 1, "T": 1, "E": 1024, "H": 1024, "O": 1, "V": None}, (1, 2049 * 1024), (1, 1025)),
    ],
    ids=["imdb", "wide head", "wide head, every step", "narrow, every step", "one step"],
)
def test_parts_of_each_sum(sizes, steps, outputs):
    shapes = shapes_of(LaunchPlan(), **sizes)
    assert shapes["parts"] == steps
    assert shapes["head_parts"] == outputs


def test_a_wide_head_costs_the_recurrence_nothing():
    """H 128, O 10 000: 11 MiB, where one buffer for both sums would take 50 parts of 5 MB."""
    shapes = shapes_of(LaunchPlan(), B=32, T=200, E=128, H=128, O=10_000, V=20_000)
    assert 4 * sum(math.prod(shapes[name]) for name in ("parts", "head_parts")) == 11_739_200


@pytest.mark.parametrize("plan", [LaunchPlan(), LaunchPlan(**TINY)], ids=["usual", "tiny"])
def test_no_batch_and_no_first_step_needs_more_parts(plan):
    """Of a short batch, or one whose losses reach back to step `first`: as `passes` cuts its sums."""
    B, T, E, H, O = 9, 12, 3, 6, 4
    shapes = shapes_of(plan, B=B, T=T, E=E, H=H, O=O, V=None, head=Head.EVERY)
    for b in range(1, B + 1):
        for first in range(T):
            assert plan.chunks((T - first) * b, E + H + 1, H, "float32") <= shapes["parts"][0]
        assert plan.chunks(T * b, H + 1, O, "float32") <= shapes["head_parts"][0]


@pytest.mark.parametrize(
    ("rows", "columns", "dtype", "split", "micro"),
    [
        (6400, 32, "float32", False, 2),  # imdb-200: enough tiles for all multiprocessors
        (3200, 512, "float32", False, 8),
        (3200, 512, "float64", False, 4),
        (1, 1, "float32", False, 2),
        (257, 128, "float32", True, 8),
        (33, 16, "float32", True, 4),
        (17, 2, "float32", True, 2),
    ],
)
def test_sums_of_a_thread_by_the_shape_of_a_product(rows, columns, dtype, split, micro):
    assert LaunchPlan().micro(rows, columns, dtype, split) == micro
