"""The experiments of the seed notebooks."""
