"""Compiled kernels on disk, in Numba's own files: what cannot be read is compiled anew, what cannot be written is not
kept, and neither ends a program.

Numba itself raises for a file that is cut, runs machine code in which bits are wrong, and does not compile what it
cannot keep.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile
from numba.misc.appdirs import AppDirs

_log = logging.getLogger("rnnbench")
_CHECKSUM = hashlib.sha256().digest_size


def code_folder(name: str, source: Path) -> Path | None:
    """Where compiled code of the package beside `source` is kept, by a name of its own; None where it cannot be.

    Under NUMBA_CACHE_DIR, else beside the sources, else in the user's cache: the first that can be written, or that
    holds some already. One that was named is taken or none.
    """
    if named := numba.config.CACHE_DIR:
        bases = [Path(named)]
    else:
        bases = [source.parent / "__pycache__", Path(AppDirs("rnnbench", appauthor=False).user_cache_dir)]
    for base in bases:
        if base.is_absolute() or named:  # a home that is not known is called ~
            found = base.absolute() / name
            if found.is_dir() or _can_be_made(found):
                return found
    _say_once(f"{bases[-1]} cannot be written")
    return None


def _can_be_made(found: Path) -> bool:
    there = next((parent for parent in found.parents if os.path.lexists(parent)), None)
    return there is not None and there.is_dir() and os.access(there, os.W_OK | os.X_OK)


@lru_cache(maxsize=1)
def _say_once(why: str) -> None:
    _log.warning(
        "compiled kernels are not kept, so each process compiles them again: %s; "
        "set NUMBA_CACHE_DIR to a folder that can be written", why
    )  # fmt: skip


@lru_cache(maxsize=1024)
def _content_of(file: str) -> bytes:
    return hashlib.sha256(Path(file).read_bytes()).digest()


class _Locator:
    """A place for the code of one function, as Numba asks for it."""

    def __init__(self, function: Callable[..., Any], place: Path) -> None:
        self._py_file, self._line, self._place = function.__code__.co_filename, function.__code__.co_firstlineno, place

    def ensure_cache_path(self) -> None:
        self._place.mkdir(parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        return str(self._place)

    def get_source_stamp(self) -> bytes:
        return _content_of(self._py_file)

    def get_disambiguator(self) -> str:
        return str(self._line)


class _Implementation(CompileResultCacheImpl):
    """As Numba's, with a place that is given."""

    def __init__(self, function: Callable[..., Any], place: Path) -> None:
        self._lineno = function.__code__.co_firstlineno
        self._locator = _Locator(function, place)
        module = Path(function.__code__.co_filename).stem
        self._filename_base = self.get_filename_base(f"{module}.{function.__qualname__}", sys.abiflags)


def _checked(data: bytes) -> bytes:
    """What stands behind its checksum. ValueError where it is something else."""
    if hashlib.sha256(data[_CHECKSUM:]).digest() != data[:_CHECKSUM]:
        raise ValueError("the checksum is of something else")
    return data[_CHECKSUM:]


class _Files(IndexDataCacheFile):
    """As Numba's, with a checksum at the head of index and code. What is damaged, or may not be read, is not there."""

    def _dump(self, obj: Any) -> bytes:
        data: bytes = super()._dump(obj)
        return hashlib.sha256(data).digest() + data

    def _load_index(self) -> dict[Any, str]:
        try:
            with open(self._index_path, "rb") as file:
                version, data = pickle.load(file), file.read()
            stamp, overloads = pickle.loads(_checked(data)) if version == self._version else (None, {})
        except Exception:  # what is no pickle may raise anything
            return {}
        return dict(overloads) if stamp == self._source_stamp else {}

    def _load_data(self, name: str) -> Any:
        with open(self._data_path(name), "rb") as file:
            return pickle.loads(_checked(file.read()))

    def load(self, key: Any) -> Any:
        try:
            return super().load(key)
        except Exception:
            return None


class _KernelCache(FunctionCache):
    """The cache of one function. Without room, or leave to write, its code is not kept."""

    def __init__(self, function: Callable[..., Any], place: Path) -> None:
        self._name, self._py_func = repr(function), function
        self._impl = _Implementation(function, place)
        self._cache_path = str(place)
        stamp = self._impl.locator.get_source_stamp()
        self._cache_file = _Files(self._cache_path, self._impl.filename_base, stamp)
        self.enable()

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:
            self.disable()
            _say_once(f"{self._cache_path}: {error.strerror or error}")


def keep(compiled: Any, function: Callable[..., Any], place: Path | None) -> Any:
    """The same: what Numba makes of a function, its code kept in a folder, if there is one."""
    if place is not None:
        compiled._cache = _KernelCache(function, place)
    return compiled
