"""Experiments of the two notebooks that rnnbench grew from, by its Python functions.

    python examples/seeds.py                              parity: no network learns it in ten epochs
    python examples/seeds.py imdb-200 imdb-200-pre        reviews padded behind and in front: minutes

`python -m rnnbench seeds` has all of them beside the notebooks' own figures; docs/seeds.md says what they show.
"""

from __future__ import annotations

import sys

import rnnbench as rb

THEIRS = {"parity": "0.4700", "imdb-50": "0.8016", "imdb-200": "0.5768", "imdb-200-pre": "not tried"}


def main(names: list[str]) -> None:
    """Train each workload as it is, and print the accuracy on its test rows beside the notebooks'."""
    for name in names:
        trained = rb.train(name, "numba", progress=False)
        print(f"{name}: test accuracy {trained.test.accuracy:.4f}; theirs: {THEIRS[name]}")


if __name__ == "__main__":
    main(sys.argv[1:] or ["parity"])
