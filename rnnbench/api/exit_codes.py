"""Exit codes that all commands share."""

FAULT = 70  # the exit code of what nobody foresaw, as EX_SOFTWARE of sysexits.h
FAULT_MEANS = "a fault of rnnbench itself; RNNBENCH_TRACEBACK=1 in the environment shows where"
