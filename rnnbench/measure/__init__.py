"""Checking and timing. Knows the protocol of `backends.base` and no framework."""
