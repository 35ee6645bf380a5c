"""Sequences of different lengths in one batch: which rows are still running at a time step."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = slice | NDArray[np.bool_]


def running(lengths: NDArray[np.integer[Any]], t: int) -> Rows:  # lengths (B,)
    """Rows of the batch whose sequence has a step `t`: an index for axis B.

    A slice when all have, since a slice is a view and a mask is a copy.
    """
    rows = t < lengths
    return slice(None) if rows.all() else rows
