"""Does it learn to read 200 words? A plain rnn with its padding behind, in front and left out, a gru and an lstm.

    python examples/learning_curves.py                   draws learning_curves.png; some minutes
    python examples/learning_curves.py -T 50 -H 32       a smaller network, to try it

A review shorter than 200 words is padded. Padded behind, its words are long past when the last state is asked; padded
in front they are not; with real lengths the network stops at the last word. docs/seeds.md says what the picture shows.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import rnnbench as rb

LINES = {
    "rnn, padded behind": ("imdb-200", "rnn", "#D55E00", "-"),
    "rnn, padded in front": ("imdb-200-pre", "rnn", "#D55E00", "--"),
    "rnn, real lengths": ("imdb-200-lengths", "rnn", "#D55E00", ":"),
    "gru, padded behind": ("imdb-200", "gru", "#0072B2", "-"),
    "lstm, padded behind": ("imdb-200", "lstm", "#009E73", "-"),
}


def main(asked: Sequence[str] | None = None) -> None:
    """Train each, print its accuracy on the test rows, and draw that on the validation rows after each epoch."""
    from matplotlib.figure import Figure

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="numba", help="one that computes the three cells and lengths (numba)")
    parser.add_argument("--epochs", type=int, help="of each training (5)")
    parser.add_argument("-T", type=int, help="words of a review (200)")
    parser.add_argument("-H", type=int, help="hidden units (128)")
    parser.add_argument("--output", default="learning_curves.png", help="a .png or .svg (learning_curves.png)")
    given = parser.parse_args(asked)
    sizes = {letter: size for letter, size in (("T", given.T), ("H", given.H)) if size is not None}
    figure = Figure(figsize=(7, 4), layout="constrained")
    ax = figure.subplots()
    for name, (workload, cell, colour, style) in LINES.items():
        trained = rb.train(workload, given.backend, epochs=given.epochs, cell=cell, progress=False, **sizes)
        curve = trained.curve
        print(f"{name:22} test accuracy {trained.test.accuracy:.4f}  ({trained.data_source})", flush=True)
        ax.plot(curve["epoch"], curve["validation_accuracy"], style, color=colour, marker="o", markersize=3, label=name)
    ax.axhline(0.5, color="0.6", linewidth=0.8)  # what guessing gives
    ax.set(xlabel="epoch", ylabel="accuracy on validation rows", ylim=(0.45, 1.0))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    figure.savefig(given.output, dpi=120)
    print(f"drawn: {given.output}")


if __name__ == "__main__":
    main()
