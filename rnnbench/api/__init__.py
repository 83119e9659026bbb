"""What each command does, for Python too: it takes an observer and prints nothing."""
