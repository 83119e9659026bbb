"""Threads that help: a leader opens a stage of so many shares, and whoever is there takes one after the other.

Nobody is waited for who has not begun: a helper that sleeps, or whose core another program has, costs its help and
nothing else, and a leader alone does all shares itself. Which shares there are is fixed beforehand and each is worked
out in the same way by whoever takes it, so the result is the same bits however many came.

A stage is one word, the ticket: its number, how many shares it has, and the next one to be taken. Taking is one atomic
addition. Helpers look at the ticket while a call lasts and for about a millisecond after; then they sleep until woken.
"""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import os
import threading
from typing import Any

import numpy as np

from rnnbench.kernels.cpu.atomics import count_up, give_way, pause, read, write
from rnnbench.kernels.cpu.calls import call_work
from rnnbench.kernels.cpu.compiling import helper, kernel
from rnnbench.kernels.cpu.context import aligned
from rnnbench.kernels.cpu.simd import CACHE_LINE

# Where the words are, in bytes from the start: each on cache lines of its own.
_TICKET, _DONE, _CONTEXT, _WORK, _STAGE, _CALLING = (2 * CACHE_LINE * i for i in range(6))
_WORDS = 6
_SHARES_AT, _STAGE_AT, _MASK = 16, 32, (1 << 16) - 1
MOST_SHARES = _MASK >> 1

_IDLE = 20_000  # pauses before a helper goes to sleep: about a millisecond
_PATIENT = 2_000  # pauses before who waits lets others have its core


@helper
def take_share(team):
    """The number of a share that is now the caller's, or -1 where none is left."""
    ticket = read(team + _TICKET)
    if (ticket & _MASK) >= (ticket >> _SHARES_AT & _MASK):
        return -1
    ticket = count_up(team + _TICKET)
    share = ticket & _MASK
    return share if share < (ticket >> _SHARES_AT & _MASK) else -1


@helper
def open_stage(team, shares):
    """Let `shares` shares be taken."""
    number = read(team + _STAGE) + 1
    write(team + _STAGE, number)
    write(team + _DONE, 0)
    write(team + _TICKET, (number & 0x7FFFFFFF) << _STAGE_AT | shares << _SHARES_AT)


@helper
def finish_share(team):
    """Say that a share is done."""
    count_up(team + _DONE)


@helper
def wait_for_all(team, shares):
    """Until all shares of the stage are done."""
    waited = 0
    while read(team + _DONE) < shares:
        pause()
        waited += 1
        if waited > _PATIENT:
            give_way()


@kernel()
def _help(team, who):
    """Take shares until there has been no call for a while."""
    idle = 0
    while idle < _IDLE:
        share = take_share(team)
        if share < 0:
            pause()
            idle += 1
            if idle > _PATIENT and read(team + _CALLING):
                idle = _PATIENT
                give_way()
        else:
            call_work(read(team + _WORK), read(team + _CONTEXT), who, share)
            finish_share(team)
            idle = 0


class Team:
    """A leader, who is whoever calls, and helpers, who are daemon threads of this process."""

    def __init__(self) -> None:
        self.words = aligned((_WORDS * 2 * CACHE_LINE // 8,), np.int64)
        self.address = self.words.ctypes.data
        self.helpers: list[_Helper] = []
        self.leading = threading.Lock()

    def gather(self, size: int) -> None:
        """Have at least `size` members, the leader among them."""
        while len(self.helpers) < size - 1:
            self.helpers.append(_Helper(self.address, len(self.helpers) + 1))

    def call(self, size: int, context: int, work: int, wake: bool) -> None:
        """Let helpers, up to `size` members, know what there is to do; `wake` those who sleep."""
        self.words[_CONTEXT // 8], self.words[_WORK // 8], self.words[_CALLING // 8] = context, work, 1
        if wake:
            for helper in self.helpers[: size - 1]:
                if helper.asleep:
                    helper.wake()

    def rest(self) -> None:
        """The call is over."""
        self.words[_CALLING // 8] = 0


class _Helper:
    """One thread and the lock it waits for when it sleeps."""

    def __init__(self, team: int, who: int) -> None:
        self.team, self.who = team, who
        self.asleep = False  # read and written with the GIL
        self.bed = _thread.allocate_lock()
        self.bed.acquire()
        self.thread = threading.Thread(target=self._serve, name=f"rnnbench-{who}", daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            self.asleep = True
            self.bed.acquire()
            _help(self.team, self.who)

    def wake(self) -> None:
        """Wake who sleeps, away from the caller: a system likes to wake a thread where its waker runs, and goes on."""
        self.asleep = False
        cores = _other_cores()
        if cores and self.thread.native_id is not None:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(self.thread.native_id, cores)
        self.bed.release()


_core_here: Any = None
with contextlib.suppress(AttributeError, OSError, TypeError):  # Linux has it
    _core_here = ctypes.CDLL(None).sched_getcpu


def _other_cores() -> set[int]:
    """The cores that this thread may use, but for the one that it is on; empty where the system does not tell."""
    if _core_here is None or not hasattr(os, "sched_getaffinity"):
        return set()
    return os.sched_getaffinity(0) - {_core_here()}


_TEAM = Team()


def team() -> Team:
    """The one team of this process."""
    return _TEAM


def _forget_helpers() -> None:
    """A forked child has no threads but its own."""
    global _TEAM
    _TEAM = Team()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_helpers)
