"""What each command of the command line does, apart from parsing and printing its result."""
