"""Threads that help the calling one: it opens a stage of so many shares, and each thread takes one after the other.

The caller waits for no thread that has not begun a share: one that is waiting, or whose core another program has, costs
its help and nothing else, and the caller takes all shares itself if it must. Which shares there are is fixed beforehand
and each is worked out in the same way by whichever thread takes it, so the result is the same bits for any number that
came.

A stage is one 64-bit number, the ticket: how many threads may help, how many shares there are, and how many were taken
from either end. Taking is one atomic exchange of the ticket that was looked at: it fails where anything of that has
changed, so a thread that is still awake from a call of more threads never takes a share of one that has no room for it
(decision 0047). The caller takes the first shares and the others the last: what a share has used, as its columns of the
weights, is then in the caches of the core that uses it in the next stage or call.

Threads look at the ticket while a call lasts and for about a millisecond after; then they wait for a lock until the
caller wakes them.
"""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import os
import threading
from typing import Any

import numpy as np

from rnnbench.kernels.cpu.atomics import (
    atomic_read,
    atomic_write,
    compare_exchange,
    fetch_add,
    pause,
    yield_core,
)
from rnnbench.kernels.cpu.calls import call_share
from rnnbench.kernels.cpu.compiling import cpu_kernel, inlined
from rnnbench.kernels.cpu.pass_record import Array, aligned
from rnnbench.kernels.cpu.simd import CACHE_LINE

# Where the numbers that threads share are, in bytes from the start: each on cache lines of its own, or writing one
# would take the others from the caches of those that read them.
_TICKET, _DONE, _RECORD, _DO_SHARE, _CALLING = (2 * CACHE_LINE * i for i in range(5))
_FIELDS = 5
# The ticket: bits 0 to 15 how many shares the caller has taken, 16 to 31 how many the others have, 32 to 47 how many
# there are, from 48 on how many threads may take them: those of lower numbers.
_OTHERS_AT, _SHARES_AT, _THREADS_AT, _MASK = 16, 32, 48, (1 << 16) - 1
MAX_SHARES = _MASK  # of a stage

_SPIN_LIMIT = 20_000  # pauses before a thread waits for its lock: about a millisecond
_YIELD_AFTER = 2_000  # pauses before a thread that waits lets others have its core


@inlined
def take_share(pool, thread):
    """The number of a share that is now this thread's, or -1 where none is left for it; the calling thread is 0."""
    share, taken, seen = -1, False, atomic_read(pool + _TICKET)
    while not taken:
        ticket = seen
        first, last, shares = ticket & _MASK, ticket >> _OTHERS_AT & _MASK, ticket >> _SHARES_AT & _MASK
        if first + last >= shares or thread >= ticket >> _THREADS_AT:
            return -1
        share = first if thread == 0 else shares - 1 - last
        seen = compare_exchange(pool + _TICKET, ticket, ticket + (1 if thread == 0 else 1 << _OTHERS_AT))
        taken = seen == ticket
    return share


@inlined
def open_stage(pool, shares, threads):
    """Let `shares` shares be taken, by threads 0 to `threads` - 1."""
    atomic_write(pool + _DONE, 0)
    # Last of all: from here on threads begin
    atomic_write(pool + _TICKET, threads << _THREADS_AT | shares << _SHARES_AT)


@inlined
def finish_share(pool):
    """Count a share as done."""
    fetch_add(pool + _DONE, 1)


@inlined
def wait_for_shares(pool, shares):
    """Return when all shares of the stage are done."""
    waited = 0
    while atomic_read(pool + _DONE) < shares:
        pause()
        waited += 1
        if waited > _YIELD_AFTER:
            yield_core()


@cpu_kernel()
def _take_shares(pool, thread):
    """Take shares until there has been no call for a while."""
    idle = 0
    # `idle` counts looks at the ticket since the last share
    while idle < _SPIN_LIMIT:
        share = take_share(pool, thread)
        if share < 0:
            pause()
            idle += 1
            if idle > _YIELD_AFTER and atomic_read(pool + _CALLING) > thread:  # a long stage of the caller alone: stay
                idle = _YIELD_AFTER
                yield_core()
        else:
            call_share(atomic_read(pool + _DO_SHARE), atomic_read(pool + _RECORD), thread, share)
            finish_share(pool)
            idle = 0


def shared_fields() -> Array:
    """Room for the numbers that threads share."""
    return aligned((_FIELDS * 2 * CACHE_LINE // 8,), np.int64)


class ThreadPool:
    """The calling thread, whichever it is, and daemon threads of this process. One call at a time has it: `in_use`."""

    def __init__(self) -> None:
        fields = shared_fields()
        self.address = fields.ctypes.data
        self.fields = fields.data  # a memoryview: quicker to write than an array
        self.threads: list[_PoolThread] = []
        self.in_use = threading.Lock()
        self.growing = threading.Lock()

    def grow(self, size: int) -> None:
        """Have at least `size` threads, the calling one among them."""
        with self.growing:  # no two threads of one number
            while len(self.threads) < size - 1:
                self.threads.append(_PoolThread(self, len(self.threads) + 1))

    def begin_call(self, size: int, record: int, do_share: int, wake: bool) -> None:
        """Let threads, up to `size` with the calling one, know what there is to do; `wake` those that wait."""
        self.fields[_RECORD // 8], self.fields[_DO_SHARE // 8], self.fields[_CALLING // 8] = record, do_share, size
        if wake:
            for thread in self.threads[: size - 1]:
                if thread.waiting:
                    thread.wake()

    def end_call(self) -> None:
        """The call is over: threads may wait."""
        self.fields[_CALLING // 8] = 0

    def has_call_for(self, number: int) -> bool:
        """Whether a call that has room for the thread of this number has begun and is not over."""
        return self.fields[_CALLING // 8] > number


class _PoolThread:
    """One thread and the lock that it waits for when there is nothing to do."""

    def __init__(self, pool: ThreadPool, number: int) -> None:
        self.pool, self.number = pool, number
        self.waiting = False  # read and written with the GIL
        self.wake_lock = _thread.allocate_lock()
        self.wake_lock.acquire()
        self.thread = threading.Thread(target=self._serve, name=f"rnnbench-{number}", daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            self.waiting = True
            # A call that began before that took this thread for awake, and wakes it no more
            if self.pool.has_call_for(self.number):
                self.waiting = False
                self.wake_lock.acquire(blocking=False)  # free where the caller has woken it all the same
            else:
                self.wake_lock.acquire()
            _take_shares(self.pool.address, self.number)

    def wake(self) -> None:
        """Wake it away from the caller: a system likes to wake a thread where its waker runs, and goes on."""
        self.waiting = False
        cores = _other_cores()
        if cores and self.thread.native_id is not None:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(self.thread.native_id, cores)
        with contextlib.suppress(RuntimeError):  # free already: the thread went on by itself, and has not waited since
            self.wake_lock.release()


_core_here: Any = None
with contextlib.suppress(AttributeError, OSError, TypeError):  # Linux has it
    _core_here = ctypes.CDLL(None).sched_getcpu


_FIRST_CORES: set[int] = set()
with contextlib.suppress(AttributeError, OSError):
    _FIRST_CORES = os.sched_getaffinity(0)


def _other_cores() -> set[int]:
    """The cores that this process may use, but for the one that this thread is on; empty where the system does not say.

    A thread with fewer cores than the pool has threads was pinned, as OpenMP does with the one that loads it: others
    then have those that the process began with.
    """
    if _core_here is None or not hasattr(os, "sched_getaffinity"):
        return set()
    cores = os.sched_getaffinity(0)
    if len(cores) <= len(_POOL.threads):
        cores = cores | _FIRST_CORES
    return cores - {_core_here()}


_POOL = ThreadPool()


def thread_pool() -> ThreadPool:
    """The one pool of this process."""
    return _POOL


def _forget_threads() -> None:
    """A forked child has no threads but its own."""
    global _POOL
    _POOL = ThreadPool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
