"""A linear layer on CPU: what `kernels/numpy/linear.py` defines, with its signatures.

    y = W x + b                                                                     (1)   (N, O)

    N rows   I input   O output

It is equation (1) of `affine.py` for a sequence of N steps, one sample, and an h of size 0: the same compiled code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import affine

Array = NDArray[np.floating[Any]]


def forward(
    x: Array,  # (N, I)
    weight: Array,  # (O, I)
    bias: Array,  # (O,) zeros where the layer has none
    output: Array,  # (N, O) out
) -> None:
    """(1), row by row."""
    weight_hh, h, lengths = _without_h(x, weight)
    affine.preactivations(x[:, None], weight, weight_hh, bias, np.zeros_like(bias), lengths, h, output[:, None])


def backward(
    x: Array,  # (N, I) as given to forward
    weight: Array,  # (O, I)
    d_output: Array,  # (N, O)
    dx: Array,  # (N, I) out
    dweight: Array,  # (O, I) in: the sum over later rows; out: with these added
    dbias: Array,  # (O,) likewise
) -> None:
    """Undo (1); all rows use the same parameters, so their gradients are sums over the rows."""
    dweight_hh, h, lengths = _without_h(x, weight)
    affine.backward(
        d_output[:, None], x[:, None], h, weight, lengths, dx[:, None], dweight, dweight_hh, dbias, np.zeros_like(dbias)
    )


def _without_h(x: Array, weight: Array) -> tuple[Array, Array, NDArray[np.int64]]:
    """W_hh (O, 0), h (N+1, 1, 0) and the length of the one sequence (1,)."""
    return np.empty((len(weight), 0), x.dtype), np.empty((len(x) + 1, 1, 0), x.dtype), np.array([len(x)])
