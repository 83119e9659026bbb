"""The named tasks. A registry of names; a workload's data is made or read only when asked for."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rnnbench.workloads.base import Workload

REGISTRY: dict[str, str] = {
    "parity": "rnnbench.workloads.parity:PARITY",
    "running-parity": "rnnbench.workloads.parity:RUNNING_PARITY",
    "imdb-50": "rnnbench.workloads.imdb:IMDB_50",
    "imdb-200": "rnnbench.workloads.imdb:IMDB_200",
    "imdb-200-pre": "rnnbench.workloads.imdb:IMDB_200_PRE",
    "imdb-200-lengths": "rnnbench.workloads.imdb:IMDB_200_LENGTHS",
    "imdb-synthetic-50": "rnnbench.workloads.synthetic:IMDB_SYNTHETIC_50",
    "imdb-synthetic-200": "rnnbench.workloads.synthetic:IMDB_SYNTHETIC_200",
    "imdb-synthetic-200-pre": "rnnbench.workloads.synthetic:IMDB_SYNTHETIC_200_PRE",
    "imdb-synthetic-200-lengths": "rnnbench.workloads.synthetic:IMDB_SYNTHETIC_200_LENGTHS",
}


def get(name: str) -> Workload:
    """The workload of that name. Raises KeyError for an unknown one."""
    module, _, attribute = REGISTRY[name].partition(":")
    workload: Workload = getattr(importlib.import_module(module), attribute)
    return workload if workload.origin else replace(workload, origin=name)
