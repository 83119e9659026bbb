"""How far back does a gradient reach? Vanishing, exploding, clipped and cut, for rnn, gru and lstm.

    python examples/gradient_flow.py                     draws gradient_flow.png; --backend torch asks another

The loss is at the last of 100 steps, and the curves are the norm of dL/dh_t, the gradient by the state after step t. A
pass gives the gradients of parameters, so each step gets a token of its own and W_xh is the identity: the embedding's
row of a token is then delta_t, the gradient of the gates of its step, and a step back is dL/dh_{t-1} = delta_t W_hh^T
(of a gru besides: r before the product of n, and z dL/dh_t). docs/tutorial says what the picture shows.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

import rnnbench as rb
from rnnbench.cells import CELLS
from rnnbench.model import Loss, Optimizer

B, T, H, WINDOW = 16, 100, 64, 25
RADII = (0.5, 1.0, 1.5)
STYLES = {
    "whole": {"linewidth": 1.4},
    "clipped": {"linewidth": 1.4, "linestyle": "--"},
    "cut": {"linewidth": 6, "alpha": 0.35},  # it lies on the whole one, as far as it goes
}
COLOURS = {"rnn": "#D55E00", "gru": "#0072B2", "lstm": "#009E73"}  # of Okabe and Ito, 2002
SGD = rb.Train(Optimizer.SGD, learning_rate=1.0, clip_norm=1.0)  # so a step changes parameters by the clipped gradient


def network(cell: str, radius: float) -> tuple[rb.Workload, dict[str, np.ndarray]]:
    """Rows of B T different tokens, and parameters with each gate's part of W_hh at this spectral radius."""
    gates, rng = CELLS[cell].gates, np.random.default_rng(0)
    model = rb.Model(V=B * T, E=len(gates) * H, H=H, O=1, cell=cell, loss=Loss.SQUARED_ERROR)
    x, y = np.arange(B * T, dtype=np.int32).reshape(B, T), rng.standard_normal(B).astype(np.float32)
    parts = [rng.standard_normal((H, H)) for _ in gates]
    params = {
        "embedding": 1e-4 * rng.standard_normal((model.V, model.E)),  # small: tanh is steepest at 0
        "W_xh": np.eye(model.E),
        "W_hh": np.hstack([radius / np.abs(np.linalg.eigvals(W)).max() * W for W in parts]),
    }
    return rb.Workload(f"{cell} {radius:g}", model, rb.Data(x, y), B=B, train=SGD), params


def deltas(backend: str, cell: str, radius: float) -> dict[str, np.ndarray]:
    """Gradients of the gates, (B, T, G H): as they are, as clipping scales them, and with the way back cut."""
    workload, params = network(cell, radius)
    found = {}
    for how, cut in (("whole", None), ("cut", rb.Truncation(WINDOW, WINDOW))):
        with rb.session(backend, workload, params=params, truncation=cut, dtype="float64") as session:
            session.gradient()
            found[how] = session.fetch().grads["embedding"].reshape(B, T, -1)
            if how == "whole":
                session.train_step()
                change = params["embedding"] - session.fetch().params["embedding"]
                found["clipped"] = found["whole"] * np.linalg.norm(change) / np.linalg.norm(found["whole"])
    return found


def gradients_of_states(cell: str, params: dict[str, np.ndarray], delta: np.ndarray) -> np.ndarray:
    """dL/dh_t of steps 0 to T - 1, (B, T, H), h_0 the state before the first, from the gradients of the gates."""
    if cell != "gru":
        return delta @ params["W_hh"].T
    h, found = np.zeros((B, H)), np.empty((B, T, H))
    weights = params | {"b_h": np.zeros(3 * H), "b_hn": np.zeros(H)}
    for t in range(T):
        after, tape = CELLS[cell].forward(weights, params["embedding"].reshape(B, T, -1)[:, t], {"h": h})
        r, z, n, h = tape["r"], tape["z"], tape["n"], after["h"]
        dr, dz, dn = np.split(delta[:, t], 3, axis=1)
        dh = dn / ((1 - z) * (1 - n**2))  # of the state after the step, which delta of n is a part of
        found[:, t] = np.hstack([dr, dz, r * dn]) @ params["W_hh"].T + z * dh
    return found


def flow(backend: str, cell: str, radius: float) -> dict[str, np.ndarray]:
    """The norm of dL/dh_t for t from 0 to T - 1, the mean of all rows; NaN where nothing arrives."""
    params, found = network(cell, radius)[1], {}
    for how, delta in deltas(backend, cell, radius).items():
        norms = np.linalg.norm(gradients_of_states(cell, params, delta), axis=2).mean(axis=0)
        found[how] = np.where(norms > 0, norms, np.nan)
    return found


def main(asked: Sequence[str] | None = None) -> None:
    """Draw a panel for each radius, a line for each cell and way."""
    from matplotlib.figure import Figure

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="numba", help="one that computes the three cells (numba)")
    parser.add_argument("--output", default="gradient_flow.png", help="a .png or .svg (gradient_flow.png)")
    given = parser.parse_args(asked)
    figure = Figure(figsize=(11, 4), layout="constrained")
    for ax, radius in zip(figure.subplots(1, len(RADII), sharey=True), RADII, strict=True):
        for cell, colour in COLOURS.items():
            norms = flow(given.backend, cell, radius)
            for how, style in STYLES.items():
                ax.plot(range(T), norms[how], color=colour, label=f"{cell}, {how}", **style)
            first, last = norms["whole"][[0, -1]]
            print(f"radius {radius:3g}  {cell:4}  |dL/dh_0| / |dL/dh_{T - 1}| = {first / last:8.2g}")
        ax.set(title=f"spectral radius {radius:g}", xlabel="step t", yscale="log", ylim=(1e-20, 1e6))
        ax.grid(alpha=0.3)
    figure.axes[0].set_ylabel("norm of dL/dh_t")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.savefig(given.output, dpi=120)
    print(f"drawn: {given.output}")


if __name__ == "__main__":
    main()
