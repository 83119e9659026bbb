"""Right before fast: what a backend computed against the float64 oracle, array by array.

The error of an array is norm(x - ref) / norm(ref). One table of limits, by type, for everything that is compared.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rnnbench.backends.base import Outputs
from rnnbench.model import DType, Pass
from rnnbench.params import Array
from rnnbench.records.record import ErrorOf

TF32 = "tf32"  # float32 whose products round their factors to 11 significant bits, as a contract says
# What a value may be off by once an implementation has rounded all that it is made of: 16 roundings of its type. TF32
# rounds the factors of a product, once.
ROUNDING: dict[str, float] = {DType.FLOAT32: 2.0**-19, DType.FLOAT64: 2.0**-48, TF32: 2.0**-10}

# By type: one pass; the losses of the first train steps; an epoch, over whose steps rounding adds up; and the accuracy
# of an epoch, where in float32 a row on the edge may fall to the other side. Those of TF32: decision 0014.
LIMITS: dict[str, float] = {DType.FLOAT32: 1e-5, DType.FLOAT64: 1e-12, TF32: 1e-1}
LOSS_LIMITS: dict[str, float] = {DType.FLOAT32: 1e-4, DType.FLOAT64: 1e-10, TF32: 2e-2}
EPOCH_LIMITS: dict[str, float] = {DType.FLOAT32: 1e-3, DType.FLOAT64: 1e-9, TF32: 1e-1}
ACCURACY_LIMITS: dict[str, float] = {DType.FLOAT32: 2e-2, DType.FLOAT64: 1e-9, TF32: 1e-1}
# An array over its limit is judged by the problem's own sensitivity (`oracle`, decision 0001): it may be off by so many
# times the distance that such a rounding at the start makes. By more from the first update on: Adam divides each
# gradient by its own size, however small. What could be off by more than the last two after several is not judged.
PASS_DRIFTS = 5.0
UPDATE_DRIFTS: dict[str, float] = {DType.FLOAT32: 100.0, DType.FLOAT64: 100.0, TF32: 10.0}
MAX_LIMIT = 2.0  # of one pass; two arrays that have nothing in common but their size are 1.4 apart
MAX_LOSS_LIMIT = 1e-1
MAX_EPOCH_LIMITS: dict[str, float] = {DType.FLOAT32: 3e-2, DType.FLOAT64: 3e-2, TF32: 1.0}
# Adam moves each number by the sign of its gradient, however small: TF32 turns that of the smallest.
PARAM_LIMITS: dict[str, float] = {TF32: 1.0}


def relative_error(ref: Array | float, got: Array | float) -> float | None:
    """norm(got - ref) / norm(ref) in float64; the plain norm of `got` where ref is all zero.

    NaN and infinity must stand where the oracle has them and nowhere else; None where they do not. Shapes must be
    equal, else None, and so is an error that no number holds.
    """
    a, b = np.asarray(ref, np.float64), np.asarray(got, np.float64)
    if a.shape != b.shape:
        return None
    finite = np.isfinite(a)
    if not (np.array_equal(finite, np.isfinite(b)) and np.array_equal(a[~finite], b[~finite], equal_nan=True)):
        return None
    a, b = np.where(finite, a, 0.0), np.where(finite, b, 0.0)
    largest = float(np.abs(a).max(initial=0.0)) or 1.0  # its square may be more than a float64 holds
    with np.errstate(over="ignore", invalid="ignore"):
        scale = float(np.linalg.norm(a.ravel() / largest)) or 1.0
        error = float(np.linalg.norm((b / largest - a / largest).ravel())) / scale
    return error if np.isfinite(error) else None


def arrays_of(outputs: Outputs) -> Iterator[tuple[str, Array | float]]:
    """Everything that is compared, by name: `loss`, `logits`, `state` (which is h) or `state NAME`, `accuracy`,
    `grad NAME`, `param NAME`.
    """
    for name in ("loss", "logits", "accuracy"):
        value = getattr(outputs, name)
        if value is not None:
            yield name, value
    yield from (("state" if name == "h" else f"state {name}", s) for name, s in outputs.states.items())
    yield from ((f"grad {name}", g) for name, g in outputs.grads.items())
    yield from ((f"param {name}", p) for name, p in outputs.params.items())


def precision_of(dtype: DType, tf32: bool) -> str:
    """The row of the table that judges answers in this type, TF32 allowed in their products or not."""
    return TF32 if tf32 and dtype is DType.FLOAT32 else str(dtype)


def limit_of(pass_: Pass, name: str, precision: str) -> float:
    """The largest error that an array of a pass may have, in a type or in TF32."""
    if name.startswith("param ") and precision in PARAM_LIMITS:
        return PARAM_LIMITS[precision]
    if pass_ is not Pass.EPOCH:
        return LIMITS[precision]
    return ACCURACY_LIMITS[precision] if name == "accuracy" else EPOCH_LIMITS[precision]


def errors_of(oracle: Outputs, got: Outputs, precision: str, pass_: Pass = Pass.GRADIENT) -> dict[str, ErrorOf]:
    """The error of every array that the oracle has. An array that is missing from `got` has no error and fails.

    `precision` is a type, or "tf32".
    """
    given = dict(arrays_of(got))
    return {
        name: ErrorOf(relative_error(ref, given[name]) if name in given else None, limit_of(pass_, name, precision))
        for name, ref in arrays_of(oracle)
    }


def verdict(errors: dict[str, ErrorOf]) -> str | None:
    """One sentence naming the worst array that is over its limit, or None where all are within."""
    bad = {name: e for name, e in errors.items() if not e.ok}
    if not bad:
        return None
    name, worst = max(bad.items(), key=lambda item: float("inf") if item[1].error is None else item[1].error)
    size = (
        "not comparable (missing, of another shape, or NaN or infinite)"
        if worst.error is None
        else f"{worst.error:.2g}"
    )
    return f"error of {name} is {size}, the limit is {worst.limit:.0e}; {len(bad)} of {len(errors)} arrays are over"
