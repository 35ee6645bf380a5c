"""A linear layer, by definition: plain NumPy, one line per equation, float32 and float64.

    y = W x + b                                                                     (1)   (N, O)

    N rows   I input   O output

It is equation (1) of `affine.py` without the part of h. The rows fall into the blocks of `blocks.py`, those of a
sequence of N steps and one sample, whatever is computed: a matrix product may round differently for another number of
rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .affine import time_blocks

Array = NDArray[np.floating[Any]]


def forward(
    x: Array,  # (N, I)
    weight: Array,  # (O, I)
    bias: Array,  # (O,) zeros where the layer has none
    output: Array,  # (N, O) out
) -> None:
    """(1), row by row."""
    for rows in time_blocks(len(x), 1):
        output[rows] = x[rows] @ weight.T + bias


def backward(
    x: Array,  # (N, I) as given to forward
    weight: Array,  # (O, I)
    d_output: Array,  # (N, O)
    dx: Array,  # (N, I) out
    dweight: Array,  # (O, I) in: the sum over later rows; out: with these added
    dbias: Array,  # (O,) likewise
) -> None:
    """Undo (1); all rows use the same parameters, so their gradients are sums over the rows."""
    for rows in reversed(time_blocks(len(x), 1)):
        dx[rows] = d_output[rows] @ weight  # undoes (1), in x
        dweight += d_output[rows].T @ x[rows]  # undoes (1), in W
        dbias += d_output[rows].sum(axis=0, dtype=np.float64).astype(dbias.dtype)  # undoes (1), in b
