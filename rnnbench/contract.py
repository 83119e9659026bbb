"""What stands behind a number of a backend: what its clock holds, its threads, its device."""

from __future__ import annotations

from dataclasses import dataclass

from rnnbench.model import Pass

CPU, CUDA = "cpu", "cuda"  # where the passes of a backend run


@dataclass(frozen=True)
class Contract:
    """What stands behind a number: shown with it, stored with it."""

    threads: int
    subnormals: str  # "kept", "flushed", or who decides
    tf32: bool
    timed: dict[str, str]  # pass -> the library calls inside the clock
    notes: str = ""
    device: str = CPU
    staged: str = ""  # outside the clock, by `prepare`, `select` and `reset`
    waits: str = ""  # what tells the clock that the work is done
    step_threads: int | None = None  # of the step pass, where others have more

    def threads_in(self, pass_: Pass) -> int:
        """The threads of a pass."""
        return self.step_threads or self.threads if pass_ is Pass.STEP else self.threads
