"""Keras, imported with one of its frameworks. A process has one Keras, and Keras has one framework."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Environment variables that hold within the block alone."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _absent(*names: str) -> Iterator[None]:
    """Modules that cannot be imported within the block, where they were not before it."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)


def imported(framework: str) -> Any:
    """Keras on `tensorflow`, `jax` or `torch`, on the CPU. ImportError where this process has it on another one.

    Keras reads keras.json in its home when imported, and writes one where there is none: neither may happen here.
    TensorFlow imports JAX for its Lite converter, and Keras pandas for its frames and Matplotlib for its galleries,
    where they happen to be installed: a third of what importing takes, for what nobody calls here.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    unused = {"pandas", "matplotlib", "jax"} - {framework}
    with (
        _absent(*unused),
        tempfile.TemporaryDirectory() as home,
        _environment(KERAS_BACKEND=framework, KERAS_HOME=home, KERAS_TORCH_DEVICE="cpu"),
    ):
        import keras
    if (found := keras.config.backend()) != framework:
        raise ImportError(
            f"Keras was imported before with its {found} backend; it must be {framework}: take a process for each, as "
            f"`rnnbench run` does, or set KERAS_BACKEND={framework}"
        )
    return keras


@contextmanager
def floatx(dtype: str) -> Iterator[None]:
    """Keras's default type, which learning rates, metrics and rows take without asking."""
    from keras import config

    before = config.floatx()
    config.set_floatx(dtype)
    try:
        yield
    finally:
        config.set_floatx(before)
