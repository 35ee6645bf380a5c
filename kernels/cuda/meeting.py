"""How the blocks of a persistent kernel meet: one counter for each group of blocks, and a bound on every wait.

    arrive   all threads of a block have written; one of them adds 1, with release: what the block wrote comes before
    wait     one thread of a block reads the counter, with acquire, until as many arrived as should have; then all go on

The counter only grows: after step t of n blocks it is n·(t + 1). Blocks wait for each other only if all of them run at
once, which a cooperative launch guarantees. Should an arrival be lost nevertheless, whoever has read the counter
`patience` times gives up, rings the queue's alarm, and leaves with its whole block: a launch ends, always.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from . import vendor
from .queue import Queue

DeviceArray = Any

APART = 32  # words from one group's counter to the next: lines of their own, since additions to one come in turn
PATIENCE = 1 << 24  # readings of a counter: seconds (estimated), where a wait takes microseconds


def counters(queue: Queue, groups: int) -> DeviceArray:  # (groups · APART,) uint32
    """Nobody has arrived. Raises GaveUpError if a kernel before this one gave up."""
    queue.check_alarm()
    return queue.zeros((groups * APART,), np.uint32)


@functools.cache
def arrive() -> Callable[..., Any]:
    """Device function, called by all threads of a block."""
    from numba import cuda

    add = vendor.arrive()

    @cuda.jit(device=True, forceinline=True)
    def arrive(counters, group):
        cuda.syncthreads()
        if cuda.threadIdx.x == 0:
            add(counters, group * APART)

    return arrive


@functools.cache
def wait() -> Callable[..., Any]:
    """Device function, called by all threads of a block: whether `arrivals` came. `failed` is a shared word."""
    from numba import cuda, int32

    arrived, give_up = vendor.arrived(), vendor.store_error()

    @cuda.jit(device=True, forceinline=True)
    def wait(counters, group, arrivals, patience, alarm, failed):
        if cuda.threadIdx.x == 0:
            readings = int32(0)
            while int32(arrived(counters, group * APART) - arrivals) < 0:  # the difference: right beyond 2³² too
                readings += int32(1)
                if readings >= patience:
                    failed[0] = int32(1)
                    give_up(alarm, 0)
                    break
        cuda.syncthreads()
        return failed[0] == 0

    return wait
