"""Arrays between parent and worker: `.npz` files in the run's folder."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rnnbench.backends.base import Outputs
from rnnbench.params import Params
from rnnbench.workloads.base import Dataset, Split

# NumPy reads the header of an array by `ast.literal_eval`, which Python 3.11 can do in one thread at a time: where the
# garbage collector lets another thread in, both fail (github.com/python/cpython/issues/106905).
_READING = threading.Lock()


def save_problem(path: Path, params: Params, train: Split, **splits: Split) -> None:
    """What `prepare` of a worker reads: parameters, training rows, and further splits by name."""
    arrays = {f"param {name}": value for name, value in params.items()}
    for name, split in {"": train, **{f" {name}": split for name, split in splits.items()}}.items():
        arrays |= {f"inputs{name}": split.inputs, f"targets{name}": split.targets}
        if split.lengths is not None:
            arrays[f"lengths{name}"] = split.lengths
    _save(path, arrays)


def rows_in(arrays: Mapping[str, Any], split: str = "") -> Split:
    """The training rows, or those of a split, among the arrays that `save_problem` wrote."""
    name = f" {split}" if split else ""
    return Split(arrays[f"inputs{name}"], arrays[f"targets{name}"], arrays.get(f"lengths{name}"))


def splits_of(dataset: Dataset) -> dict[str, Split]:
    """The splits to look at after each epoch and at the end, without saving the same rows twice."""
    validation = {} if dataset.validation is None else {"validation": dataset.validation}
    return validation | {"test": dataset.test}


def save_outputs(path: Path, outputs: Outputs) -> None:
    """Outputs of a pass, for `load_outputs`."""
    _save(path, _named(outputs))


def digest_of(outputs: Outputs) -> str:
    """A digest of all arrays of a pass: equal for equal names, types, shapes and bits, and for nothing else."""
    found = hashlib.blake2b(digest_size=32)
    for name, value in sorted(_named(outputs).items()):
        array = np.asarray(value)
        found.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def _named(outputs: Outputs) -> dict[str, Any]:
    arrays: dict[str, Any] = {f"grad {name}": g for name, g in outputs.grads.items()}
    arrays |= {f"param {name}": p for name, p in outputs.params.items()}
    arrays |= {f"state {name}": s for name, s in outputs.states.items()}
    for name in ("loss", "logits", "accuracy"):
        value = getattr(outputs, name)
        if value is not None:
            arrays[name] = np.asarray(value)
    return arrays


def _save(path: Path, arrays: dict[str, Any]) -> None:
    """Write the whole file or none: a file that is there can be read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as stream:
        np.savez(stream, **arrays)
    os.replace(part, path)


def load(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name; several threads may ask at once."""
    with _READING, np.load(path) as file:
        return {name: file[name] for name in file.files}


def load_outputs(path: Path) -> Outputs:
    """Outputs as `save_outputs` wrote them."""
    arrays = load(path)

    def named(prefix: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}

    def scalar(name: str) -> float | None:
        return float(arrays[name]) if name in arrays else None

    return Outputs(
        loss=scalar("loss"),
        logits=arrays.get("logits"),
        states=named("state "),
        grads=named("grad "),
        params=named("param "),
        accuracy=scalar("accuracy"),
    )
