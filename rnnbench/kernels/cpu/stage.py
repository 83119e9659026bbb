"""Stages: work that is cut into shares, which the threads of the team take."""

from __future__ import annotations

import numpy as np

from rnnbench.kernels.cpu.calls import apart, call_work
from rnnbench.kernels.cpu.compiling import helper
from rnnbench.kernels.cpu.context import address_of
from rnnbench.kernels.cpu.team import finish_share, open_stage, take_share, wait_for_all

# What a share is of: NumPy integers, for Numba would compile a kernel again for each literal. The last four are stages
# within the one share of ROWS, where rows are few and weights are large.
PREPARE, PROJECT, ROWS, WORDS, UPDATE, BLOCKS, INPUTS, STEP, STEP_BACK, SUMS = (np.int64(kind) for kind in range(10))


@helper
def give(c, numbers):
    """Leave the arguments of stages within the rows where their shares find them, but for the step, which is `c.t`."""
    given = c.given
    for i in range(len(numbers)):
        given[i] = numbers[i]


@apart
def stage(c, kind, shares):
    """All shares of a stage; a stage of one share is done on the spot."""
    c.stage, c.shares = kind, shares
    if shares == 1 or c.team == 0:
        for number in range(shares):
            call_work(c.work, address_of(c), 0, number)
        return
    open_stage(c.team, shares)
    number = take_share(c.team)
    while number >= 0:
        call_work(c.work, address_of(c), 0, number)
        finish_share(c.team)
        number = take_share(c.team)
    wait_for_all(c.team, shares)
