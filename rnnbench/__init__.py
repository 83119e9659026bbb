"""rnnbench: how fast a recurrent network runs on this machine, and whose implementation to use."""

__version__ = "0.1.0"
