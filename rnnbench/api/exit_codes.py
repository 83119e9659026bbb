"""The exit codes of all commands and what they mean: help prints them from here."""

from __future__ import annotations

from collections.abc import Iterable

OK, FAULTS, USAGE, NOTHING, FOLDER, INTERRUPTED = 0, 1, 2, 3, 4, 130
WARNED = SLOWER = 1  # of check; of compare and history
BROKEN, NO_BASELINE, UNDECIDED = 5, 6, 7  # of compare
FAULT = 70  # any other exception, as EX_SOFTWARE of sysexits.h
SYSTEM = 71  # as EX_OSERR

_ANSWER = {FOLDER: "the answer cannot be written, or no temporary files"}
_ALWAYS = {
    FAULT: "a fault of rnnbench itself; RNNBENCH_TRACEBACK=1 in the environment shows where",
    SYSTEM: "the system gives no more memory, processes, threads or open files",
    INTERRUPTED: "interrupted",
}
_USAGE = {USAGE: "an option or argument is wrong"}
_RUN = {
    OK: "all was measured that could be, or that a budget left time for",
    FAULTS: "some backend was wrong, crashed, hung or ran out of memory; the rest was measured",
    **_USAGE,
    NOTHING: "nothing was measured",
    FOLDER: "a folder cannot be read or written, or holds something else than this run; or a cluster was lost",
    **_ALWAYS,
    INTERRUPTED: "interrupted; continue with --resume",
}
EXIT_CODES: dict[str, dict[int, str]] = {  # command -> code -> its meaning
    "run": _RUN,
    "sweep": _RUN,
    "verify": {
        OK: "every answer agrees with the oracle; with --audit, every finding holds",
        FAULTS: "an answer does not agree, a finding does not hold, or a backend failed",
        **_USAGE,
        NOTHING: "no backend could be checked",
        FOLDER: f"{_ANSWER[FOLDER]}; or a cluster was lost",
        **_ALWAYS,
    },
    "train": {
        OK: "trained",
        USAGE: "an option or argument is wrong, or the training failed",
        NOTHING: "the backend or the rows cannot be had",
        FOLDER: "the folder cannot be written, or is not empty",
        **_ALWAYS,
    },
    "seeds": {
        OK: "every figure agrees with the notebooks', as far as the data are theirs",
        FAULTS: "a figure does not agree",
        **_USAGE,
        NOTHING: "nothing could be done with what is installed",
        **_ANSWER,
        **_ALWAYS,
    },
    "report": {
        OK: "written; of several FOLDERs without -o, or with --export: printed",
        USAGE: "an option is wrong, a run is there twice, or the runs did unlike work or are of unlike machines",
        NOTHING: "with --export: no right time to print",
        FOLDER: "a run cannot be read, or the report not written",
        **_ALWAYS,
    },
    "compare": {
        OK: "no case is slower, as far as can be told",
        SLOWER: "a case is slower",
        **_USAGE,
        NOTHING: "no case could be compared: unlike, failed, missing, or fewer than 3 launches",
        FOLDER: "a run cannot be read, or the answer not written",
        BROKEN: "no case is slower, but one is wrong, crashed, hung or ran out of memory in NEW",
        NO_BASELINE: "with --require-baseline: BASE lacks a case that NEW timed",
        UNDECIDED: "with --fail-on inconclusive: a case is inconclusive",
        **_ALWAYS,
    },
    "check": {
        OK: "no warnings; notes on what is not known may be there",
        WARNED: "warnings",
        **_USAGE,
        FOLDER: "the run cannot be read, or holds no record, or the answer cannot be written",
        **_ALWAYS,
    },
    "history": {
        OK: "the history was read; with --fail, no case is slower than before its last step",
        SLOWER: "with --fail: the last step of a case made it slower",
        **_USAGE,
        NOTHING: "no run has a right time",
        FOLDER: "no run can be read, or the answer not written",
        **_ALWAYS,
    },
    "list": {OK: "listed", **_USAGE, NOTHING: "with --contract: no backend could be asked", **_ANSWER, **_ALWAYS},
    "env": {OK: "shown", **_USAGE, NOTHING: "with --peak: the peak could not be measured", **_ANSWER, **_ALWAYS},
    "warm": {OK: "compiled", **_USAGE, NOTHING: "Numba is switched off", **_ANSWER, **_ALWAYS},
}


def of_several(codes: Iterable[int]) -> int:
    """The code of several runs or checks as one: what ended one early, else a fault; NOTHING where all did nothing."""
    found = set(codes)
    whole = FAULTS if FAULTS in found else OK if OK in found else NOTHING
    return max(found - {OK, FAULTS, NOTHING}, default=whole)


def exit_code_help(command: str) -> str:
    """The exit codes of a command as its help ends with them."""
    return (
        "\n".join(["\n\b\nExit codes:", *(f"  {code}  {words}" for code, words in EXIT_CODES[command].items())]) + "\n"
    )
