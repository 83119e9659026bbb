"""How fast can a recurrent network run on this machine, and whose implementation should I use?

    import rnnbench as rb

    mine = rb.Workload("mine", rb.Model(V=20_000, E=64, H=256, O=1), rb.Data(x, y), B=64)
    run = rb.run([mine, "imdb-50"], backends=["numba", "torch", "jax"], passes=["train_step"])
    run.ranking

The names below are imported when they are first used, so that `import rnnbench` takes no time.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # as of typing, which a file of the current folder may hide until `__main__` has begun

__version__ = "0.1.0"

_WHERE = {
    "api.python": ("run", "sweep", "verify", "train", "compare", "load", "session", "Run"),
    "workloads.base": ("Workload", "Dataset", "Source"),
    "model": ("Model", "Train", "Truncation"),
    "data": ("Data",),
    "backends.base": ("Backend",),
    "stream": ("Stream",),
}
_MODULE = {name: module for module, names in _WHERE.items() for name in names}

if TYPE_CHECKING:
    from typing import Any

    from rnnbench.api.python import Run as Run
    from rnnbench.api.python import compare as compare
    from rnnbench.api.python import load as load
    from rnnbench.api.python import run as run
    from rnnbench.api.python import session as session
    from rnnbench.api.python import sweep as sweep
    from rnnbench.api.python import train as train
    from rnnbench.api.python import verify as verify
    from rnnbench.backends.base import Backend as Backend
    from rnnbench.data import Data as Data
    from rnnbench.model import Model as Model
    from rnnbench.model import Train as Train
    from rnnbench.model import Truncation as Truncation
    from rnnbench.stream import Stream as Stream
    from rnnbench.workloads.base import Dataset as Dataset
    from rnnbench.workloads.base import Source as Source
    from rnnbench.workloads.base import Workload as Workload


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'rnnbench' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"rnnbench.{_MODULE[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE])
