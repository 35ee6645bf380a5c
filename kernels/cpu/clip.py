"""The bound that dL/da_t is held to within the time loops, before it flows on (Graves 2013, arXiv:1308.0850)."""

from __future__ import annotations

from .jit import inner


@inner
def clamp(row, bound):
    """Hold each number of a row to [-bound, bound]; a nan stays."""
    high = row.dtype.type(bound)  # the bound is a float64, and would turn float32 into it
    low = -high
    for j in range(row.size):
        x = row[j]
        row[j] = high if x > high else low if x < low else x
