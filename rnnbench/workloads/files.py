"""A user's own workload from a file: `rows.npz`, `mine.toml` or `mine.py:NAME`; and rows as a run keeps them.

`rows.npz` holds arrays `x` and `y`, optionally `x_test` and `y_test`, and `lengths` of the rows (and `lengths_test`)
where not each has all steps. Whole numbers x (N, T) are tokens; other x are
dense inputs, (N, T) or (N, T, E). From y come head, loss and outputs: one target a row (N,) or O of them (N, O) for the
last step, (N, T) or (N, T, O) for every step; whole numbers above 1 are classes, 0 and 1 are for binary cross-entropy,
and all else is squared error.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import tomllib
import traceback
import zipfile
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from rnnbench.data import ROWS, Data, Inputs
from rnnbench.files import open_file, read_file
from rnnbench.model import Head, Loss, Model, StepSum, Train
from rnnbench.names import unknown
from rnnbench.params import Init
from rnnbench.workloads import made_up
from rnnbench.workloads.base import Spec, Workload
from rnnbench.workloads.made_up import B, E, H

NEEDED, OPTIONAL = ("x", "y"), ("x_test", "y_test", "lengths", "lengths_test")
MAX_TOML = 1 << 20

Say = Callable[[str], None]


def read_arrays(path: Path, say: Say = lambda text: None) -> dict[str, Inputs]:
    """`x`, `y` and what there is of `lengths`, `x_test`, `y_test`, `lengths_test`.

    Raises ValueError for what is no such file.
    """
    found = {}
    try:
        with open_file(path) as stream, zipfile.ZipFile(stream) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
            if missing := [name for name in NEEDED if name not in names]:
                raise ValueError(
                    f"{path} has no {' and no '.join(missing)} (it has {', '.join(names) or 'no arrays'}); save it by "
                    "numpy.savez(FILE, x=..., y=...)"
                )
            if ("x_test" in names) != ("y_test" in names):
                raise ValueError(f"{path} has only one of x_test and y_test; give both or neither")
            if "lengths_test" in names and "x_test" not in names:
                raise ValueError(f"{path} has lengths_test and no x_test; give both or neither")
            for name in (*NEEDED, *OPTIONAL):
                if name in names:
                    with archive.open(f"{name}.npy") as array:
                        found[name] = _array(path, name, array)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is no .npz file; save it by numpy.savez(FILE, x=..., y=...)") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    except (MemoryError, EOFError, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"{path} cannot be read: {type(error).__name__} {error}".rstrip()) from error
    if extra := [name for name in names if name not in found]:
        say(f"{path}: not used: {', '.join(extra)}")
    return found


def _array(path: Path, name: str, stream: Any) -> Inputs:
    try:
        array: Inputs = np.lib.format.read_array(stream, allow_pickle=False)
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise ValueError(
                f"{name} in {path} holds Python objects, which are never read; save numbers, rows of one length"
            ) from error
        raise ValueError(f"{name} in {path} is damaged: {str(error).splitlines()[0]}") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} in {path} is {array.dtype}; numbers are needed: integers, floats or booleans")
    return array


def _must_be_there(path: Path, way_out: str = "check its path, which is taken from the folder you are in") -> None:
    """ValueError where there is no such file."""
    if not os.path.exists(path):
        raise ValueError(f"there is no file {path}; {way_out}")


def from_npz(path: Path, asked: Mapping[str, Any], say: Say, **rest: Any) -> Workload:
    """The workload of a file of rows, named as the file. `asked` has sizes, head and loss that are not read from it."""
    _must_be_there(path)
    arrays = read_arrays(path, say)
    name = rest.pop("name", path.stem)
    model = model_of(path, arrays, {k: v for k, v in asked.items() if k not in ("B", "T")})
    data, test = _rows_in(arrays)
    T = arrays["x"].shape[1]
    if asked.get("T") not in (None, T):
        raise ValueError(f"the rows of {path} have T = {T}; give rows of another length instead of -T {asked['T']}")
    try:
        workload = Workload(
            name, model, data, B=asked.get("B", B), test=test,
            source=f"rows from {path.name}", **rest,
        )  # fmt: skip
    except ValueError as error:
        raise ValueError(str(error).replace(f"{name}:", f"{path}:", 1)) from error
    say(f"{path}: {described(workload)}")
    return workload


def _rows_in(arrays: Mapping[str, Inputs]) -> tuple[Data, Data | None]:
    """The rows to train on, and those to test on where there are such."""
    data = Data(arrays["x"], arrays["y"], arrays.get("lengths"))
    if "x_test" not in arrays:
        return data, None
    return data, Data(arrays["x_test"], arrays["y_test"], arrays.get("lengths_test"))


def described(workload: Workload) -> str:
    """What the rows were taken for, in one line."""
    model, (train, total) = workload.model, workload.rows
    kind = f"tokens, V {model.V:,}" if model.V else "dense inputs"
    outputs = "1 output" if model.O == 1 else f"{model.O} outputs"
    kept = f"{total - train:,} for testing" if total > train else "none for testing"
    assert not callable(workload.data)
    mean = workload.data.mean_length
    steps = "" if mean is None else f", {mean:.1f} steps long on average"
    return (
        f"{train:,} rows of T {workload.T}{steps}, {kept}; {kind}, E {model.E}, H {model.H}, B {workload.B}; "
        f"{outputs} at {'every step' if model.head is Head.EVERY else 'the last step'}, "
        f"{str(model.loss).replace('_', ' ')}"
    )


def model_of(path: Path, arrays: Mapping[str, Inputs], asked: Mapping[str, Any]) -> Model:
    """The model that rows ask for, by their types and shapes; what is `asked` goes before."""
    x, y = arrays["x"], arrays["y"]
    if x.ndim not in (2, 3) or not x.size:
        raise ValueError(
            f"x in {path} has shape {x.shape}; (N, T) or (N, T, E) is needed, with at least 1 row and step"
        )
    if y.ndim not in (1, 2, 3) or len(y) != len(x):
        raise ValueError(f"x in {path} has {len(x)} rows and y shape {y.shape}; one target a row is needed")
    T, sizes = x.shape[1], {"H": H, **asked}
    tokens = x.ndim == 2 and x.dtype.kind in "iu"
    if tokens:
        top = max(int(arrays[name].max()) for name in ("x", "x_test") if name in arrays and arrays[name].size)
        sizes = {"V": max(top + 1, 1), "E": E, **sizes}
    else:
        width = 1 if x.ndim == 2 else x.shape[2]
        if "V" in asked or asked.get("E", width) != width:
            letter = "V" if "V" in asked else "E"
            raise ValueError(f"x in {path} is {x.dtype} {x.shape}, dense inputs of E = {width}; leave -{letter} out")
        sizes["E"] = width
    largest = max((float(arrays[n].max()) for n in ("y", "y_test") if n in arrays and arrays[n].size), default=0.0)
    whole = y.dtype.kind in "biu"
    zero_or_one = bool(((y == 0) | (y == 1)).all())
    classes = whole and not zero_or_one and not (y.ndim == 2 and y.shape[1] != T)
    usual = (
        Loss.CATEGORICAL_CROSS_ENTROPY if classes else Loss.BINARY_CROSS_ENTROPY if zero_or_one else Loss.SQUARED_ERROR
    )
    loss = asked.get("loss", usual)
    every = y.ndim == 3 or (y.ndim == 2 and y.shape[1] == T and asked.get("O") != T and T > 1)
    head = asked.get("head", Head.EVERY if every else Head.LAST)
    if loss is Loss.CATEGORICAL_CROSS_ENTROPY:
        outputs = max(2, int(largest) + 1) if np.isfinite(largest) else 2
    else:
        inner = y.ndim - (2 if head is Head.EVERY else 1)
        outputs = y.shape[-1] if inner == 1 else 1
    return Model(**{"O": outputs, **sizes, "loss": loss, "head": head})


TABLES: dict[str, dict[str, Any]] = {
    "": {"name": str, "data": str, "B": int, "T": int, "epochs": int, "short_epoch": int, "init": Init, "expect": str},
    "model": {
        "cell": str,
        "layers": int,
        "bidirectional": bool,
        "V": int,
        "E": int,
        "H": int,
        "O": int,
        "head": Head,
        "loss": Loss,
        "step_sum": StepSum,
    },
    "train": {f.name: (int, float) for f in fields(Train)} | {"optimizer": type(Train().optimizer)},
}  # what may stand in a .toml file
_KINDS: dict[Any, str] = {str: "text", int: "a whole number", (int, float): "a number", bool: "true or false"}


def from_toml(path: Path, say: Say) -> Workload:
    """The workload that a file describes. Raises ValueError with the line that is wrong."""
    _must_be_there(path)
    try:
        text = read_file(path, MAX_TOML).decode()
        raw = tomllib.loads(text)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # not UTF-8, or no TOML, which says the line
        raise ValueError(f"{path} is no TOML: {error}") from error
    tables: dict[str, Any] = {"": {}}
    tables[""].update((key, value) for key, value in raw.items() if key not in ("model", "train"))
    for name in ("model", "train"):
        tables[name] = raw.get(name, {})
        if not isinstance(tables[name], dict):
            raise ValueError(f"{path} line {line_of(text, '', name)}: {name} is a value; a table [{name}] is needed")
    for table, values in tables.items():
        for key, value in values.items():
            values[key] = _value(path, text, table, key, value)
    with _lines(path, text):
        return _from_tables(path, tables, say)


def _from_tables(path: Path, tables: dict[str, dict[str, Any]], say: Say) -> Workload:
    top, model, train = tables[""], tables["model"], Train(**tables["train"])
    rest = {k: v for k, v in top.items() if k in ("epochs", "short_epoch", "init", "expect")}
    name = top.get("name", path.stem)
    if "data" in top:
        sizes: dict[str, Any] = model | {key: top[key] for key in ("B", "T") if key in top}
        rows = path.parent / top["data"]
        _must_be_there(rows, f"`data` of {path} is a path from the folder of that file")
        return from_npz(rows, sizes, say, name=name, train=train, **rest)
    if missing := [k for k in ("E", "H") if k not in model]:
        raise ValueError(f"{path}: [model] has no {' and no '.join(missing)}; without data all sizes are needed")
    made = made_up.made_up(Model(**{"O": 1, **model}), top.get("B", B), top.get("T", made_up.T), train, name)
    return replace(made, **rest)


def _value(path: Path, text: str, table: str, key: str, value: Any) -> Any:
    known, where = TABLES[table], f"{path} line {line_of(text, table, key)}: "
    if key not in known:
        kind = f"key in [{table}]" if table else "key"
        raise ValueError(where + unknown(kind, key, [*known, *(() if table else ("model", "train"))]))
    kind = known[key]
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        if value not in list(kind):
            raise ValueError(where + unknown(key, str(value), list(kind)))
        return kind(value)
    if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
        raise ValueError(f"{where}{key} is {value!r}; {_KINDS[kind]} is needed")
    return value


def line_of(text: str, table: str, key: str) -> int:
    """The line of a key of a table, from 1; that of the table's head, or 1, where it is not found."""
    here, head = "", 1
    for number, line in enumerate(text.splitlines(), start=1):
        if match := re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line):
            here, head = match[1].strip("\"'"), number if match[1].strip("\"'") == table else head
            if not table and here == key:
                return number
        elif here == table and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[=.]", line):
            return number
    return head


@contextmanager
def _lines(path: Path, text: str) -> Any:
    """Put the line of the key that an error begins with before it."""
    try:
        yield
    except ValueError as error:
        said = str(error)
        if said.startswith(str(path)):
            raise
        key = re.split(r"[ =]", said, maxsplit=1)[0]
        table = next((t for t, known in TABLES.items() if key in known), None)
        where = "" if table is None else f" line {line_of(text, table, key)}"
        raise ValueError(f"{path}{where}: {said}") from error


def from_python(name: str) -> Workload:
    """The workload that a Python file defines, by `FILE.py:NAME`. Raises ValueError for what goes wrong in it."""
    path, colon, attribute = name.partition(".py:")
    file = Path(path + ".py" if colon else path)
    if not colon:
        raise ValueError(f"{name} has no name after it; give {name}:NAME, the workload that the file defines")
    _must_be_there(file)
    try:
        open_file(file).close()
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror or error}") from error
    module = importlib.util.module_from_spec(
        found := importlib.util.spec_from_file_location(f"rnnbench_user_{file.stem}", file)  # type: ignore[arg-type]
    )
    before = list(sys.path)
    sys.path.insert(0, str(file.resolve().parent))
    try:
        found.loader.exec_module(module)  # type: ignore[union-attr]
    except (Exception, SystemExit) as error:
        at = next(
            (
                f.lineno
                for f in reversed(traceback.extract_tb(error.__traceback__))
                if Path(f.filename).resolve() == file.resolve()
            ),
            None,
        )
        line = getattr(error, "lineno", None) or at
        where = f"{file} line {line}" if line else str(file)
        raise ValueError(
            f"{where}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        ) from error
    finally:
        sys.path[:] = before
    value = getattr(module, attribute, None)
    if not isinstance(value, Workload):
        names = [key for key, each in vars(module).items() if isinstance(each, Workload)]
        has = f"it has {', '.join(names)}" if names else "it has none"
        what = f"no {attribute}" if value is None else f"{attribute}, which is {type(value).__name__} and no Workload"
        raise ValueError(f"{file} has {what}; a rnnbench.Workload is needed ({has})")
    return value


def keep_rows(folder: Path, workload: Workload) -> None:
    """Write the rows of a user's workload into the folder of a run, as a `rows.npz` of its own."""
    assert not callable(workload.data)
    arrays: dict[str, Inputs] = {}
    for suffix, data in (("", workload.data), ("_test", workload.test)):
        if data is not None:
            arrays |= {f"x{suffix}": data.inputs, f"y{suffix}": data.targets}
            arrays |= {} if data.lengths is None else {f"lengths{suffix}": data.lengths}
    (folder / ROWS).mkdir(exist_ok=True)
    np.savez(folder / ROWS / f"{workload.kept}.npz", **arrays)  # type: ignore[arg-type]


@lru_cache(maxsize=1)
def _kept_arrays(path: Path, changed: int) -> dict[str, Inputs]:
    """The arrays of a file as it was at a time: workloads that differ in sizes alone share them."""
    return read_arrays(path)


def kept_workload(folder: Path, spec: Spec) -> Workload:
    """The workload of a plan whose rows a run has kept. Raises ValueError as `read_arrays`."""
    path = folder / ROWS / f"{spec.kept}.npz"
    arrays = _kept_arrays(path, path.stat().st_mtime_ns if path.exists() else 0)
    data, test = _rows_in(arrays)
    given = {f.name: getattr(spec, f.name) for f in fields(Spec) if f.name not in ("rows", "T")}
    return Workload(data=data, test=test, source="rows kept with the run", **given)
