"""A workload of one's own: is the sum of a row of numbers positive?

    python -m rnnbench run -w examples/own_workload.py:WORKLOAD -b numpy,numba --quick
    python -m rnnbench train examples/own_workload.py:WORKLOAD -T 40

`rows` is called for the length that is asked for, so that -T works; arrays alone, `rnnbench.Data(x, y)`, would do too.
"""

from __future__ import annotations

import numpy as np

import rnnbench as rb

N, N_TEST = 2_000, 400


def rows(source: rb.Source) -> rb.Dataset:
    """Rows (N, T, 1) of normal numbers, and for each whether its sum is positive."""
    x = np.random.default_rng(source.seed).standard_normal((N + N_TEST, source.T, 1), dtype=np.float32)
    y = (x.sum(axis=(1, 2)) > 0).astype(np.float32)
    return rb.Dataset(rb.Data(x[:N], y[:N]), rb.Data(x[N:], y[N:]), None, f"normal numbers, seed {source.seed}")


WORKLOAD = rb.Workload(
    "positive-sum", rb.Model(E=1, H=16, O=1), rows, B=20, T=20, rows=(N, N + N_TEST), train=rb.Train(clip_norm=1.0),
    summary="is the sum of a row of numbers positive?",
)  # fmt: skip
