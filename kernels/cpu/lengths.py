"""Sequences of different lengths in one batch, without wasted steps."""

from __future__ import annotations

from .jit import inner


@inner
def next_run(lengths, t, start, stop):
    """First run of neighbours in start..stop whose sequences have a step t: (from, to); (stop, stop) if none."""
    while start < stop and lengths[start] <= t:
        start += 1
    end = start
    while end < stop and lengths[end] > t:
        end += 1
    return start, end
