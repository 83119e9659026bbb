"""Records: what was measured, how it is kept, what is derived from it."""
