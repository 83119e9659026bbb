"""Runs beyond one machine, on `dask.distributed`: each problem on a machine of each kind. Nothing else imports Dask."""

from __future__ import annotations

from importlib.util import find_spec


def need_dask() -> None:
    """Raise ValueError, with the way out, where Dask is not installed."""
    if find_spec("distributed") is None:
        raise ValueError("Dask is not installed; for runs over a cluster: pip install 'rnnbench[dask]'")
