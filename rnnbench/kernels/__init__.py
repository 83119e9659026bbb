"""The computations themselves, by hand. They know no backend."""
