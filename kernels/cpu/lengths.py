"""Sequences of different lengths in one batch, without wasted steps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .jit import inner


def ends_early(lengths: NDArray[np.integer[Any]], steps: int) -> bool:
    """Whether some sequence ends before `steps`."""
    return bool(lengths.size) and int(lengths.min()) < steps


@inner
def next_run(lengths, t, start, stop):
    """First run of neighbours in start..stop whose sequences have a step t: (from, to); (stop, stop) if none."""
    while start < stop and lengths[start] <= t:
        start += 1
    end = start
    while end < stop and lengths[end] > t:
        end += 1
    return start, end


@inner
def next_attached(lengths, detached, t, batch, start, stop):
    """`next_run`, without the samples that `detached` (T, B), flat, names at step t; empty: all of them."""
    if detached.size == 0:
        return next_run(lengths, t, start, stop)
    row = detached[t * batch : (t + 1) * batch]
    while start < stop and (lengths[start] <= t or row[start]):
        start += 1
    end = start
    while end < stop and lengths[end] > t and not row[end]:
        end += 1
    return start, end


@inner
def all_run(lengths, stop, first, last):
    """Whether every sequence in first..last has all steps before `stop`."""
    least = stop
    for b in range(first, last):
        least = min(least, lengths[b])
    return least >= stop


@inner
def any_runs(lengths, t, batch):
    """Whether some sequence has a step t."""
    most = t
    for b in range(batch):
        most = max(most, lengths[b])
    return most > t
