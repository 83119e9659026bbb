"""Checking and timing in workers. Knows the protocol of `backends.base` and no framework."""
