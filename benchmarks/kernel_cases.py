"""Cases of single kernels, at the sizes of the seeds' workloads. Kernels are imported when a case is made ready."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cases import Case, Work

Array = NDArray[Any]
FLOPS_A_CALL = 2e7  # small kernels are repeated inside one call, so that entering it from Python does not count


@dataclass(frozen=True)
class Product:
    """(m, k) (k, n), by the kernel of this name."""

    name: str
    kernel: str
    m: int
    k: int
    n: int


# A worker has 16 of the 32 rows of a batch where two work.
PRODUCTS = (
    Product("one step, H 32, 32 rows", "gathered_product", 32, 32, 32),
    Product("one step, H 128, 32 rows", "gathered_product", 32, 128, 128),
    Product("one step, H 128, 16 rows", "gathered_product", 16, 128, 128),
    Product("one step back, H 32, 32 rows", "through_tanh", 32, 32, 32),
    Product("one step back, H 128, 32 rows", "through_tanh", 32, 128, 128),
    Product("weight gradient, H 32, 1600 rows", "outer_products", 32, 1600, 32),
    Product("weight gradient, H 128, 6400 rows", "outer_products", 128, 6400, 128),
    Product("dense projection, E 128, H 128, 1600 rows", "affine", 1600, 128, 128),
    Product("head, H 128, O 1, 32 rows", "affine", 32, 128, 1),
)

# Rows of a step, steps, width: as the states of imdb-50 and imdb-200 lie in memory.
STATES = {"imdb-50": (32, 50, 32), "imdb-200": (32, 200, 128)}

# Parameters of imdb-50 and of imdb-200.
SIZES = {"20 k": 21_153, "1.3 M": 1_313_025}
RATE, BETA_1, BETA_2, EPSILON = 1e-3, 0.9, 0.999, 1e-7


def _rows(rng: np.random.Generator, m: int, n: int) -> Array:
    """Random float32 rows, as far apart as in a pass, with zeros in between."""
    from rnnbench.kernels.cpu.pass_record import aligned
    from rnnbench.kernels.cpu.simd import row_step

    x = aligned((m, row_step(n, np.float32)), np.float32)
    x[:, :n] = rng.standard_normal((m, n))
    return x


def _product(spec: Product) -> Work:
    import kernel_calls
    from rnnbench.kernels.cpu.simd import padded

    m, k, n = spec.m, spec.k, spec.n
    N = padded(n, np.float32)
    rng = np.random.default_rng(0)
    out, table, h = (_rows(rng, m, n) for _ in range(3))
    index = rng.permutation(m).astype(np.int32)
    A, B = _rows(rng, *((k, m) if spec.kernel == "outer_products" else (m, k))), _rows(rng, k, n)
    W = kernel_calls.packed(np.ascontiguousarray(B[:, :n]))
    bias, zeros = table[0], np.zeros_like(table[0])
    call: Callable[..., None] = getattr(kernel_calls, spec.kernel)
    arguments = {
        "gathered_product": (table, index, A, W, m, N, k),
        "through_tanh": (bias, A, W, m, N, k, h),
        "affine": (bias, A, W, m, N, k),
        "outer_products": (zeros, A, B, m, N, k),
    }[spec.kernel]

    def expected() -> dict[str, Array]:
        a, b, c, gate = (x.astype(np.float64) for x in (A, B[:, :n], table[:, :n], h[:, :n]))
        if spec.kernel == "outer_products":
            return {"out": a[:, :m].T @ b}
        product = a[:, :k] @ b
        if spec.kernel == "gathered_product":
            return {"out": c[index] + product}
        return {"out": (c[0] + product) * (1 - gate**2 if spec.kernel == "through_tanh" else 1)}

    flops = 2.0 * m * k * n
    times = max(1, round(FLOPS_A_CALL / flops))
    kernel_calls.ready()
    return Work(
        partial(call, out, *arguments, times),
        answer=lambda: {"out": out[:, :n]},
        expected=expected,
        times=times,
        flops=flops,
        notes={"m": m, "k": k, "n": n},
    )


def _pointwise(kernel: str, workload: str) -> Work:
    import kernel_calls
    from rnnbench.kernels.cpu.simd import padded

    B, T, H = STATES[workload]
    start = _rows(np.random.default_rng(0), B * T, H)
    h = np.empty_like(_rows(np.random.default_rng(0), B * T, H))
    x = start[:, :H].astype(np.float64)
    exact = {"tanh_rows": lambda: np.tanh(x), "sigmoid_rows": lambda: 1 / (1 + np.exp(-x))}[kernel]

    def before(number: int) -> None:
        h[:] = start

    return Work(
        partial(getattr(kernel_calls, kernel), h, B, padded(H, np.float32)),
        before,
        answer=lambda: {"h": h[:, :H]},
        expected=lambda: {"h": exact()},
        notes={"numbers": B * T * H},
    )


def _optimizer(rule: str, P: int) -> Work:
    import kernel_calls

    grads = 0.01 * np.random.default_rng(0).standard_normal(P)
    adam, times = rule == "Adam", max(1, 200_000 // P)
    arrays, call = kernel_calls.updates(
        grads, times, adam=adam, learning_rate=RATE, beta_1=BETA_1, beta_2=BETA_2, epsilon=EPSILON
    )
    changed = ("params", "m", "v") if adam else ("params",)

    def before(number: int) -> None:
        """Parameters start at zero, so that the changes, which are small, keep their digits."""
        if number == 0:
            for name in changed:
                arrays[name][:] = 0

    def expected() -> dict[str, Array]:
        """Kingma and Ba, 2015, Algorithm 1; the kernel is asked for step 1 each time."""
        g = arrays["grads"].astype(np.float64)
        p, m, v = np.zeros(P), np.zeros(P), np.zeros(P)
        for _ in range(times):
            m, v = BETA_1 * m + (1 - BETA_1) * g, BETA_2 * v + (1 - BETA_2) * g * g
            p -= RATE * (m / (1 - BETA_1) / (np.sqrt(v / (1 - BETA_2)) + EPSILON) if adam else g)
        return {name: value for name, value in {"params": p, "m": m, "v": v}.items() if name in changed}

    return Work(
        call,
        before,
        answer=lambda: {name: arrays[name] for name in changed},
        expected=expected,
        times=times,
        bytes=4.0 * P * (7 if adam else 3),  # read p, g, m, v and write p, m, v; read p, g and write p
        notes={"parameters": P},
    )


def products() -> list[Case]:
    """Products in register tiles, one thread."""
    return [Case("products", spec.name, partial(_product, spec), stable=False) for spec in PRODUCTS]


def pointwise() -> list[Case]:
    """tanh and sigmoid over all states of a batch, one thread."""
    return [
        Case("pointwise", f"{name}, {workload}", partial(_pointwise, f"{name}_rows", workload), stable=False)
        for name in ("tanh", "sigmoid")
        for workload in STATES
    ]


def optimizer() -> list[Case]:
    """One update of all parameters, one thread."""
    return [
        Case("optimizer", f"{rule}, {size} parameters", partial(_optimizer, rule, P), stable=False)
        for rule in ("Adam", "SGD")
        for size, P in SIZES.items()
    ]
